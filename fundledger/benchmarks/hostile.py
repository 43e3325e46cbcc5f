"""`python -m fundledger.benchmarks.hostile --token-file F [--url U] [--fund-url U]`: the cost of hostile bodies.

Prints the slowest answer to each kind of body over all POST routes, in ms of one connection, and the p99 of honest
payments alone and beside `--attackers` connections that send all kinds in turn. Both services have to run.
"""

import argparse
import asyncio
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from fundledger.benchmarks.hostile_bodies import bodies

SOME: Final = "00000000-0000-4000-8000-000000000007"
LONG: Final = ("/v1/vouchers/batch", "/v1/payments/batch", "/v1/bank-statements")
LONG_BYTES: Final = 7_800_000
SHORT_BYTES: Final = 60_000


class Attack(NamedTuple):
    """One body for one route."""

    kind: str
    url: str
    body: bytes


def attacks(url: str, document: dict[str, Any]) -> Iterator[Attack]:
    """Yield every kind of body for every POST route that a service describes."""
    for template, operations in document["paths"].items():
        if "post" not in operations:
            continue
        content = operations["post"].get("requestBody", {}).get("content", {})
        example = content.get("application/json", {}).get("example", {})
        size = LONG_BYTES if template in LONG else SHORT_BYTES
        for kind, body in bodies(example, size):
            yield Attack(f"{template}: {kind}", url + template.replace("{id}", SOME), body)


async def took_ms(session: aiohttp.ClientSession, attack: Attack) -> float:
    """The least of three, in ms: what is answered late because the machine is busy is not counted."""
    found: list[float] = []
    while len(found) < 3:
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
    """The latencies of payments of one client, in ms."""
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


async def attack_on(session: aiohttp.ClientSession, every: list[Attack], first: int) -> None:
    """Send all of them in turn, until it is cancelled."""
    at = first
    while True:
        one = every[at % len(every)]
        at += 1
        async with session.post(one.url, data=one.body) as response:
            await response.read()


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
        alone = await honest(session, options.url, options.seconds)
        slowest: dict[str, tuple[float, str]] = {}
        for attack in every:
            ms = await took_ms(session, attack)
            kind = attack.kind.partition(": ")[2]
            slowest[kind] = max(slowest.get(kind, (0.0, "")), (ms, attack.kind))
        short = [attack for attack in every if len(attack.body) < 1_000_000]
        attackers = [
            asyncio.create_task(attack_on(session, short, i * len(short) // options.attackers))
            for i in range(options.attackers)
        ]
        beside = await honest(session, options.url, options.seconds)
        for attacker in attackers:
            attacker.cancel()
        await asyncio.gather(*attackers, return_exceptions=True)
    for ms, where in sorted(slowest.values(), reverse=True)[: options.shown]:
        print(f"{ms:8.1f} ms  {where}")
    print(f"{len(every)} bodies of {len(slowest)} kinds; the slowest took {max(slowest.values())[0]:.1f} ms")
    ratio = p99(beside) / p99(alone)
    print(
        f"honest p99 {p99(alone):.1f} ms alone ({len(alone)} payments), {p99(beside):.1f} ms beside "
        f"{options.attackers} attackers ({len(beside)} payments): {ratio:.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--fund-url", default="http://127.0.0.1:8081")
    parser.add_argument("--token-file", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of each run of honest payments")
    parser.add_argument("--attackers", type=int, default=2)
    parser.add_argument("--shown", type=int, default=15, help="how many kinds are printed, the slowest first")
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
