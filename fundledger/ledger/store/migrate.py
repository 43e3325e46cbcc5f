"""Migrations of the ledger's store: the schema of the account database, and the layout of its ledger."""

from pathlib import Path

import asyncpg

from fundledger.database import migrations
from fundledger.database.migrations import SchemaFault
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.keys import settle_keys
from fundledger.ledger.store.queries import SQL

PACKAGE = "fundledger.ledger"


async def migrate(
    connection: "asyncpg.Connection[asyncpg.Record]", layout: Layout | None, keys: Path | None = None
) -> tuple[Layout, list[str]]:
    """Bring the schema up to date. Return the layout and the names of the migrations that were applied.

    `layout`: the layout of a new ledger; an initialised ledger keeps its existing layout.
    `keys`: the folder of the ledger's keys. The keys are checked in the same transaction, and the first key is created
      if no row was ever written with a key.

    Raises KeyFault when a key is missing or differs. Raises SchemaFault when the database is newer than this version,
    or when an applied migration was changed. In both cases nothing is changed.
    """
    async with connection.transaction():
        done = await migrations.apply(connection, PACKAGE, SQL)
        if layout is not None:
            await connection.execute(SQL["write_layout"], layout.shards, layout.platform_slots)
        if keys is not None:
            await settle_keys(connection, keys)
        return await read_layout(connection), done


async def read_layout(connection: "asyncpg.Connection[asyncpg.Record]") -> Layout:
    """Return the layout of the ledger. Raises SchemaFault."""
    row = await connection.fetchrow(SQL["read_layout"])
    if row is None:
        raise SchemaFault("the ledger is not initialised")
    return Layout(row["shards"], row["platform_slots"])
