"""Durability of outbox events: a reader gets no event that a crash can undo."""

import asyncpg
import pytest

from fundledger.outbox.watermark import FUND, VisibilityWatermark
from tests.support.orders import an_order
from tests.support.waiting import eventually

TIMES = 20
"""Number of checks. One is not enough: the WAL writer flushes every 200 ms, so it could succeed by chance."""
LSN = "SELECT (pg_current_wal_{}_lsn() - '0/0'::pg_lsn)::bigint"


@pytest.mark.parametrize("durable", ["on", "off"])
async def test_a_commit_is_in_the_log_on_disk_before_its_events_are_reported(fund_database: str, durable: str) -> None:
    """The fund service commits outcomes without waiting for the disk."""
    horizon = VisibilityWatermark(fund_database, FUND, "tests")
    writer = await asyncpg.connect(fund_database, server_settings={"synchronous_commit": durable})
    reader = await asyncpg.connect(fund_database)
    try:
        for _ in range(TIMES):
            async with writer.transaction():
                seq = await an_order(writer)
            committed = await writer.fetchval(LSN.format("insert"))

            async def reported(seq: int = seq) -> bool:
                await horizon.look()
                return horizon.safe >= seq

            await eventually(reported, "the event is reported")
            assert await reader.fetchval(LSN.format("flush")) >= committed
    finally:
        horizon.close()
        await writer.close()
        await reader.close()
