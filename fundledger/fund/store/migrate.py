"""Migrations of the fund database: apply the schema, and record its keys."""

from pathlib import Path

import asyncpg

from fundledger.database import migrations
from fundledger.fund.store.first_macs import seal_first
from fundledger.fund.store.macs import trusted_mac, unswept_mac
from fundledger.fund.store.queries import SQL
from fundledger.security.key_record import KeyRecord

PACKAGE = "fundledger.fund"
MACS = "0010_order_macs.sql"
"""Orders inserted before this migration have no MAC, and are trusted."""
ROW_MACS = "0012_row_macs.sql"
"""Rows written before this migration get their MACs by the migration, or by the sweep job."""


async def migrate(connection: "asyncpg.Connection[asyncpg.Record]", keys: Path | None = None) -> list[str]:
    """Apply missing migrations and return their names. With `keys` (the folder of the fund database's keys) the keys
    are checked in the same transaction. A first key is created if no row was ever written with a key.

    Raises SchemaFault; KeyFault if a key is missing or differs. After an exception nothing is changed.
    """
    async with connection.transaction():
        done = await migrations.apply(connection, PACKAGE, SQL)
        if keys is not None:
            record = fund_keys(keys)
            found = await record.settle(connection, await record.recorded(connection), {})
            last = await connection.fetchval(SQL["last_order"])
            if last is not None and MACS in done:
                await connection.execute(SQL["write_trusted"], last, trusted_mac(last, found))
            if last is not None and ROW_MACS in done:
                await connection.execute(SQL["write_unswept"], last, unswept_mac(last, found))
            if ROW_MACS in done:
                await seal_first(connection, found)
        return done


def fund_keys(folder: Path) -> KeyRecord:
    """Return the key record of the fund database. The record has every key that was ever used: keys and their record
    were introduced together.
    """
    return KeyRecord("fund database", folder, SQL)
