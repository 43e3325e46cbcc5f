"""The schema of the account database, and the layout of its ledger."""

from pathlib import Path

import asyncpg

from fundledger.database import migrations
from fundledger.database.migrations import SchemaFault
from fundledger.ledger.accounts import Layout
from fundledger.ledger.keys import settle_keys
from fundledger.ledger.statements import SQL

PACKAGE = "fundledger.ledger"


async def migrate(
    connection: "asyncpg.Connection[asyncpg.Record]", layout: Layout | None, keys: Path | None = None
) -> tuple[Layout, list[str]]:
    """Bring the schema up to date; answers the layout and the names of what was applied.

    `layout` is used when the ledger is initialised. With `keys`, the folder of the ledger's keys, they are checked in
    the same transaction, and made where no row was ever written with one. Raises KeyFault when one is missing or is
    another one; nothing is changed then. Raises SchemaFault when the database is newer than this version, or
    when an applied migration was changed.
    """
    async with connection.transaction():
        done = await migrations.apply(connection, PACKAGE, SQL)
        if layout is not None:
            await connection.execute(SQL["write_layout"], layout.shards, layout.platform_slots)
        if keys is not None:
            await settle_keys(connection, keys)
        return await read_layout(connection), done


async def read_layout(connection: "asyncpg.Connection[asyncpg.Record]") -> Layout:
    """Raises SchemaFault."""
    row = await connection.fetchrow(SQL["read_layout"])
    if row is None:
        raise SchemaFault("the ledger was never initialised")
    return Layout(row["shards"], row["platform_slots"])
