"""The generic cell rate algorithm in integers: when a bucket is full again is all that is stored of it.

A rate is `tokens` in `period_us`. A bucket's state is the instant at which it will be full, in whole microseconds and
`frac / tokens` of one, so that any rate that is a fraction is kept exactly. `load` is how far that instant is ahead, in
units of `1 / tokens` us: `period_us` of it are one token, `burst * period_us` of it are an empty bucket.

In any window of W us, at most `W * tokens // period_us + burst` tokens are granted. `decide.lua` is the same, bit for
bit: tests/ratelimit/test_conformance.py. After ITU-T I.371 (GCRA, virtual scheduling).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

EXACT_MAX: Final = 1 << 52
"""Lua counts in doubles: nothing may go beyond the integers that these hold exactly."""
AWAY_S: Final = 10
KEPT: Final = 10
"""One in so many tokens of the burst is there at once after the store was lost or away."""


class Rate(msgspec.Struct, frozen=True):
    """`tokens` in `period_us`, at most `burst` at once. `ceiling`: tokens that a bucket can be short of, at most;
    beyond the burst it is what was spent before it was asked for (`debt`), or a clock that went back.
    """

    tokens: int
    period_us: int
    burst: int
    ceiling: int

    @property
    def per_second(self) -> float:
        return self.tokens * 1e6 / self.period_us


class Ask(msgspec.Struct, frozen=True):
    """Of one bucket: charge `debt` in any case (less than 0: give back), then grant at least `least` tokens or none, at
    most `most`. `shadow`: what it cannot grant stops nobody.
    """

    rate: Rate
    debt: int = 0
    least: int = 0
    most: int = 0
    shadow: bool = False


State = tuple[int, int]
"""The instant (us since the epoch) at which a bucket is full, and the fraction of a us, in units of 1 / tokens."""


class Grant(msgspec.Struct, frozen=True):
    """`granted` tokens; `remaining` may be had now; after `retry_us` the least that was asked for may be (0: now),
    after `reset_us` the bucket is full.
    """

    granted: int
    remaining: int
    retry_us: int
    reset_us: int


def load_of(rate: Rate, state: State | None, since: int, back: int, now: int) -> int:
    """What is missing, in units of 1 / tokens us.

    `since`: when the store had lost everything, as if all but a tenth was spent then. `back`: when it was last back
    from being away, as if so much was spent then as comes back in `AWAY_S` seconds.
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
    """Whether a bucket is short of more than it can be."""
    return state is not None and state[0] - now > rate.ceiling * rate.period_us // rate.tokens


def decide(
    asks: Sequence[Ask], states: Sequence[State | None], since: int, back: int, now: int
) -> tuple[bool, list[Grant], list[State | None]]:
    """`(admitted, grants, states)`: all asks are granted or none; `grants[i]` and the new `states[i]` answer `asks[i]`.

    A state that was not changed is None.
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
        # Also what is beyond its ceiling, by a clock that went back: it is to come down from there.
        changed = granted > 0 or ask.debt != 0 or is_beyond(rate, states[len(written)], now)
        written.append((now + after // rate.tokens, after % rate.tokens) if changed else None)
    return admitted, grants, written


def _most(rate: Rate) -> int:
    return rate.ceiling * rate.period_us


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
