"""The process of daemons, as the supervisor starts it."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import asyncpg
import msgspec

from fundledger.app.fund.daemons import Told
from fundledger.app.fund.order_line import FundOrder
from fundledger.daemons.daemon import SQL
from fundledger.daemons.watch import Standing, standings
from tests.support.orders import orders
from tests.support.running import short_folder
from tests.support.waiting import eventually

NAMES = {"recoverer", "payouts", "settlement", "webhooks", "day_end", "stream"}


async def told(path: Path) -> Told:
    reader, writer = await asyncio.open_unix_connection(str(path))
    answer = await reader.read()
    writer.close()
    return msgspec.json.decode(answer, type=Told)


async def test_a_process_runs_every_daemon_and_gives_its_leases_back(fund_database: str, valkey: str) -> None:
    folder = short_folder()
    order = FundOrder(
        0, fund_database, str(folder), json.dumps({"stream": "on"}), valkey, "http://127.0.0.1:1", "token", {}
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fundledger.app.fund.daemons", stdin=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(order) + b"\n")
    connection = await asyncpg.connect(fund_database)

    async def rows() -> dict[str, Standing]:
        return {one.name: one for one in standings(await connection.fetch(SQL["look"]))}

    try:

        async def all_ran() -> bool:
            return {name for name, one in (await rows()).items() if one.last_success_at is not None} == NAMES

        await eventually(all_ran, "each has run once")
        assert all(one.holder is not None and one.last_error is None for one in (await rows()).values())
        counted = (await told(folder / "daemons-0.sock")).daemons
        assert set(counted.overdue) == NAMES
        seqs = await orders(connection, 2)

        async def published() -> bool:
            return await connection.fetchval("SELECT max(after) FROM outbox.cursors WHERE name = 'stream'") == seqs[-1]

        await eventually(published, "an event is published")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        assert all(one.holder is None for one in (await rows()).values())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await connection.close()
