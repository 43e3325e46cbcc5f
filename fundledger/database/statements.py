"""Database queries of all packages: load the SQL files of a package. Each file contains one query."""

from importlib.resources import files


def load(package: str) -> dict[str, str]:
    """Return the queries in the `sql/` folder of a package. The key is the file name without its extension."""
    folder = files(package) / "sql"
    return {path.name.removesuffix(".sql"): path.read_text() for path in folder.iterdir() if path.name.endswith(".sql")}
