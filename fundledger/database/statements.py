"""SQL statements of a package, one in each file, loaded once: `SQL["lock_sub_accounts"]`."""

from importlib.resources import files


def load(package: str) -> dict[str, str]:
    """Return `{file name without extension: statement}` of a package's `sql/` folder."""
    folder = files(package) / "sql"
    return {path.name.removesuffix(".sql"): path.read_text() for path in folder.iterdir() if path.name.endswith(".sql")}
