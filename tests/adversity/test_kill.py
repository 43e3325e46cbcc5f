"""Processes that are killed, paused and stopped under load: no acknowledged voucher is lost, none is posted twice."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks.drill import Orders, run_drill
from benchmarks.drill_books import compare, compare_counts, repeat
from benchmarks.drill_load import Load
from benchmarks.drill_processes import KINDS, children
from tests.adversity.conftest import Tell
from tests.support.client import Client, new_id, voucher
from tests.support.length import unless_long
from tests.support.running import RunningService, short_folder
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

BROKEN = Path(__file__).with_name("broken")
RECOVERED_S = 90.0


@pytest.fixture
async def victim() -> AsyncIterator[RunningService]:
    """Start a service for one test, which kills processes of it."""
    service = RunningService(workers=2)
    try:
        yield await service.start()
    finally:
        await service.remove()


@contextlib.asynccontextmanager
async def under_load(service: RunningService, seed: int, tell: Tell, what: str) -> AsyncIterator[Load]:
    """Run clients that pay during the block. At the end verify all responses that the clients received."""
    load = Load(service.base_url, seed, clients=16, pace=15, merchants=50)
    load.token = service.token
    try:
        await load.open()
        load.start()
        await eventually(lambda: load.counters.acknowledged > 200, "the load has begun", RECOVERED_S)
        yield load
        await load.stop(RECOVERED_S)
        await eventually(lambda: _is_ready(service), "the service is ready")
        await compare(load.books, load.ask, load.found)
        await repeat(load.books.sent, load.ask, load.found)
        report = await service.verify()
        compare_counts(load.books, {**report, "exit": 0 if report["ok"] else 1}, load.found)
        assert not load.found.counts, (seed, load.found.counts, load.found.shown, service.log_tail())
        tell(what, load.counters.acknowledged + load.counters.refused, seed)
    finally:
        await load.close()


async def _is_ready(service: RunningService) -> bool:
    timeout = aiohttp.ClientTimeout(total=5)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return (await session.get(f"{service.base_url}/readyz")).status == 200
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def _served_again(load: Load) -> None:
    async with asyncio.timeout(RECOVERED_S):
        await load.next_acknowledgement(time.monotonic())


async def test_killing_anything_at_random_loses_and_doubles_nothing(seed: int, tell: Tell) -> None:
    orders = Orders(
        seconds=unless_long(65, 600),
        every_s=unless_long(2.5, 10),
        rounds=unless_long(1, None),
        clients=16,
        seed=seed,
        workers=2,
        pace=10,
        merchants=100,
    )
    report = await run_drill(orders)
    assert report["ok"], json.dumps(report, indent=1)
    assert all(report["kills"][kind] >= 1 for kind in KINDS), report["kills"]
    assert report["retries"] > 0
    kills = ", ".join(f"{count} x {kind}" for kind, count in report["kills"].items())
    tell(f"vouchers while killing {kills}", report["acknowledged"] + report["refused"], seed)


RESTLESS = {
    "FUNDLEDGER_HEAT_PROMOTE": "0.002",
    "FUNDLEDGER_HEAT_PROMOTE_S": "0",
    "FUNDLEDGER_HEAT_DEMOTE": "0.001",
    "FUNDLEDGER_HEAT_DEMOTE_S": "1",
    "FUNDLEDGER_HEAT_SHARE": "0",
    "FUNDLEDGER_EARLY_RELEASE": "on",
}
"""Settings with which every account that receives payments is split, and merged after a second without payments."""


async def test_killing_anything_while_accounts_split_and_merge_loses_and_doubles_nothing(seed: int, tell: Tell) -> None:
    orders = Orders(
        seconds=unless_long(40, 600),
        every_s=unless_long(2.5, 10),
        rounds=unless_long(1, None),
        clients=16,
        seed=seed,
        workers=3,
        pace=10,
        merchants=40,
        environment=RESTLESS,
    )
    for _ in range(3):
        report = await run_drill(orders)
        assert report["ok"], json.dumps(report, indent=1)
        if report["levelled"] > 0:
            break
        # On a busy machine each worker was killed before the rebalancer had levelled an account.
    assert report["levelled"] > 0, "nothing was split and merged"
    tell("vouchers while accounts split and merge", report["acknowledged"] + report["refused"], seed)


@pytest.mark.parametrize(("broken", "killed"), [("answer before commit", "worker"), ("answer before disk", "postgres")])
async def test_the_drill_catches_a_service_that_answers_too_early(broken: str, killed: str, seed: int) -> None:
    environment = {"PYTHONPATH": os.pathsep.join([str(BROKEN), *sys.path]), "PYTHON_BROKEN": broken}
    home = short_folder()
    orders = Orders(
        seconds=9,
        every_s=1.5,
        rounds=2,
        clients=16,
        seed=seed,
        pace=20,
        merchants=20,
        kinds=[killed],
        environment=environment,
        home=home,
    )
    report = await run_drill(orders)
    shutil.rmtree(home, ignore_errors=True)
    assert report["kills"][killed] >= 1
    assert not report["ok"]
    # If only holds were lost, which are in no journal, balances differ. An acknowledged voucher that is not found when
    # it is read is lost as well.
    assert report["differences"].keys() & {"lost", "balance", "unread"}, report["differences"]
    assert report["verify"]["ok"], "what was written is right; it is only not all that was acknowledged"


async def test_the_others_go_on_serving_when_a_worker_is_killed_and_it_is_replaced(
    victim: RunningService, seed: int, tell: Tell
) -> None:
    async with under_load(victim, seed, tell, "vouchers around the death of a worker") as load:
        assert victim.process is not None
        before = victim.worker_pids()
        # A paused supervisor replaces no worker, so only the other worker can answer now.
        victim.process.send_signal(signal.SIGSTOP)
        os.kill(before[0], signal.SIGKILL)
        await eventually(lambda: before[0] not in victim.worker_pids(), "the worker is dead")
        await _served_again(load)
        assert victim.worker_pids() == before[1:]
        victim.process.send_signal(signal.SIGCONT)
        await eventually(lambda: len(set(victim.worker_pids()) - set(before)) == 1, "the worker is replaced")
        await _served_again(load)


async def test_everything_ends_when_the_supervisor_is_killed_and_a_new_one_finds_all_of_it(
    victim: RunningService, seed: int, tell: Tell
) -> None:
    async with under_load(victim, seed, tell, "vouchers around the death of the supervisor") as load:
        victim.kill()
        await eventually(lambda: not victim.worker_pids(), "the workers have drained and ended", RECOVERED_S)
        await eventually(lambda: victim.postgres_pid() is None, "Postgres has shut down", RECOVERED_S)
        await victim.start()
        await _served_again(load)


async def test_a_new_service_takes_over_while_the_old_one_is_still_ending(
    victim: RunningService, seed: int, tell: Tell
) -> None:
    async with under_load(victim, seed, tell, "vouchers around takeovers") as load:
        for _ in range(unless_long(2, 10)):
            old = victim.worker_pids()
            victim.kill()
            await victim.start()
            await _served_again(load)
            await eventually(
                lambda old=old: not set(old) & set(victim.worker_pids()), "the old workers are gone", RECOVERED_S
            )


async def test_a_service_recovers_automatically_from_a_power_cut_under_load(
    victim: RunningService, seed: int, tell: Tell
) -> None:
    async with under_load(victim, seed, tell, "vouchers around a kill of everything") as load:
        victim.kill_everything()
        await victim.start()
        await _served_again(load)


async def test_postgres_killed_again_while_it_starts_comes_back(victim: RunningService, seed: int, tell: Tell) -> None:
    async with under_load(victim, seed, tell, "vouchers around repeated deaths of Postgres") as load:
        seen: set[int | None] = {None}
        for _ in range(4):
            pid = await eventually(lambda: victim.postgres_pid() not in seen and victim.postgres_pid(), "it starts")
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: victim.postgres_pid() not in seen, "it starts", RECOVERED_S)
        await _served_again(load)
        assert victim.is_running()


async def test_a_database_that_stands_still_delays_and_loses_nothing(
    victim: RunningService, seed: int, tell: Tell
) -> None:
    async with under_load(victim, seed, tell, "vouchers around a standstill of Postgres") as load:
        postmaster = victim.postgres_pid()
        assert postmaster is not None
        stopped = [postmaster, *(child.pid for child in children(postmaster))]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            await eventually(lambda: _says_not_ready(victim), "the service is not ready")
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        await _served_again(load)


async def _says_not_ready(service: RunningService) -> bool:
    async with Client(service.base_url, None, timeout_s=10) as client:
        return (await client.get("/readyz")).status == 503


class Payer:
    """A client that sends payments on one kept-alive connection until the connection is closed.

    `answered[id]` is the first response to a payment. `open_id` is the payment that has no response.
    """

    def __init__(self, service: RunningService, bank: str, merchant: str) -> None:
        self._service = service
        self._accounts = bank, merchant
        self.answered: dict[str, bytes] = {}
        self.unanswered: dict[str, Any] = {}

    async def pay(self) -> None:
        async with Client(self._service.base_url, self._service.token, connections=1) as client:
            while True:
                body = voucher(*self._accounts, 1, new_id())
                try:
                    answer = await client.post("/v1/vouchers", body)
                except (aiohttp.ClientError, OSError):
                    self.unanswered[body["id"]] = body
                    return
                if answer.status == 503:
                    self.unanswered[body["id"]] = body
                    continue
                assert answer.status == 201, answer
                self.answered[body["id"]] = answer.body


async def test_a_drain_answers_what_it_accepted_and_accepts_nothing_else(
    victim: RunningService, seed: int, tell: Tell
) -> None:
    async with Client(victim.base_url, victim.token) as client:
        bank, merchant = await client.open_account("drain:bank", "bank"), await client.open_account("drain:m")
    payers = [Payer(victim, bank, merchant) for _ in range(32)]
    paying = [asyncio.create_task(payer.pay()) for payer in payers]
    await eventually(lambda: sum(len(payer.answered) for payer in payers) > 500, "they pay")
    assert await victim.stop() == 0
    await asyncio.gather(*paying)
    answered = {id_: body for payer in payers for id_, body in payer.answered.items()}
    unanswered = {id_: body for payer in payers for id_, body in payer.unanswered.items()}
    await victim.start()
    async with Client(victim.base_url, victim.token) as client:
        assert (await client.balance(merchant))["posted"] == len(answered)
        for id_, first in list(answered.items())[-500:]:
            again = await client.post("/v1/vouchers", voucher(bank, merchant, 1, id_))
            assert (again.status, again.body, again.is_replay) == (200, first, True)
        for body in unanswered.values():
            assert (await client.post("/v1/vouchers", body)).status == 201, "accepted, and never answered"
    assert (await victim.verify())["ok"]
    tell("vouchers around a drain", len(answered) + len(unanswered), seed)
