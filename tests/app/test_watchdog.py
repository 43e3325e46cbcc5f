"""The watchdog: a hanging process of either service is replaced, other processes answer meanwhile, the books verify."""

import os
import signal
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from tests.support.client import Client, new_id, voucher
from tests.support.running import RunningService
from tests.support.waiting import eventually

REPLACED_S = 60.0


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[RunningService]:
    async with RunningService(workers=2, fund=True, env={"FUNDLEDGER_UNRESPONSIVE_S": "3"}) as service:
        yield service


@pytest.mark.parametrize("process", ["worker", "fund_worker", "daemons"])
async def test_a_process_that_hangs_is_replaced_and_the_books_hold(own: RunningService, process: str) -> None:
    pids: Callable[[], list[int]] = {
        "worker": own.worker_pids,
        "fund_worker": own.fund_pids,
        "daemons": own.jobs_pids,
    }[process]
    before = pids()
    async with Client(own.base_url, own.token) as client:
        payment = voucher(await client.merchant(100), await client.merchant(), 7, new_id())
        first = await client.post("/v1/vouchers", payment)
        assert first.status == 201
    os.kill(before[0], signal.SIGSTOP)
    await eventually(lambda: before[0] not in pids() and len(pids()) == len(before), "it is replaced", REPLACED_S)
    assert set(before[1:]) <= set(pids()), "the others are left alone"
    url = own.base_url if process == "worker" else own.fund_url
    await eventually(lambda: _counted(url, process), "it is counted", REPLACED_S)
    lines = [line for line in own.log.read_text().splitlines() if "worker_unresponsive" in line]
    assert len([line for line in lines if f'"pid": {before[0]}' in line]) == 1
    async with Client(own.base_url, own.token) as client:
        again = await client.post("/v1/vouchers", payment)
        assert (again.status, again.is_replay, again.body) == (200, True, first.body)
    report = await own.verify()
    assert report["ok"], report


async def _counted(url: str, process: str) -> bool:
    async with Client(url, None) as client:
        try:
            answer = await client.get("/metrics")
        except aiohttp.ClientError:
            return False  # the process that listens is being replaced
    if answer.status != 200:
        return False
    page = answer.body.decode()
    return f'fundledger_worker_replaced_total{{process="{process}",reason="unresponsive"}} 1.0' in page
