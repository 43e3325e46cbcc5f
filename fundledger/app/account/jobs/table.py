"""The job table of the account service and the resources of its jobs, for workers and for `fundledger jobs run`."""

from datetime import time
from typing import Final
from zoneinfo import ZoneInfo

import asyncpg
import msgspec

from fundledger.app.account.jobs.expiry import HOLD_EXPIRY, Expiry
from fundledger.app.account.jobs.sweep import MAC_SWEEP, Sweeper
from fundledger.hotspot.buffer_drainer import BUFFER_DRAINER, BufferDrainer
from fundledger.hotspot.detector import Thresholds
from fundledger.hotspot.rebalancer import REBALANCER, Rebalancer
from fundledger.jobs.job import Job
from fundledger.ledger.context import Books
from fundledger.ledger.model.clock import AccountingCalendar
from fundledger.ledger.store.directory import Directory
from fundledger.ledger.store.keys import open_keys
from fundledger.ledger.store.migrate import read_layout
from fundledger.ledger.store.session import SETTINGS
from fundledger.settings import Settings

NAMES: Final = (HOLD_EXPIRY, MAC_SWEEP, REBALANCER, BUFFER_DRAINER)
CONNECTIONS: Final = len(NAMES) + 2
"""Number of database connections: one for each job, one for the leases, one for the follower of hot accounts. So no
job waits for a connection.
"""


class Context(msgspec.Struct, frozen=True):
    """Shared resources of the background jobs of one process. Close `pool` after the last run."""

    pool: "asyncpg.Pool[asyncpg.Record]"
    rebalancer: Rebalancer
    drainer: BufferDrainer
    expiry: Expiry
    sweeper: Sweeper


def jobs_of(context: Context) -> list[Job]:
    """Return all background jobs of this version. List a new job in docs/reference/background-jobs.md, too."""
    return [context.expiry.job(), context.sweeper.job(), context.rebalancer.job(), context.drainer.job()]


async def open_books(settings: Settings, dsn: str, ordinal: int = 0) -> Books:
    """Return the posting context of a process on a migrated database. Raises SchemaFault, KeyFault, asyncpg errors."""
    connection = await asyncpg.connect(dsn)
    try:
        layout = await read_layout(connection)
        keys = await open_keys(connection, settings.data_dir / "keys")
    finally:
        await connection.close()
    calendar = AccountingCalendar(ZoneInfo(settings.accounting_timezone), settings.accounting_cut or time(0))
    return Books(keys, Directory(keys, shards=layout.shards), layout, calendar, ordinal, settings.journal == "summary")


async def open_context(settings: Settings, dsn: str, books: Books) -> Context:
    """Open the resources of the background jobs. Raises asyncpg errors."""
    pool = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=CONNECTIONS,
        command_timeout=30,
        server_settings={**SETTINGS, "application_name": f"fundledger jobs {books.ordinal}"},
    )
    thresholds = Thresholds(
        settings.heat_promote,
        settings.heat_promote_s,
        settings.heat_demote,
        settings.heat_demote_s,
        settings.heat_share,
    )
    return Context(
        pool,
        Rebalancer(dsn, pool, books, thresholds, acts=settings.splitting == "auto"),
        BufferDrainer(dsn, pool, books, settings.buffered_max, settings.buffered_lag_max_s),
        Expiry(dsn, pool, books),
        Sweeper(pool, books.directory, books.layout),
    )
