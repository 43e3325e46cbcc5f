"""The process that runs the background jobs of the fund service, and the workers that report overdue jobs."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.app.commands.jobs import _of_fund
from fundledger.app.fund import jobs
from fundledger.app.fund.config import FundProcessConfig
from fundledger.app.fund.jobs import JobsSnapshot
from fundledger.fund.jobs.payouts import Payouts
from fundledger.jobs.job import SQL
from fundledger.jobs.watch import Standing, standings
from fundledger.security.keys import make_keys
from fundledger.settings import SIMULATOR, Settings
from tests.support.fund_http import a_fund_service
from tests.support.orders import orders
from tests.support.running import short_folder
from tests.support.waiting import eventually

NAMES = {
    *("recoverer", "payouts", "release", "settlement", "approvals"),
    *("closing", "reserves", "webhooks", "day_end", "fund_mac_sweep", "stream"),
}


async def told(path: Path) -> JobsSnapshot:
    reader, writer = await asyncio.open_unix_connection(str(path))
    answer = await reader.read()
    writer.close()
    return msgspec.json.decode(answer, type=JobsSnapshot)


async def test_a_process_runs_every_background_job_and_releases_its_leases(fund_database: str, valkey: str) -> None:
    folder = short_folder()
    make_keys(folder / "fund-keys")
    settings = json.dumps({"stream": "on", "data_dir": str(folder)})
    order = FundProcessConfig(0, fund_database, str(folder), settings, valkey, "http://127.0.0.1:1", "token", {})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fundledger.app.fund.jobs", stdin=asyncio.subprocess.PIPE, env=dict(os.environ)
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
        counted = (await told(folder / "jobs-0.sock")).jobs
        assert set(counted.overdue) == NAMES
        seqs = await orders(connection, 2)

        async def published() -> bool:
            return await connection.fetchval("SELECT max(after) FROM outbox.cursors WHERE name = 'stream'") == seqs[-1]

        await eventually(published, "an event is published")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 90) == 0
        assert all(one.holder is None for one in (await rows()).values())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await connection.close()


async def test_a_worker_reports_background_jobs_that_no_process_runs(fund_database: str, tmp_path: Path) -> None:
    connection = await asyncpg.connect(fund_database)
    try:
        await connection.execute(SQL["know"], ["payouts", "webhooks"], [60.0, 60.0])
        await connection.execute(
            "UPDATE daemons.leases SET last_success_at = now() - interval '61 seconds' WHERE name = 'payouts'"
        )
    finally:
        await connection.close()
    async with a_fund_service(fund_database, tmp_path, None) as (service, _):
        overdue = {"payouts": 1, "webhooks": 0}
        await eventually(lambda: service.snapshot().jobs.overdue == overdue, "it is reported")
        assert service.runner.holds() == []
        told = service.snapshot().jobs.last_success["payouts"]
        assert told < datetime.now(UTC).timestamp() - 60


async def test_background_jobs_that_are_run_by_hand_know_the_channels_that_serve_knows(
    fund_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = []

    class Seen(Payouts):
        def __init__(self, pool: Any, batcher: Any, channels: Mapping[str, Any], **more: Any) -> None:
            super().__init__(pool, batcher, channels, **more)
            known.append(set(channels))

    monkeypatch.setattr(jobs, "Payouts", Seen)
    make_keys(tmp_path / "data" / "fund-keys")
    for text, expected in (("", {SIMULATOR}), ("icbc=http://127.0.0.1:1", {"icbc"})):
        settings = Settings(data_dir=tmp_path / "data", fund_dsn=fund_database, channels=text)
        async with _of_fund(settings, fund_database):
            assert known.pop() == expected
