"""Database migrations: apply numbered SQL files in order, each file once, and record them in the same transaction."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Final

import asyncpg

_LOCK: Final = 0x66756E64  # the bytes of "fund"; the lock allows one migrator at a time


class SchemaFault(Exception):
    """The schema of the database is not supported by this version."""


def migrations(package: str) -> list[tuple[int, str, str]]:
    """Return `(number, name, sql)` of each SQL file in the `migrations/` folder of a package, ordered by number."""
    folder = files(package) / "migrations"
    found = [(path.name, path.read_text()) for path in folder.iterdir() if path.name.endswith(".sql")]
    return sorted((int(name[:4]), name, sql) for name, sql in found)


async def apply(
    connection: "asyncpg.Connection[asyncpg.Record]", package: str, statements: Mapping[str, str]
) -> list[str]:
    """Bring a schema up to date. Return the names of the migrations that were applied.

    The caller has begun a transaction. The transaction holds the migration lock until it ends. `statements` are the
    package's queries `migration_lock`, `migration_table`, `migrations_applied` and `migration_record`. Raises
    SchemaFault if the database is newer than this version, or if an applied migration was changed.
    """
    await connection.execute(statements["migration_lock"], _LOCK)
    await connection.execute(statements["migration_table"])
    rows = await connection.fetch(statements["migrations_applied"])
    applied = {row["number"]: row for row in rows}
    found = migrations(package)
    if set(applied) - {number for number, _, _ in found}:
        raise SchemaFault(f"the database has migration {max(applied)}, which this version does not know")
    done = []
    for number, name, sql in found:
        sha256 = hashlib.sha256(sql.encode()).hexdigest()
        if number in applied:
            if applied[number]["sha256"] != sha256:
                raise SchemaFault(f"migration {name} was changed after it was applied")
            continue
        await connection.execute(sql)
        await connection.execute(statements["migration_record"], number, name, sha256)
        done.append(name)
    return done
