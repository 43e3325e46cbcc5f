"""The schema of the fund database."""

from pathlib import Path

import asyncpg

from fundledger.database import migrations
from fundledger.fund.first_macs import seal_first
from fundledger.fund.macs import trusted_mac, unswept_mac
from fundledger.fund.statements import SQL
from fundledger.security.key_record import KeyRecord

PACKAGE = "fundledger.fund"
MACS = "0010_order_macs.sql"
"""What was written before this migration has no MAC, and is trusted from then on."""
ROW_MACS = "0012_row_macs.sql"
"""What was written before this migration is brought over: by it, or by the daemon that sweeps."""


async def migrate(connection: "asyncpg.Connection[asyncpg.Record]", keys: Path | None = None) -> list[str]:
    """Bring the schema up to date; answers the names of what was applied. With `keys`, the folder of the fund
    database's keys, they are checked in the same transaction, and made where no row was ever written with one.

    Raises SchemaFault; KeyFault when a key is missing or is another one. Nothing is changed then.
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
    """The keys of the fund database; all that were ever used are recorded, since the schema that has them has these."""
    return KeyRecord("fund database", folder, SQL)
