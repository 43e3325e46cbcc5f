"""The schema: numbered SQL files, each applied once, in order, in one transaction with its record."""

import hashlib
from importlib.resources import files

import asyncpg

from fundledger.ledger.accounts import Layout
from fundledger.ledger.statements import SQL

_LOCK = 0x66756E64  # "fund": one migrator at a time


class SchemaFault(Exception):
    """The database's schema is not one that this version can serve."""


def migrations() -> list[tuple[int, str, str]]:
    """`(number, name, sql)`, in order."""
    folder = files("fundledger.ledger") / "migrations"
    found = [(path.name, path.read_text()) for path in folder.iterdir() if path.name.endswith(".sql")]
    return sorted((int(name[:4]), name, sql) for name, sql in found)


async def migrate(connection: "asyncpg.Connection[asyncpg.Record]", layout: Layout | None) -> tuple[Layout, list[str]]:
    """Bring the schema up to date; answers the layout and the names of what was applied.

    `layout` is used when the ledger is initialised. Raises SchemaFault when the database is newer than this version,
    when an applied migration was changed, or when the ledger was initialised with another layout.
    """
    async with connection.transaction():
        await connection.execute(SQL["migration_lock"], _LOCK)
        await connection.execute(SQL["migration_table"])
        rows = await connection.fetch(SQL["migrations_applied"])
        applied = {row["number"]: row for row in rows}
        known = {number for number, _, _ in migrations()}
        if set(applied) - known:
            raise SchemaFault(f"the database has migration {max(applied)}, which this version does not know")
        done = []
        for number, name, sql in migrations():
            sha256 = hashlib.sha256(sql.encode()).hexdigest()
            if number in applied:
                if applied[number]["sha256"] != sha256:
                    raise SchemaFault(f"migration {name} was changed after it was applied")
                continue
            await connection.execute(sql)
            await connection.execute(SQL["migration_record"], number, name, sha256)
            done.append(name)
        return await _layout(connection, layout), done


async def read_layout(connection: "asyncpg.Connection[asyncpg.Record]") -> Layout:
    row = await connection.fetchrow(SQL["read_layout"])
    if row is None:
        raise SchemaFault("the ledger was never initialised")
    return Layout(row["shards"], row["platform_slots"])


async def _layout(connection: "asyncpg.Connection[asyncpg.Record]", layout: Layout | None) -> Layout:
    if layout is not None:
        await connection.execute(SQL["write_layout"], layout.shards, layout.platform_slots)
    return await read_layout(connection)
