"""Benchmark of hostile request bodies: `python -m benchmarks.hostile --token-file F [--url U] [--fund-url U]`.

Both services must be running. The benchmark prints two tables. The first table shows, for each kind of body, the
longest response time of all POST routes, in ms on one connection. The second table shows the p99 latency of honest
payments in three cases:

- No other requests are sent.
- Another process sends valid short requests without a pause, on `--attackers` connections.
- That process sends all kinds of hostile bodies instead.
"""

import argparse
import asyncio
import multiprocessing
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from benchmarks.hostile_bodies import bodies

SOME: Final = "00000000-0000-4000-8000-000000000007"
LONG: Final = ("/v1/vouchers/batch", "/v1/payments/batch", "/v1/bank-statements")
LONG_BYTES: Final = 7_800_000
SHORT_BYTES: Final = 60_000
LONG_BYTES_PER_S: Final = 12_000_000
"""The rate at which one worker admits long bodies of one caller; see docs/reference/limits.md."""


class Attack(NamedTuple):
    """One hostile body for one route."""

    kind: str
    url: str
    body: bytes


def attacks(url: str, document: dict[str, Any]) -> Iterator[Attack]:
    """Yield every kind of body for every POST route in the OpenAPI document of a service."""
    for template, operations in document["paths"].items():
        if "post" not in operations:
            continue
        content = operations["post"].get("requestBody", {}).get("content", {})
        example = content.get("application/json", {}).get("example", {})
        size = LONG_BYTES if template in LONG else SHORT_BYTES
        for kind, body in bodies(example, size):
            yield Attack(f"{template}: {kind}", url + template.replace("{id}", SOME), body)


async def took_ms(session: aiohttp.ClientSession, attack: Attack) -> float:
    """Return the shortest of three response times in ms, to exclude delays of a busy machine.

    A long body is sent once only, after a pause in which the worker's budget for long bodies recovers. So the measured
    time contains no wait that is caused by earlier long bodies of the same caller.
    """
    found: list[float] = []
    is_long = len(attack.body) > SHORT_BYTES * 20
    while len(found) < (1 if is_long else 3):
        if is_long:
            await asyncio.sleep(len(attack.body) / LONG_BYTES_PER_S)
        began = time.perf_counter()
        async with session.post(attack.url, data=attack.body) as response:
            await response.read()
            if response.status == 500:
                raise RuntimeError(f"{attack.kind}: {response.status}")
        if response.status == 503:  # shed: nothing was measured
            await asyncio.sleep(1)
            continue
        found.append((time.perf_counter() - began) * 1000)
    return min(found)


async def honest(session: aiohttp.ClientSession, url: str, seconds: float) -> list[float]:
    """Return the latencies of one client's payments, in ms."""
    accounts = [f"bench:{uuid.uuid4().hex}:{side}" for side in ("bank", "merchant")]
    for account, type_ in zip(accounts, ("bank", "merchant_available"), strict=True):
        opened = {"id": account, "owner": account, "type": type_, "currency": "CNY"}
        async with session.post(f"{url}/v1/accounts", json=opened) as response:
            response.raise_for_status()
    found = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        sides = zip(accounts, ("debit", "credit"), strict=True)
        entries = [{"account": account, "side": side, "amount": 1} for account, side in sides]
        began = time.perf_counter()
        paid = {"id": str(uuid.uuid4()), "type": "pay", "entries": entries}
        async with session.post(f"{url}/v1/vouchers", json=paid) as response:
            response.raise_for_status()
        found.append((time.perf_counter() - began) * 1000)
    return sorted(found)


def attack_on(headers: dict[str, str], every: list[Attack], attackers: int) -> None:
    """Send all attacks in turn on `attackers` connections, until the process is killed."""

    async def send_all(session: aiohttp.ClientSession, first: int) -> None:
        at = first
        while True:
            one = every[at % len(every)]
            at += 1
            async with session.post(one.url, data=one.body) as response:
                await response.read()

    async def attack() -> None:
        async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=120)) as session:
            await asyncio.gather(*(send_all(session, i * len(every) // attackers) for i in range(attackers)))

    asyncio.run(attack())


def p99(latencies: list[float]) -> float:
    return latencies[int(len(latencies) * 0.99)]


async def measure(options: argparse.Namespace) -> None:
    """Print both tables."""
    headers = {
        "Authorization": f"Bearer {options.token_file.read_text().strip()}",
        "Content-Type": "application/json",
    }
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        every = []
        for url in (options.url, options.fund_url):
            async with session.get(f"{url}/openapi.json") as response:
                every += list(attacks(url, await response.json()))
        slowest: dict[str, tuple[float, str]] = {}
        for attack in every if options.shown else ():
            ms = await took_ms(session, attack)
            kind = attack.kind.partition(": ")[2]
            slowest[kind] = max(slowest.get(kind, (0.0, "")), (ms, attack.kind))
        valid = [Attack("valid", f"{options.url}/v1/vouchers", b"{}")]
        found = {}
        for beside, sent in (("alone", []), ("beside short requests", valid), ("beside hostile bodies", every)):
            found[beside] = await measure_beside(session, headers, sent, options)
    for ms, where in sorted(slowest.values(), reverse=True)[: options.shown]:
        print(f"{ms:8.1f} ms  {where}")
    if slowest:
        print(f"{len(every)} bodies of {len(slowest)} kinds; the slowest took {max(slowest.values())[0]:.1f} ms")
    for beside, latencies in found.items():
        times = p99(latencies) / p99(found["alone"])
        print(f"honest p99 {beside}: {p99(latencies):.1f} ms, {times:.2f} x ({len(latencies)} payments)")


async def measure_beside(
    session: aiohttp.ClientSession, headers: dict[str, str], sent: list[Attack], options: argparse.Namespace
) -> list[float]:
    """Return the latencies of honest payments, in ms, while another process sends the requests in `sent`. If `sent` is
    empty, no other process is started.
    """
    if not sent:
        return await honest(session, options.url, options.seconds)
    attacker = multiprocessing.get_context("spawn").Process(
        target=attack_on, args=(headers, sent, options.attackers), daemon=True
    )
    attacker.start()
    try:
        await asyncio.sleep(1)
        return await honest(session, options.url, options.seconds)
    finally:
        attacker.kill()
        attacker.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--fund-url", default="http://127.0.0.1:8081")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each run of honest payments")
    parser.add_argument("--attackers", type=int, default=2)
    parser.add_argument(
        "--shown", type=int, default=15, help="number of kinds to print, slowest first; 0: do not time them"
    )
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
