"""Store of the fund service: apply the migrations of its database, and record the keys of the database."""

from pathlib import Path
from typing import Final

import asyncpg

from fundledger.database import migrations
from fundledger.fund.store import debts, ends
from fundledger.fund.store.channels import register_used
from fundledger.fund.store.first_macs import seal_first
from fundledger.fund.store.macs import open_macs, trusted_mac, unswept_mac
from fundledger.fund.store.queries import SQL
from fundledger.security.key_record import KeyRecord

PACKAGE = "fundledger.fund"
MACS = "0010_order_macs.sql"
"""The migration that added MACs of orders. Orders that were inserted before it have no MAC and are trusted."""
ROW_MACS = "0012_row_macs.sql"
"""The migration that added MACs of other rows. Rows that were written before it get their MACs in its transaction, or
from the background job `fund_mac_sweep`.
"""
CHANNELS: Final = "0017_people.sql"
"""The migration that added the registry of channels. Its transaction registers the channels of existing orders."""

DEBTS: Final = "0014_receipts_and_debts.sql"
"""The migration that added fund.debts. Debts of earlier orders are inserted in its transaction."""
ENDS: Final = "0021_calendar.sql"
"""The migration that added fund.ends. Its transaction inserts the ends that no closed day has."""


async def migrate(connection: "asyncpg.Connection[asyncpg.Record]", keys: Path | None = None) -> list[str]:
    """Apply the missing migrations and return their names. `keys`: the folder with the keys of the fund database, which
    are checked in the same transaction; None: no check. If no row was ever written with a key, a first key is created.

    Raises SchemaFault, and KeyFault if a key is missing or differs. After an exception nothing is changed.
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
            if DEBTS in done:
                await debts.begin(connection, await open_macs(connection, found))
            if CHANNELS in done:
                await register_used(connection, await open_macs(connection, found))
            if ENDS in done:
                await ends.begin(connection, await open_macs(connection, found))
        return done


def fund_keys(folder: Path) -> KeyRecord:
    """Return the key record of the fund database. The record has every key that was ever used, because keys and their
    record were introduced together.
    """
    return KeyRecord("fund database", folder, SQL)
