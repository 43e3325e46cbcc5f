"""What a worker does while the store is away: it goes on with its own share of every limit, never without one.

With N workers alive when the store was last heard, each admits at most a N-th of the rate and of the burst, by the same
GCRA, on a clock of its own. A bucket begins with what should be left of it by what the store answered last. Money
classes get their share, reading half of it, administration is refused: nobody may try keys while nobody counts.
"""

from collections.abc import Sequence
from typing import Final

from fundledger.ratelimit import gcra
from fundledger.ratelimit.bucket import Bucket, Share
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.gcra import Ask, Grant, Rate, State

WEIGHTS: Final = {ApiClass.QUERY: 2, ApiClass.LIST: 2}
"""What one of these costs here: so they get half."""
CLOSED: Final = frozenset({ApiClass.ADMIN})
COST_MAX: Final = 10_000
"""The most that one request costs: a batch of 5,000, twice."""
FRACTION: Final = 1000
"""Shares are counted in thousandths of a token, so that a small burst can be divided."""
_LONG_AGO_US: Final = -(1 << 60)
"""This worker has forgotten nothing."""


def share_of(rate: Rate, workers: int) -> Rate:
    """A N-th of a rate, in thousandths of tokens; at least one token at once."""
    burst = max(FRACTION, rate.burst * FRACTION // workers)
    return Rate(rate.tokens * FRACTION, rate.period_us * workers, burst, burst + COST_MAX * FRACTION)


def take(
    charges: Sequence[tuple[Bucket, int]], api_class: ApiClass, workers: int, outage: int, now_us: int
) -> tuple[bool, list[Grant]]:
    """All or none, of this worker's shares in this outage; `grants[i]` (in thousandths) answers `charges[i]`. `now_us`:
    any clock that only goes forward.
    """
    asks, beyond = [], []
    for bucket, cost in charges:
        rate = share_of(bucket.policy.rate, workers)
        if bucket.share is None or bucket.share.outage != outage:
            rejoin(bucket, now_us)
            bucket.share = Share(_begin(bucket, rate, workers, now_us), workers, outage)
        weighted = cost * WEIGHTS.get(api_class, 1) * FRACTION
        least = min(weighted, rate.burst)
        asks.append(Ask(rate, least=least, most=least, shadow=bucket.shadowed))
        beyond.append(weighted - least)
    states = [bucket.share.state for bucket, _ in charges if bucket.share is not None]
    admitted, grants, written = gcra.decide(asks, states, _LONG_AGO_US, _LONG_AGO_US, now_us)
    for (bucket, cost), ask, debt, state in zip(charges, asks, beyond, written, strict=True):
        if state is None or bucket.share is None:
            continue
        # What costs more than the whole share is let in by a full one, and is missing from it for so much longer.
        after = (
            gcra.decide([Ask(ask.rate, debt=debt)], [state], _LONG_AGO_US, _LONG_AGO_US, now_us)[2][0]
            if debt
            else state
        )
        bucket.share.state = after or state
        bucket.share.spent += cost
    return admitted, grants


def rejoin(bucket: Bucket, now_us: int) -> None:
    """The outage is over: what was spent of the share, and has not come back to it, is charged."""
    share = bucket.share
    if share is None:
        return
    rate = bucket.policy.rate
    ahead_us = max(0, share.state[0] - now_us)
    # The share is refilled at a N-th of the rate.
    missing = -(-ahead_us * rate.tokens // (rate.period_us * share.of))
    bucket.debt += min(share.spent, missing)
    bucket.share = None
    bucket.on_credit = False
    bucket.denied_until = 0.0


def _begin(bucket: Bucket, rate: Rate, workers: int, now_us: int) -> State:
    missing = (bucket.policy.rate.burst - bucket.left(now_us / 1e6)) * FRACTION // workers
    load = max(0, min(missing, rate.burst)) * rate.period_us
    return now_us + load // rate.tokens, load % rate.tokens
