"""The generic cell rate algorithm (GCRA) of the rate limiter, in integers. A bucket stores only when it is full again.

A rate is `tokens` in `period_us`. A bucket's state is the instant at which it will be full, in whole microseconds and
`frac / tokens` of one, so every fractional rate is exact. `load` is the distance to that instant in units of
`1 / tokens` us: one token is `period_us` of load, an empty bucket has a load of `burst * period_us`.

In any window of W us, at most `W * tokens // period_us + burst` tokens are granted. `decide.lua` computes the same
results bit for bit (tests/ratelimit/test_conformance.py). Source: ITU-T I.371 (GCRA, virtual scheduling).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

EXACT_MAX: Final = 1 << 52
"""Limit of all numbers: Lua computes in doubles, which represent integers exactly only up to 2^53."""
AWAY_S: Final = 10
KEPT: Final = 10
"""After the store lost its data or was away, `burst / KEPT` tokens are available immediately."""


class Rate(msgspec.Struct, frozen=True):
    """A rate of `tokens` in `period_us`, with a bucket of `burst` tokens.

    `ceiling` is the maximum deficit of a bucket in tokens. A deficit above the burst comes from overdraft (`debt`) or
    from a clock that went back.
    """

    tokens: int
    period_us: int
    burst: int
    ceiling: int

    @property
    def per_second(self) -> float:
        return self.tokens * 1e6 / self.period_us


class Ask(msgspec.Struct, frozen=True):
    """Request to one bucket: always charge `debt` (negative: return), then grant `least` to `most` tokens, or none.

    `shadow`: a shortage in this bucket does not refuse the request.
    """

    rate: Rate
    debt: int = 0
    least: int = 0
    most: int = 0
    shadow: bool = False


State = tuple[int, int]
"""The instant (us since the epoch) at which a bucket is full, and the fraction of a us, in units of 1 / tokens."""


class Grant(msgspec.Struct, frozen=True):
    """Result for one bucket: `granted` tokens, and `remaining` tokens afterwards.

    After `retry_us` the requested minimum is available (0: now). After `reset_us` the bucket is full.
    """

    granted: int
    remaining: int
    retry_us: int
    reset_us: int


def load_of(rate: Rate, state: State | None, since: int, back: int, now: int) -> int:
    """Return the deficit of a bucket, in units of 1 / tokens us.

    `since` is when the store last lost its data; all but a tenth of the burst counts as spent then. `back` is when the
    store last returned from an outage; the refill of `AWAY_S` seconds counts as spent then.
    """
    most = rate.ceiling * rate.period_us
    load = 0
    if state is not None:
        ahead = state[0] - now
        if is_beyond(rate, state, now):
            load = most
        elif ahead >= 0:
            load = min(most, ahead * rate.tokens + state[1])
    spent = (rate.burst - max(1, rate.burst // KEPT)) * rate.period_us
    load = max(load, _rest(spent, since, rate, now))
    return max(load, _rest(min(spent, AWAY_S * 1_000_000 * rate.tokens), back, rate, now))


def _rest(spent: int, at: int, rate: Rate, now: int) -> int:
    ago = max(0, now - at)
    return spent - ago * rate.tokens if ago <= spent // rate.tokens else 0


def is_beyond(rate: Rate, state: State | None, now: int) -> bool:
    """Whether a bucket's deficit exceeds its ceiling."""
    return state is not None and state[0] - now > rate.ceiling * rate.period_us // rate.tokens


def decide(
    asks: Sequence[Ask], states: Sequence[State | None], since: int, back: int, now: int
) -> tuple[bool, list[Grant], list[State | None]]:
    """Return `(admitted, grants, states)`. All asks are granted, or none.

    `grants[i]` and the new `states[i]` answer `asks[i]`. An unchanged state is None.
    """
    loads = [
        min(max(0, load_of(ask.rate, state, since, back, now) + ask.debt * ask.rate.period_us), _most(ask.rate))
        for ask, state in zip(asks, states, strict=True)
    ]
    free = [
        max(0, (a.rate.burst * a.rate.period_us - load) // a.rate.period_us)
        for a, load in zip(asks, loads, strict=True)
    ]
    admitted = all(ask.shadow or have >= ask.least for ask, have in zip(asks, free, strict=True))
    grants: list[Grant] = []
    written: list[State | None] = []
    for ask, load, have in zip(asks, loads, free, strict=True):
        rate = ask.rate
        granted = min(have, ask.most) if admitted and have >= ask.least else 0
        after = load + granted * rate.period_us
        retry = 0
        if have < ask.least:
            retry = _ceil(load - (rate.burst - ask.least) * rate.period_us, rate.tokens)
        grants.append(Grant(granted, have - granted, retry, _ceil(after, rate.tokens)))
        # Also write a state above its ceiling (the clock went back), so that it decays from the ceiling.
        changed = granted > 0 or ask.debt != 0 or is_beyond(rate, states[len(written)], now)
        written.append((now + after // rate.tokens, after % rate.tokens) if changed else None)
    return admitted, grants, written


def _most(rate: Rate) -> int:
    return rate.ceiling * rate.period_us


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
