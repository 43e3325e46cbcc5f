"""Chaos test of `fundledger serve`: clients send requests at a steady pace while a random process is killed every few
seconds.

    python -m benchmarks.drill --minutes 10 --every 20

Every acknowledged voucher must exist exactly once, with the acknowledged content. Refused vouchers must stay refused.
No other vouchers may exist, and the books must verify. The test prints a report, and exits with status 1 if there is
any difference.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.drill_books import Sent, compare, compare_counts, count_differences, repeat, settled
from benchmarks.drill_load import Load
from benchmarks.drill_processes import KINDS, Process, Serve, ServeFault, gone, until

RECOVERY_S: Final = 90.0
DECIDE_S: Final = 120.0
SETTLED_S: Final = 0.5
PROGRESS_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Orders:
    """Parameters of a run.

    In each round, one process of each of the `kinds` is killed, in random order. The run ends after `seconds`, or after
    `rounds` rounds if that is earlier.
    """

    seconds: float
    every_s: float
    clients: int = 32
    seed: int = 0
    workers: int = 2
    pace: float = 8.0
    merchants: int = 300
    repeats: int = 20_000
    kinds: Sequence[str] = KINDS
    rounds: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    home: Path | None = None


@dataclass(slots=True)
class Kill:
    """A kill of one process of a kind, at a time in monotonic seconds."""

    kind: str
    at: float


class Drill:
    """One run, from the first start to the proof."""

    def __init__(self, orders: Orders, home: Path) -> None:
        self._orders = orders
        self._chance = random.Random(orders.seed)
        self._serve = Serve(home, _free_port(), orders.workers, orders.environment)
        self._load = Load(self._serve.url, orders.seed, orders.clients, orders.pace, orders.merchants)
        self._kills: list[Kill] = []
        self._left_behind: list[Process] = []

    async def run(self) -> dict[str, Any]:
        """Run the test and return the report."""
        try:
            return await self._run()
        finally:
            await self._load.close()
            self._serve.kill_all()

    async def _run(self) -> dict[str, Any]:
        found = self._load.found
        await self._serve.start()
        self._load.token = self._serve.token
        await self._load.open()
        began = time.monotonic()
        self._load.start()
        progress = asyncio.create_task(self._progress(began))
        try:
            await self._kill_until(began + self._orders.seconds)
        except ServeFault as fault:
            found.add("serve", str(fault))
        ended = time.monotonic()
        progress.cancel()
        await self._load.stop(DECIDE_S)
        entries, repeated, verified, exit_code = await self._settle()
        report = self._report(began, ended, entries, repeated, verified, exit_code)
        report["ok"] = not found.counts
        return report

    async def _settle(self) -> tuple[int, int, dict[str, Any], int | None]:
        """Compare the books with the responses, send requests again, verify the books, and stop the service."""
        found, books = self._load.found, self._load.books
        try:
            if not self._serve.running():
                await self._serve.start()
            _say("comparing acknowledged requests with the statements")
            async with asyncio.timeout(600):
                await settled(books, self._load.ask)
                entries = await compare(books, self._load.ask, found)
                _say("sending answered requests again")
                repeated = await repeat(self._sample(), self._load.ask, found)
            _say("verifying the books")
            verified = await self._serve.verify()
            if count_differences(books, verified):
                # The repeated requests made accounts hot again, so some accounts were rebalanced after their statements
                # had been read. Read the statements again.
                async with asyncio.timeout(600):
                    await settled(books, self._load.ask)
                    entries = await compare(books, self._load.ask, found)
                verified = await self._serve.verify()
            compare_counts(books, verified, found)
            await gone(self._left_behind)
            exit_code = await self._serve.stop()
            if exit_code != 0:
                found.add("serve", f"exit {exit_code} after SIGTERM")
        except (ServeFault, TimeoutError) as fault:
            found.add("serve", str(fault) or type(fault).__name__)
            return 0, 0, {}, None
        for line in self._serve.critical_lines():
            found.add("critical", line)
        return entries, repeated, verified, exit_code

    def _sample(self) -> list[Sent]:
        """Return every request that was sent more than once. If there are fewer than `repeats` such requests, add
        randomly chosen other requests, up to `repeats` requests in total.
        """
        sent = self._load.books.sent
        several = [one for one in sent if one.repeated]
        once = [one for one in sent if not one.repeated]
        room = max(0, self._orders.repeats - len(several))
        return several + (once if room >= len(once) else self._chance.sample(once, room))

    async def _kill_until(self, end: float) -> None:
        waiting: list[str] = []
        rounds = 0
        while waiting or rounds != self._orders.rounds:
            wait_s = self._orders.every_s * self._chance.uniform(0.7, 1.3)
            if time.monotonic() + wait_s > end:
                await asyncio.sleep(max(0.0, end - time.monotonic()))
                return
            await asyncio.sleep(wait_s)
            if not waiting:
                waiting = self._chance.sample(list(self._orders.kinds), len(self._orders.kinds))
                rounds += 1
            if not self._serve.running():
                self._load.found.add("serve", f"it ended unexpectedly: see {self._serve.log}")
                await self._serve.start()
            if await self._kill(waiting[-1]):
                waiting.pop()

    async def _kill(self, kind: str) -> bool:
        """Kill one process of a kind and wait until the service responds again. Return False if there is no such
        process. Raises ServeFault if the service does not recover.
        """
        target = self._serve.target(kind, self._chance)
        if target is None:
            return False
        family = self._serve.family() if kind == "supervisor" else []
        postmaster = self._serve.postmaster()
        kill = Kill(kind, time.monotonic())
        os.kill(target.pid, signal.SIGKILL)
        self._kills.append(kill)
        _say(f"killed {kind} {target.pid}")
        if kind == "supervisor":
            self._left_behind += family
            await self._serve.wait_killed()
            await self._serve.start()
        try:
            async with asyncio.timeout(RECOVERY_S):
                await until(lambda: kind != "postgres" or self._serve.postmaster() not in (None, postmaster))
                await until(lambda: kind != "valkey" or self._serve.valkey() not in (None, target))
                await until(lambda: len(self._serve.workers()) == self._orders.workers)
                await self._load.next_acknowledgement(kill.at + SETTLED_S)
        except TimeoutError:
            raise ServeFault(f"no acknowledgement {RECOVERY_S:.0f} s after the kill of {kind}") from None
        return True

    async def _progress(self, began: float) -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            counters = self._load.counters
            _say(
                f"{time.monotonic() - began:6.0f} s  {len(self._kills)} kills  {counters.requests} requests"
                f"  {counters.acknowledged} acknowledged  {counters.refused} refused  {counters.retries} retries"
            )

    def _silences(self, end: float) -> dict[str, list[float]]:
        """Return, by kind of the killed process, one time in seconds for each kill: the longest time without an
        acknowledgement between this kill and the next kill.
        """
        silences: dict[str, list[float]] = {}
        bounds = [kill.at for kill in self._kills[1:]] + [end]
        times = self._load.acknowledged_at
        position = 0
        for kill, next_at in zip(self._kills, bounds, strict=True):
            last, longest = kill.at, 0.0
            while position < len(times) and times[position] < next_at:
                if times[position] > last:
                    longest = max(longest, times[position] - last)
                    last = times[position]
                position += 1
            silences.setdefault(kill.kind, []).append(longest)
        return silences

    def _report(
        self,
        began: float,
        ended: float,
        entries: int,
        repeated: int,
        verified: dict[str, Any],
        exit_code: int | None,
    ) -> dict[str, Any]:
        load, found = self._load, self._load.found
        counters = load.counters
        silences = self._silences(ended)
        told = counters.acknowledged + counters.refused
        return {
            "seed": self._orders.seed,
            "seconds": round(ended - began, 1),
            "clients": self._orders.clients,
            "workers": self._orders.workers,
            "kills": {kind: sum(kill.kind == kind for kill in self._kills) for kind in KINDS},
            "recovery_s": {
                kind: {"median": round(statistics.median(found_), 2), "max": round(max(found_), 2)}
                for kind, found_ in sorted(silences.items())
            },
            "requests": counters.requests,
            "acknowledged": counters.acknowledged,
            "refused": counters.refused,
            "holds": len(load.books.holds),
            "retries": counters.retries,
            "hung_up": counters.impatient,
            "sent_twice_at_once": counters.twice,
            "reads": counters.reads,
            "attempts": dict(sorted(counters.statuses.items())),
            "repeated_at_the_end": repeated,
            "levelled": len(load.books.moved),
            "entries_read": entries,
            "starts_given_up": self._serve.failed_starts,
            "lost": found.count("lost", "unread"),
            "doubled": found.count("doubled"),
            "altered": found.count("altered", "repeat", "twins", "refused-but-posted"),
            "unknown": found.count("unknown", "undecided", "count"),
            "differences": found.counts,
            "shown": found.shown,
            "bound_95_per_cent": f"{3 / told:.1e}" if told and not found.counts else None,
            "verify": {name: verified.get(name) for name in ("ok", "vouchers", "entries", "accounts", "failed")},
            "exit_after_sigterm": exit_code,
        }


async def run_drill(orders: Orders) -> dict[str, Any]:
    """Run the test in a folder of its own. Keep the folder if `orders.home` names it, or if there are differences."""
    home = Path(tempfile.mkdtemp(prefix="fundledger-drill-")) if orders.home is None else orders.home
    home.mkdir(parents=True, exist_ok=True)
    report = await Drill(orders, home).run()
    if orders.home is None and report["ok"]:
        shutil.rmtree(home)
    else:
        report["kept"] = str(home)
    return report


def table(report: Mapping[str, Any]) -> str:
    """Return the report as text."""
    kills, recovery = report["kills"], report["recovery_s"]
    lines = [
        "chaos test, seed {seed}: {seconds} s, {clients} clients, {workers} workers".format(**report),
        "",
        "killed      times  silence median s    max s",
    ]
    for kind in KINDS:
        silence = recovery.get(kind, {"median": "-", "max": "-"})
        lines.append(f"{kind:11} {kills[kind]:5}  {silence['median']:>16}  {silence['max']:>7}")
    lines.append("")
    for name in ("requests", "acknowledged", "refused", "holds", "retries", "hung_up", "sent_twice_at_once", "reads"):
        lines.append(f"{name:20} {report[name]:>9}")
    for name in ("levelled", "entries_read", "repeated_at_the_end", "lost", "doubled", "altered", "unknown"):
        lines.append(f"{name:20} {report[name]:>9}")
    lines += [
        f"{'attempts':20} {report['attempts']}",
        f"{'verify':20} {report['verify']}",
        f"{'starts given up':20} {report['starts_given_up'] or 'none'}",
        f"{'exit after SIGTERM':20} {report['exit_after_sigterm']}",
        f"{'differences':20} {report['differences'] or 'none'}",
        f"{'95 % bound 3/n':20} {report['bound_95_per_cent']} of acknowledged and refused vouchers",
        *report["shown"],
        f"ok: {str(report['ok']).lower()}",
    ]
    return "\n".join(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _say(words: str) -> None:
    print(f"drill: {words}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="drill", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=20, metavar="SECONDS")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--pace", type=float, default=8, help="requests per second of one client")
    parser.add_argument("--merchants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=20_000, help="requests that are sent again at the end")
    parser.add_argument("--data-dir", type=Path, help="new or empty folder, which is kept")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.data_dir is not None and options.data_dir.exists() and any(options.data_dir.iterdir()):
        parser.error(f"{options.data_dir} is not empty: the test counts everything in it")
    orders = Orders(
        seconds=options.minutes * 60,
        every_s=options.every,
        clients=options.clients,
        seed=options.seed,
        workers=options.workers,
        pace=options.pace,
        merchants=options.merchants,
        repeats=options.repeats,
        home=None if options.data_dir is None else options.data_dir.resolve(),
    )
    report = asyncio.run(run_drill(orders))
    print(msgspec.json.format(msgspec.json.encode(report)).decode() if options.json else table(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
