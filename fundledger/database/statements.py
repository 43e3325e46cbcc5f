"""The SQL of a package, one statement a file, loaded once: `SQL["lock_sub_accounts"]`."""

from importlib.resources import files


def load(package: str) -> dict[str, str]:
    """`{file name without ending: statement}` of a package's `sql/` folder."""
    folder = files(package) / "sql"
    return {path.name.removesuffix(".sql"): path.read_text() for path in folder.iterdir() if path.name.endswith(".sql")}
