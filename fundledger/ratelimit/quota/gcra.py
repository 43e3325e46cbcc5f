"""Generic cell rate algorithm (GCRA) of the rate limiter, in integers.

A rate is a number of tokens (`tokens`) in a time (`period_us`). The only state of a bucket is the instant at which the
bucket will be full. The instant is stored in whole microseconds plus `frac / tokens` of a microsecond, so that every
fractional rate is exact. `load` is the time until that instant, in units of `1 / tokens` us. One token is a load of
`period_us`, and an empty bucket has a load of `burst * period_us`.

In any window of W us, at most `W * tokens // period_us + burst` tokens are granted. `decide.lua` computes the same
results bit for bit (tests/ratelimit/test_conformance.py). Source: ITU-T I.371 (GCRA, virtual scheduling).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

EXACT_MAX: Final = 1 << 52
"""Maximum of all numbers in a decision. Lua computes in doubles, which represent integers exactly only up to 2^53."""
AWAY_S: Final = 10
KEPT: Final = 10
"""After a loss of data or an outage of the store, a bucket has at least `burst / KEPT` tokens."""


class Rate(msgspec.Struct, frozen=True):
    """A rate of `tokens` tokens in `period_us` microseconds, with a bucket of `burst` tokens.

    The deficit of a bucket is the number of tokens that it lacks to be full. `ceiling` is the maximum deficit. A
    deficit can exceed the burst because of overdraft tokens (`debt`), or because the clock was set back.
    """

    tokens: int
    period_us: int
    burst: int
    ceiling: int

    @property
    def per_second(self) -> float:
        return self.tokens * 1e6 / self.period_us


class Ask(msgspec.Struct, frozen=True):
    """Request for tokens of one bucket.

    `debt` tokens are charged in any case, or returned if `debt` is negative. Then either `least` to `most` tokens are
    granted, or none. If `shadow` is True, the request is admitted even if this bucket has fewer than `least` tokens.
    """

    rate: Rate
    debt: int = 0
    least: int = 0
    most: int = 0
    shadow: bool = False


State = tuple[int, int]
"""The instant at which a bucket is full: us since 1970, and a fraction of a us in units of 1 / tokens."""


class Grant(msgspec.Struct, frozen=True):
    """Result for one bucket.

    - `granted`: granted tokens; `remaining`: tokens of the bucket afterwards
    - `retry_us`: time until the requested minimum is available; 0 if it was available
    - `reset_us`: time until the bucket is full
    """

    granted: int
    remaining: int
    retry_us: int
    reset_us: int


def load_of(rate: Rate, state: State | None, since: int, back: int, now: int) -> int:
    """Return the load of a bucket, in units of 1 / tokens us.

    `since` is the time at which the store last lost its data. All but a tenth of the burst counts as spent at that
    time. `back` is the time at which the last outage of the store ended. The tokens of `AWAY_S` seconds count as spent
    at that time.
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
    """Return whether a bucket's deficit exceeds its ceiling."""
    return state is not None and state[0] - now > rate.ceiling * rate.period_us // rate.tokens


def decide(
    asks: Sequence[Ask], states: Sequence[State | None], since: int, back: int, now: int
) -> tuple[bool, list[Grant], list[State | None]]:
    """Decide a request for tokens of several buckets: either all buckets grant their tokens, or none does.

    Return `(admitted, grants, states)`. `grants[i]` is the result for `asks[i]`. `states[i]` is the new state of the
    bucket, or None if the state is unchanged.
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
        # A state beyond the ceiling (the clock was set back) is also written: its deficit then falls from the ceiling.
        changed = granted > 0 or ask.debt != 0 or is_beyond(rate, states[len(written)], now)
        written.append((now + after // rate.tokens, after % rate.tokens) if changed else None)
    return admitted, grants, written


def _most(rate: Rate) -> int:
    return rate.ceiling * rate.period_us


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
