"""CLI command `fundledger ratelimit bench`: measure the cost of a rate-limit decision on this machine."""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import uvloop

from fundledger.app.host.valkey import EmbeddedValkey
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.policies import parse
from fundledger.ratelimit.quota.store import Store
from fundledger.ratelimit.stats import Limits
from fundledger.settings import Settings

SECONDS: Final = 3.0
AT_ONCE: Final = 100
STRICT_PER_S: Final = 2000
_ONE: Final = '[[policy]]\nname = "{name}"\nkey = "{key}"\nrate = 1000000\nburst = 1000000\n{more}\n'


def run_bench(settings: Settings) -> int:
    """Measure decisions and print rates and percentiles. Uses `FUNDLEDGER_REDIS_URL` if set, or a temporary Valkey."""
    uvloop.run(_bench(settings.redis_url))
    return 0


async def _bench(url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        server = None if url else EmbeddedValkey(Path(folder))
        if server is not None:
            await server.start()
        try:
            await _measure(url or server.url if server is not None else url)
        finally:
            if server is not None:
                await server.stop()


async def _measure(url: str) -> None:
    one = _ONE.format(name="caller", key="caller", more="")
    four = one + "".join(_ONE.format(name=key, key=key, more="") for key in ("global", "class", "merchant"))
    print(f"{'':34}{'per second':>12}{'p50 us':>10}{'p99 us':>10}")
    for name, policies in (("leased, 1 policy", one), ("leased, 4 policies", four)):
        _print(name, *await _local(url, policies))
    strict = _ONE.format(name="account", key="account", more='mode = "strict"')
    _print(f"strict, {STRICT_PER_S} per second", *await _asked(url, strict))
    _print("rejected, cached", *await _refused(url))


async def _limiter(url: str, text: str) -> tuple[Limiter, list[asyncio.Task[Any]]]:
    counts = Limits()
    store = Store(url, "bench", counts, 1, deadline_s=1.0)
    limiter = Limiter(parse(f"version = 1\n{text}"), store, counts)
    tasks = [asyncio.create_task(store.run()), asyncio.create_task(limiter.run())]
    await asyncio.sleep(0.3)
    return limiter, tasks


async def _end(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _local(url: str, text: str) -> tuple[float, list[float]]:
    limiter, tasks = await _limiter(url, text)
    clock = time.perf_counter
    busy, took, count = 0.0, [], 0
    ends = clock() + SECONDS
    while clock() < ends:
        started = clock()
        for _ in range(AT_ONCE):
            limiter.admit(limiter.match("bench", ApiClass.PAYMENT, "m", "a"), 1, time.monotonic())
        busy += clock() - started
        count += AT_ONCE
        before = clock()
        limiter.admit(limiter.match("bench", ApiClass.PAYMENT, "m", "a"), 1, time.monotonic())
        took.append(clock() - before)
        # The pause keeps the loop within the rate of the policies. In the pause the limiter fetches leases.
        await asyncio.sleep(0.0005)
    await _end(tasks)
    return count / busy, took


async def _asked(url: str, text: str) -> tuple[float, list[float]]:
    limiter, tasks = await _limiter(url, text)
    took: list[float] = []

    async def ask() -> None:
        started = time.perf_counter()
        await limiter.ask(limiter.match("bench", ApiClass.PAYMENT, "m", "a"), 1, time.monotonic())
        took.append(time.perf_counter() - started)

    started = time.perf_counter()
    asking = set()
    for i in range(int(STRICT_PER_S * SECONDS)):
        asking.add(asyncio.create_task(ask()))
        await asyncio.sleep(max(0.0, started + i / STRICT_PER_S - time.perf_counter()))
    await asyncio.gather(*asking)
    elapsed = time.perf_counter() - started
    await _end(tasks)
    return len(took) / elapsed, took


async def _refused(url: str) -> tuple[float, list[float]]:
    limiter, tasks = await _limiter(url, _ONE.format(name="once", key="caller", more="").replace("1000000", "1", 2))
    matched = limiter.match("bench", ApiClass.PAYMENT, None, None)
    for _ in range(3):
        await limiter.ask(matched, 1, time.monotonic())
    took = []
    for _ in range(100_000):
        started = time.perf_counter()
        limiter.admit(matched, 1, time.monotonic())
        took.append(time.perf_counter() - started)
    await _end(tasks)
    return len(took) / sum(took), took


def _print(name: str, rate: float, took: list[float]) -> None:
    took.sort()
    p50, p99 = (took[int(len(took) * share)] * 1e6 for share in (0.5, 0.99))
    print(f"{name:34}{rate:12,.0f}{p50:10.1f}{p99:10.1f}")
