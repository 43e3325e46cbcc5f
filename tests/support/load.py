"""Simulation of a worker and its database in virtual time: random arrivals, load shedder, server with group commit."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Protocol

from fundledger.ratelimit.classes import ApiClass

TICK_S = 0.1


class Admits(Protocol):
    def enter(
        self, api_class: ApiClass, merchant: str | None, now: float, budget_s: float | None = None
    ) -> str | None: ...
    def leave(self, api_class: ApiClass, merchant: str | None, seconds: float, *, dropped: bool = False) -> None: ...
    def tick(self, now: float, loop_lag_s: float) -> None: ...


@dataclass(frozen=True)
class Server:
    """A server with group commit. A batch of n requests takes `commit_s + n * each_s`.

    The requests that arrive meanwhile are the next batch, at most `batch_max`.
    """

    commit_s: float = 0.003
    each_s: float = 0.001
    batch_max: int = 100
    slow: Callable[[float], float] = lambda _: 0.0  # seconds added to a commit that begins at this time

    def capacity(self) -> float:
        """Return the capacity per second, in full batches."""
        return self.batch_max / (self.commit_s + self.batch_max * self.each_s)


@dataclass(frozen=True)
class Source:
    api_class: ApiClass
    rate: float  # 1/s
    merchant: str | None = None
    own_s: float | None = None  # seconds of a request that does not use the server


@dataclass
class Account:
    """The outcomes of one source's requests, from `since` on."""

    offered: int = 0
    shed: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    ended_at: list[float] = field(default_factory=list)

    def success(self) -> float:
        return 1 - sum(self.shed.values()) / self.offered


def run(
    shedder: Admits,
    server: Server,
    sources: list[Source],
    until: float,
    since: float = 0.0,
    load: Callable[[float], float] = lambda _: 1.0,
    each_tick: Callable[[float], None] = lambda _: None,
    seed: int = 1,
) -> list[Account]:
    """Simulate the sources. `accounts[i]` is the result of `sources[i]`.

    `load(now)` is the part of the rates that is sent at that time, at most 1.
    """
    chance = random.Random(seed)
    accounts = [Account() for _ in sources]
    total = sum(source.rate for source in sources)
    bounds = list(accumulate(source.rate for source in sources))
    indexes = range(len(sources))
    waiting: list[tuple[float, int]] = []
    batch: list[tuple[float, int]] = []
    alone: list[tuple[float, float, int]] = []  # until, since, source: requests with a constant time
    batch_ends = tick_at = float("inf")
    arrives = chance.expovariate(total)
    tick_at = 0.0

    def ended(began: float, index: int, now: float) -> None:
        source = sources[index]
        shedder.leave(source.api_class, source.merchant, now - began)
        if began >= since:
            accounts[index].seconds.append(now - began)
            accounts[index].ended_at.append(now)

    while True:
        alone_ends = alone[0][0] if alone else float("inf")
        now = min(arrives, batch_ends, tick_at, alone_ends)
        if now >= until:
            return accounts
        if now == alone_ends:
            _, began, index = alone.pop(0)
            ended(began, index, now)
        elif now == arrives:
            arrives = now + chance.expovariate(total)
            (index,) = chance.choices(indexes, cum_weights=bounds)
            if chance.random() >= load(now):
                continue
            source, account = sources[index], accounts[index]
            counts = now >= since
            account.offered += counts
            reason = shedder.enter(source.api_class, source.merchant, now)
            if reason is not None:
                account.shed[reason] = account.shed.get(reason, 0) + counts
            elif source.own_s is not None:
                alone.append((now + source.own_s, now, index))
                alone.sort()
            else:
                waiting.append((now, index))
        elif now == tick_at:
            shedder.tick(now, 0.0)
            each_tick(now)
            tick_at += TICK_S
            continue
        else:
            for began, index in batch:
                ended(began, index, now)
            batch_ends = float("inf")
        if waiting and batch_ends == float("inf"):
            batch, waiting = waiting[: server.batch_max], waiting[server.batch_max :]
            batch_ends = now + server.commit_s + len(batch) * server.each_s + server.slow(now)


def jain(values: list[float]) -> float:
    """Return Jain's fairness index: 1 if all have the same, 1/n if one has everything."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))
