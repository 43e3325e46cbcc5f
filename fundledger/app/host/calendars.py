"""Start-up step of the host: record the calendar of the settings, which both services use, in the fund database."""

import asyncpg

from fundledger.fund.store.calendars import record_first, require_same
from fundledger.fund.store.macs import open_macs
from fundledger.security.keys import FileKeys
from fundledger.settings import Settings


async def agree_on_calendar(dsn: str, settings: Settings) -> None:
    """Record the calendar of the settings in the fund database if none is recorded, and compare it. Raises
    CalendarDiffers, KeyFault, and what asyncpg raises.
    """
    timezone, cut = settings.accounting_timezone, settings.accounting_cut
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        macs = await open_macs(connection, FileKeys(settings.data_dir / "fund-keys"))
        await record_first(connection, macs.rows, macs.days, timezone, cut)
        await macs.read_days(connection)
        require_same(macs.days, timezone, cut, "the settings have")
    finally:
        await connection.close()
