"""SQL files of the database packages: loaded once, one query in each file."""

from importlib.resources import files


def load(package: str) -> dict[str, str]:
    """Return the queries in a package's `sql/` folder, by file name without extension."""
    folder = files(package) / "sql"
    return {path.name.removesuffix(".sql"): path.read_text() for path in folder.iterdir() if path.name.endswith(".sql")}
