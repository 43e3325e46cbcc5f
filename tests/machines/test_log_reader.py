"""A reader of the log that stops reading: both services continue, and report the number of dropped lines afterwards."""

import asyncio
import fcntl
import os
import re
import subprocess
import threading

import pytest

from tests.support.client import Client, new_id
from tests.support.running import COMMAND, RunningService
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

LINES = 6_000


async def serves(url: str) -> bool:
    try:
        async with Client(url, None, timeout_s=2) as client:
            return (await client.get("/readyz")).status == 200
    except (OSError, TimeoutError):
        return False


async def dropped(service: RunningService) -> int:
    async with Client(service.base_url, service.token) as client:
        page = (await client.get("/metrics")).body.decode()
    found = re.search(r"^fundledger_log_lines_dropped_total (\S+)$", page, re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


async def test_a_pipe_that_is_not_read_holds_up_no_payment_no_job_and_no_stop() -> None:
    service = RunningService(workers=1, fund=True)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    text: list[bytes] = []
    try:
        service.process = subprocess.Popen(
            [COMMAND, "serve"], env={**service.environment, "FUNDLEDGER_LOG_SAMPLE": "1"}, cwd=service.folder,
            stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, start_new_session=True,
        )  # fmt: skip
        for url in (service.base_url, service.fund_url):
            await eventually(lambda url=url: serves(url), "it serves", 90)
        served_by = [*service.worker_pids(), *service.fund_pids(), *service.jobs_pids()]
        async with Client(service.base_url, service.token) as client:
            bank, merchant = await client.bank(), await client.merchant()
            for _ in range(LINES // 100):
                await asyncio.gather(*(client.get(f"/v1/accounts/{bank}") for _ in range(100)))
            assert (await client.pay(bank, merchant, 7)).status == 201
        assert await dropped(service) > 0
        async with Client(service.fund_url, service.token) as client:
            shop = new_id()
            assert (await client.post("/v1/merchants", {"id": shop, "name": "A", "currency": "CNY"})).status == 201
            paid = {"merchant": shop, "order_no": "p", "amount": 5, "currency": "CNY", "channel": "simulator"}
            assert (await client.post("/v1/payments", {**paid, "settle": "now"})).json["state"] == "posted"
            drawn = {"merchant": shop, "order_no": "w", "amount": 5, "channel": "simulator"}
            order = (await client.post("/v1/withdrawals", drawn)).json["id"]

            async def is_paid() -> bool:
                return bool((await client.get(f"/v1/withdrawals/{order}")).json["state"] == "paid")

            await eventually(is_paid, "a job pays it out")
        assert [*service.worker_pids(), *service.fund_pids(), *service.jobs_pids()] == served_by

        enough = threading.Event()

        def read() -> None:
            while not enough.is_set() and (part := os.read(reader, 4096)):
                text.append(part)

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        await eventually(lambda: b'"event": "log_lines_dropped"' in b"".join(text), "it says what was dropped", 30)
        assert (await service.verify())["ok"]
        enough.set()
        async with Client(service.base_url, service.token) as client:
            for _ in range(2):
                await asyncio.gather(*(client.get(f"/v1/accounts/{bank}") for _ in range(100)))
        await eventually(lambda: not reading.is_alive(), "nothing reads any more")
        assert await service.stop() == 0
    finally:
        os.close(writer)
        await service.remove()
        os.close(reader)
