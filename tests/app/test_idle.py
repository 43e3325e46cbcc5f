"""A worker with almost no load answers every request, also after its machine has paused."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from fundledger.ratelimit.shedding.shedder import WINDOW_S
from tests.support.client import Client
from tests.support.running import RunningService
from tests.support.waiting import eventually

STILL_S = 1.3
"""Duration of a pause (s), longer than the latency target of a second."""


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[RunningService]:
    async with RunningService(workers=1, fund=True) as service:
        yield service
        assert (await service.verify())["ok"]


@contextlib.contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def stand_still(service: RunningService, client: Client, path: str) -> None:
    """Pause the workers, and send one request to them meanwhile."""
    with stopped(service.worker_pids() + service.fund_pids()):
        until = time.monotonic() + STILL_S
        asked = asyncio.create_task(client.get(path))
        await eventually(lambda: time.monotonic() > until, "the workers have stood still")
    assert (await asked).status == 200


async def one_by_one(client: Client, path: str) -> None:
    """Send requests one after the other, for more than two windows of the load shedder."""
    until = time.monotonic() + 2.5 * WINDOW_S
    while time.monotonic() < until:
        assert (await client.get(path)).status == 200


async def test_a_worker_that_stood_still_sheds_none_of_a_few_requests(own: RunningService) -> None:
    async with Client(own.base_url, own.token, patient=False) as client:
        path = f"/v1/accounts/{await client.merchant()}"
        for _ in range(3):
            await stand_still(own, client, path)
            # Single requests, until the window in which the event loop was late has ended. Then some concurrent ones.
            await one_by_one(client, path)
            answers = await asyncio.gather(*[client.get(path) for _ in range(8)])
            assert [answer.status for answer in answers] == [200] * 8, answers


async def test_the_fund_service_reads_the_accounts_of_a_merchant_after_both_stood_still(own: RunningService) -> None:
    """A read of a merchant causes three concurrent requests to the account service."""
    async with Client(own.fund_url, own.token, patient=False) as client:
        merchant = {"id": "m", "name": "m", "currency": "CNY"}
        assert (await client.post("/v1/merchants", merchant)).status == 201
        # The first merchant of a currency opens so many accounts concurrently that the worker does not count as idle.
        await one_by_one(client, "/v1/merchants/m")
        for _ in range(3):
            await stand_still(own, client, "/v1/merchants/m")
            for _ in range(5):
                answer = await client.get("/v1/merchants/m")
                assert answer.status == 200, answer
