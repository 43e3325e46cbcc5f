"""A running service with limits for tests, and checks of its responses.

On a slow machine, workers may treat the store as unavailable for a moment. Tests that count tokens are therefore marked
`undisturbed`: a test that fails during such a moment is repeated with new merchants.
"""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from fundledger.app.account.metrics import Snapshot
from fundledger.app.host.socket_folder import run_dir
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.quota.store import BACK, SINCE
from tests.support.client import Answer, Client, new_id, voucher
from tests.support.running import RunningService, short_folder
from tests.support.waiting import eventually

IANA = "https://iana.org/assignments/http-problem-types#"
TRANSIT = "payout_transit:CNY"
PAYS = 3
"""The burst of payments of a merchant. Another token is refilled every ten seconds."""
LIMITS = """
version = 3

[[policy]]
name = "wide"
key = "caller"
classes = ["payment"]
rate = "1/d"
burst = 20_000
mode = "strict"

[[policy]]
name = "rest"
key = "caller"
rate = 100_000
burst = 100_000

[[policy]]
name = "batches"
key = "class"
classes = ["batch"]
rate = "1/h"
burst = 1_000
mode = "strict"

[[policy]]
name = "pays"
key = "merchant"
classes = ["payment"]
rate = "6/min"
burst = 3

[[policy]]
name = "reads"
key = "merchant"
classes = ["query"]
rate = 2
burst = 2

[[policy]]
name = "drains"
key = "merchant"
classes = ["withdraw"]
rate = "1/h"
burst = 1
shadow = true
"""
assert f"burst = {PAYS}\n" in LIMITS


# --- Headers and problems -------------------------------------------------------------------------------------------


def items_of(header: str) -> list[tuple[str, dict[str, int]]]:
    """Parse a structured-field list (RFC 9651) of strings with integers as parameters. Raise for anything else."""
    found, at = [], 0
    item, parameter = (
        re.compile(r'"((?:[^"\\\x00-\x1f\x7f]|\\["\\])*)"'),
        re.compile(r"; *([a-z*][a-z0-9_.*-]*)=(-?\d{1,15})"),
    )
    while True:
        name = item.match(header, at)
        assert name is not None, header
        at = name.end()
        parameters = {}
        while one := parameter.match(header, at):
            parameters[one[1]] = int(one[2])
            at = one.end()
        found.append((name[1], parameters))
        if at == len(header):
            return found
        between = re.compile(r"[ \t]*,[ \t]*(?=\")").match(header, at)
        assert between is not None, header
        at = between.end()


def says_where_one_stands(headers: Any, *policies: str) -> dict[str, int]:
    """Check both rate-limit headers against the draft. Return the parameters of `RateLimit`."""
    told = items_of(headers["RateLimit-Policy"])
    assert [name for name, _ in told] == list(policies)
    assert all(set(p) == {"q", "w"} and p["q"] >= 0 and p["w"] > 0 for _, p in told)
    [(nearest, parameters)] = items_of(headers["RateLimit"])
    assert nearest in policies
    assert set(parameters) == {"r", "t"}
    assert min(parameters.values()) >= 0
    return parameters


def is_denied(answer: Answer, policy: str) -> int:
    """Assert that a response is a complete 429. Return the seconds of its Retry-After."""
    assert answer.status == 429, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json
    assert problem["type"] == IANA + "quota-exceeded"
    assert problem["status"] == 429
    assert problem["title"]
    assert policy in problem["detail"]
    assert problem["violated-policies"] == [policy]
    assert re.fullmatch(r"[1-9]\d*", answer.headers["Retry-After"])
    wait_s = int(answer.headers["Retry-After"])
    assert problem["retry_after_ms"] == wait_s * 1000
    name, source, version = answer.headers["X-Limit-Decision"].split(";")
    assert name == policy
    assert source in ("strict", "denycache", "lease", "fallback")
    assert re.fullmatch(r"\d+\.[0-9a-f]{8}", version)
    assert (
        says_where_one_stands(answer.headers, *[n for n, _ in items_of(answer.headers["RateLimit-Policy"])])["t"]
        <= wait_s
    )
    return wait_s


def is_not_served(answer: Answer, reason: str) -> bool:
    """Assert that a response is a 503 of the service for lack of capacity."""
    assert answer.status == 503, answer
    assert answer.json["type"] == IANA + "temporary-reduced-capacity"
    assert "violated-policies" not in answer.json
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.json["retry_after_ms"] == int(answer.headers["Retry-After"]) * 1000
    assert answer.headers["X-Limit-Decision"].startswith(f"{reason};")
    return True


# --- Requests -------------------------------------------------------------------------------------------------------


class Limited:
    """A service and its limits file."""

    def __init__(self, service: RunningService, file: Path) -> None:
        self.service = service
        self.file = file
        self._calm_at: list[tuple[str, object]] = []
        """The failures when all quotas were last complete."""

    def one(self) -> Client:
        """Open a client with a single connection, which one worker serves."""
        return Client(self.service.base_url, self.service.token, connections=1)

    async def change(self, text: str) -> None:
        """Write the limits file, and wait until every worker uses it."""
        version = parse(text).version
        self.file.write_text(text)

        async def all_have_it() -> bool:
            return all([(await self.limits())["version"] == version for _ in range(12)])

        await eventually(all_have_it, "every worker has the new limits")

    async def limits(self, **query: str) -> dict[str, Any]:
        """Return the response of `GET /debug/limits` over a new connection, from any worker."""
        async with self.one() as client:
            text = "&".join(f"{name}={value}" for name, value in query.items())
            answer = await client.get(f"/debug/limits?{text}" if text else "/debug/limits")
        assert answer.status == 200, answer
        return dict(answer.json)

    async def used(self, policy: str, **query: str) -> int:
        found = [p["used"] for p in (await self.limits(**query))["policies"] if p["policy"] == policy]
        return int(found[0])

    async def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Return the metrics by name, then by the values of the labels, in their order."""
        async with self.one() as client:
            page = (await client.get("/metrics")).body.decode()
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for line in page.splitlines():
            if not line.startswith("#"):
                name, _, rest = line.partition("{") if "{" in line else line.partition(" ")
                labels = tuple(re.findall(r'="([^"]*)"', rest))
                found.setdefault(name.removeprefix("fundledger_"), {})[labels] = float(line.rsplit(" ", 1)[1])
        return found

    async def counted(self, name: str, *labels: str) -> float:
        """Return the sum of a counter over the series whose labels contain these."""
        series = (await self.metrics()).get(name, {})
        return sum(value for key, value in series.items() if set(labels) <= set(key))

    async def mode(self) -> str:
        series = (await self.metrics())["ratelimit_mode"]
        return next(labels[0] for labels, value in series.items() if value)

    async def failures(self) -> list[tuple[str, object]]:
        """Return the number of failed calls of the store, and of requests that were shed, for each worker. The client
        sends a shed request again, and its tokens are refunded later. The last element is the time at which the store
        last lost its data: a worker without a call at that moment connects again, and counts no failure.

        The workers are asked directly: a page of metrics has an earlier snapshot of a worker that answers slowly.
        """
        folder = run_dir(self.service.data_dir)
        failed = [await _failures_at(path) for path in sorted(folder.glob("worker-*.sock"))]
        return [*failed, ("store", await _lost_at(folder / "valkey.sock"))]

    async def undisturbed(self, scenario: Callable[[], Awaitable[None]]) -> None:
        for _ in range(5):
            before = await self.failures()
            if before != self._calm_at:
                await self.calm()
                before = self._calm_at
            try:
                await scenario()
            except AssertionError as error:
                if await self.failures() == before:
                    error.add_note(f"undisturbed: {before}")
                    raise
            else:
                return
        raise AssertionError("this machine is too slow: the store was away five times in a row")

    async def calm(self) -> None:
        """Wait until every worker counts in the store and a new merchant has its whole quota."""

        async def is_calm() -> bool:
            said = [await self.limits(merchant=f"m:{new_id()}", account="a") for _ in range(8)]
            return all(
                one["mode"] in ("normal", "shadow") and {p["policy"]: p["used"] for p in one["policies"]}["pays"] == 0
                for one in said
            )

        while True:
            before = await self.failures()
            await eventually(is_calm, "limits are counted in the store, and none is spent", 90)
            if await self.failures() == before:
                self._calm_at = before
                return


async def _failures_at(path: Path) -> tuple[str, float]:
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
        snapshot = msgspec.json.decode(await reader.read(), type=Snapshot)
        writer.close()
    except (OSError, msgspec.DecodeError):
        # The worker does not run now. Its next process has other counters.
        return "", time.monotonic()
    calls = snapshot.limits.store_calls.items()
    failed = sum(count for key, count in calls if not key.endswith(" ok"))
    return snapshot.worker, failed + sum(snapshot.shed.shed.values())


async def _lost_at(path: Path) -> object:
    """Return what decides whether the buckets of the store start full."""
    try:
        async with Redis(unix_socket_path=str(path), decode_responses=True) as store:
            return tuple(await store.mget(SINCE, BACK))
    except (OSError, RedisError):
        return time.monotonic()


@contextlib.asynccontextmanager
async def a_limited_service(**environment: str) -> AsyncIterator[Limited]:
    """Start a service with limits; prove its books at the end."""
    folder = short_folder()
    file = folder / "limits.toml"
    file.write_text(LIMITS)
    service = RunningService(workers=2, env={"FUNDLEDGER_RATELIMIT_FILE": str(file), **environment})
    try:
        await service.start()
        yield Limited(service, file)
        report = await service.verify()
        assert report["ok"], json.dumps(report, indent=1)
        assert await service.stop() == 0, service.log_tail()
    finally:
        await service.remove()
        file.unlink()
        folder.rmdir()


async def funded(client: Client, balance: int = 1000) -> str:
    """Open an account of a new merchant, and pay money to it by a voucher that no policy counts."""
    account = await client.merchant()
    await client.open_account(TRANSIT, "payout_transit", "platform")
    assert (await client.post("/v1/vouchers", fund(account, balance))).status == 201
    return account


def fund(account: str, amount: int) -> dict[str, Any]:
    """Return a voucher of the class confirm: money returns from transit, which `funded` opened."""
    return voucher(TRANSIT, account, amount)


def owner_of(account: str) -> str:
    return account.rpartition(":")[0]


async def pays(client: Client, debit: str, credit: str, times: int) -> list[Answer]:
    return [await client.pay(debit, credit, 1) for _ in range(times)]


def statuses(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]
