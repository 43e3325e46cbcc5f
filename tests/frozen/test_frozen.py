"""Data sets of released layouts: this version migrates them, proves the books, and gives the same answers as before.

A data set is never regenerated.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import asyncpg
import pytest

from tests.frozen.freeze import HERE, SUMS, digests
from tests.frozen.restore import RELEASES, restore
from tests.support.client import Answer, Client
from tests.support.running import RunningService, run
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

CHANGES = {"heat", "net"}
"""Members whose values depend on the current time, and `net` of an order, which has a sign since layout 2."""


@pytest.fixture(params=RELEASES)
async def release(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, RunningService]]:
    """Restore the data set, migrate it, and start both services on it without background jobs."""
    service = RunningService(workers=1, fund=True, env={"FUNDLEDGER_DAEMONS": "0"})
    try:
        await restore(request.param, service.data_dir)
        await service.start()
        yield request.param, service
    finally:
        await service.remove()


def records(release: str, name: str) -> list[Any]:
    return list(json.loads((HERE / release / name).read_text()))


def lacks(expected: Any, actual: Any, where: str = "") -> list[str]:
    """Return the differences between `expected` and `actual`. Members of `actual` that are new are no differences."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = [f"{where}.{key} is gone" for key in expected.keys() - actual.keys()]
        both = (expected.keys() & actual.keys()) - CHANGES
        return found + [miss for key in sorted(both) for miss in lacks(expected[key], actual[key], f"{where}.{key}")]
    if isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = enumerate(zip(expected, actual, strict=True))
        return [miss for i, (one, other) in pairs for miss in lacks(one, other, f"{where}[{i}]")]
    return [] if expected == actual else [f"{where}: {expected!r} became {actual!r}"]


@asynccontextmanager
async def clients(service: RunningService) -> AsyncIterator[dict[str, Client]]:
    """Open clients; `by fund` is the client that the fund service uses for the account service."""
    token = (service.data_dir / "fund-token").read_text().strip()
    async with (
        Client(service.base_url, service.token) as account,
        Client(service.fund_url, service.token) as fund,
        Client(service.base_url, token) as by_fund,
    ):
        yield {"account": account, "fund": fund, "by fund": by_fund}


@pytest.mark.parametrize("release", RELEASES)
def test_the_past_is_not_rewritten(release: str) -> None:
    written = dict(reversed(line.split()) for line in (HERE / release / SUMS).read_text().splitlines())
    assert digests(HERE / release) == written
    assert "layout_1" in RELEASES


def test_a_member_that_changed_or_went_is_found() -> None:
    was = {"a": 1, "b": [{"c": 2}], "heat": "cold"}
    assert lacks(was, {"a": 1, "b": [{"c": 2, "d": 3}], "heat": "hot", "e": 4}) == []
    assert lacks(was, {"a": 1, "b": [{"c": 3}], "heat": "cold"}) == [".b[0].c: 2 became 3"]
    assert lacks(was, {"b": [{"c": 2}], "heat": "cold"}) == [".a is gone"]
    assert lacks([1, 2], [1]) == [": [1, 2] became [1]"]


async def test_a_data_set_is_brought_over_and_answers_as_it_did(release: tuple[str, RunningService]) -> None:
    name, service = release
    await reads_answer_as_then(name, service)
    await requests_are_repeats(name, service)
    await rows_are_swept(service)
    await reads_answer_as_then(name, service)
    await unfinished_work_is_finished(name, service)


async def accepted(send: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return the answer to a request. A busy machine may shed the request (503); then send the same request again."""

    async def one() -> Answer | None:
        answer = await send()
        return None if answer.status == 503 else answer

    answer = await eventually(one, "the request is not shed")
    assert answer is not None
    return answer


async def reads_answer_as_then(name: str, service: RunningService) -> None:
    report = await service.verify()
    assert report["ok"], json.dumps(report, indent=1)
    misses = []
    async with clients(service) as by_name:
        for where, path, expected in records(name, "reads.json"):
            answer = await accepted(partial(by_name[where].get, path))
            if answer.status == 404 and path.startswith("/v1/vouchers/"):
                # An id belongs to one module since layout 2: only the fund service can read the vouchers that it
                # posted.
                answer = await by_name["by fund"].get(path)
            misses += [f"{path}: {answer.status}"] if answer.status != 200 else lacks(expected, answer.json, path)
    assert misses == []


async def requests_are_repeats(name: str, service: RunningService) -> None:
    misses = []
    async with clients(service) as by_name:
        for where, path, body, status, expected in records(name, "requests.json"):
            answer = await accepted(partial(by_name[where].post, path, body))
            misses += [f"{path} {body}: {answer.status}"] if answer.status != status else []
            misses += lacks(expected, answer.json, path)
    assert misses == []
    report = await service.verify()
    assert report["ok"], json.dumps(report, indent=1)


OLD = """SELECT (SELECT count(*) FROM fund.orders WHERE layout = 1) + (SELECT count(*) FROM fund.payments WHERE mac_key = 0)
         + (SELECT count(*) FROM fund.withdrawal_days WHERE mac_key = 0) + (SELECT count(*) FROM fund.payouts WHERE mac_key = 0)"""
"""Query for the number of rows of the fund database that have an earlier layout."""


async def rows_are_swept(service: RunningService) -> None:
    """Run the MAC sweep of the fund database by two concurrent commands. The account service starts its own sweep."""
    connection = await asyncpg.connect(service.fund_dsn)
    try:
        assert await connection.fetchval(OLD) > 0
        assert await connection.fetchval("SELECT count(*) FROM fund.unswept") == 1
        sweep = ("jobs", "run", "fund_mac_sweep", "--once")
        for _ in range(20):
            runs = await asyncio.gather(*(run(*sweep, env=service.environment, cwd=service.folder) for _ in range(2)))
            assert min(done.returncode for done in runs) == 0, [done.stdout for done in runs]
            if not await connection.fetchval("SELECT count(*) FROM fund.unswept"):
                break
        assert await connection.fetchval(OLD) == 0
        assert await connection.fetchval("SELECT count(*) FROM fund.integrity_findings") == 0
    finally:
        await connection.close()
    report = await service.verify()
    assert report["ok"], json.dumps(report, indent=1)


@pytest.mark.parametrize("release", RELEASES)
async def test_an_operator_sweeps_a_ledger_that_is_not_served(release: str) -> None:
    service = RunningService(workers=1, fund=True)
    try:
        await restore(release, service.data_dir)
        done = await run("migrate", env=service.environment, cwd=service.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        said = []
        while not said or "there is more" in said[-1]:
            done = await run("jobs", "run", "mac_sweep", "--once", env=service.environment, cwd=service.folder)
            assert done.returncode == 0, done.stdout + done.stderr
            said.append(done.stdout)
        done = await run("jobs", "run", "mac_sweep", "--once", env=service.environment, cwd=service.folder)
        assert "mac_sweep: 0 done" not in said[0]
        assert "mac_sweep: 0 done" in done.stdout
    finally:
        await service.remove()


async def unfinished_work_is_finished(name: str, service: RunningService) -> None:
    assert await service.stop() == 0, service.log_tail()
    service.environment["FUNDLEDGER_DAEMONS"] = "1"
    service.environment["FUNDLEDGER_RECOVER_AFTER_S"] = "1"
    await service.start()
    async with clients(service) as by_name:

        async def posted() -> bool:
            answer = await by_name["fund"].get("/v1/payments?merchant=late&order_no=p-posting")
            return bool(answer.json["state"] == "posted")

        async def folded() -> bool:
            answer = await by_name["account"].get("/v1/accounts/merchant:waiting:available")
            balance = answer.json["balance"]
            return bool((balance["posted"], balance["pending"]) == (sum_of_late(name), 0))

        await eventually(posted, "the order that was posting is posted", 60)
        await eventually(folded, "the credits that waited are in the balance", 60)
        for where, path, body, _ in records(name, "unfinished.json"):
            answer = await by_name[where].post(path, body)
            assert answer.status == 200, (path, body, answer)
    report = await service.verify()
    assert report["ok"], json.dumps(report, indent=1)


def sum_of_late(release: str) -> int:
    """Return the sum of the credits in the unfinished requests to the account with buffered credits."""
    account = "merchant:waiting:available"
    bodies = [body for where, path, body, _ in records(release, "unfinished.json") if path == "/v1/vouchers"]
    lines = [line for body in bodies for line in body["entries"]]
    return sum(int(line["amount"]) for line in lines if line["account"] == account and line["side"] == "credit")
