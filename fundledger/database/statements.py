"""Database queries of all packages: load the SQL files of a package. Each file contains one query."""

from importlib.resources import files


def load(package: str, **lists: str) -> dict[str, str]:
    """Return the queries in the `sql/` folder of a package. The key is the file name without its extension. `{NAME}` in
    a query is replaced by the list with this name.
    """
    queries = {}
    for path in (files(package) / "sql").iterdir():
        name, _, extension = path.name.partition(".")
        if extension == "sql":
            queries[name] = path.read_text()
            for marker, columns in lists.items():
                queries[name] = queries[name].replace(f"{{{marker}}}", columns)
    return queries
