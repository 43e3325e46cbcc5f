"""Local quotas of the rate limiter, used while the store is unavailable.

N is the number of live workers at the store's last reply. Each worker admits at most 1/N of the rate and of the burst,
by the same GCRA on its own clock. The local quota of a bucket starts with 1/N of the tokens that the bucket is
estimated to have. Classes that move money get the full local quota, and reads get half of it. Requests of the class
`admin` are refused, because attempts to guess keys would otherwise not be counted.
"""

from typing import Final

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota import gcra
from fundledger.ratelimit.quota.bucket import Bucket, Charges, Share
from fundledger.ratelimit.quota.gcra import Ask, Grant, Rate, State

WEIGHTS: Final = {ApiClass.QUERY: 2, ApiClass.LIST: 2}
"""Cost factors of classes. A read costs two tokens, so reads get half of the local quota."""
CLOSED: Final = frozenset({ApiClass.ADMIN})
COST_MAX: Final = 10_000
"""Maximum cost of one request: a batch of 5,000 with the factor 2."""
FRACTION: Final = 1000
"""Local quotas are counted in thousandths of a token, so that a small burst can be divided among workers."""
_LONG_AGO_US: Final = -(1 << 60)
"""Value of `since` and `back` for `gcra.decide`. It is in the distant past, because a worker never loses its own
state."""


def share_of(rate: Rate, workers: int) -> Rate:
    """Return the rate divided by `workers`, in thousandths of tokens, with a burst of at least one token."""
    burst = max(FRACTION, rate.burst * FRACTION // workers)
    return Rate(rate.tokens * FRACTION, rate.period_us * workers, burst, burst + COST_MAX * FRACTION)


def take(charges: Charges, api_class: ApiClass, workers: int, outage: int, now_us: int) -> tuple[bool, list[Grant]]:
    """Take all charges from this worker's local quotas, or none. Return `(admitted, grants)`.

    `grants[i]` (in thousandths of tokens) is the result for `charges[i]`. A bucket without a local quota for this
    `outage` gets a new one. `now_us` is from a monotonic clock.
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
        # A full local quota admits a cost above its burst. The rest of the cost is charged to the local quota as debt.
        after = (
            gcra.decide([Ask(ask.rate, debt=debt)], [state], _LONG_AGO_US, _LONG_AGO_US, now_us)[2][0]
            if debt
            else state
        )
        bucket.share.state = after or state
        bucket.share.spent += cost
    return admitted, grants


def rejoin(bucket: Bucket, now_us: int) -> None:
    """End the local quota of a bucket after an outage.

    The tokens that were spent and are not refilled yet become debt, which is charged in the store.
    """
    share = bucket.share
    if share is None:
        return
    rate = bucket.policy.rate
    ahead_us = max(0, share.state[0] - now_us)
    # The local quota is refilled at 1/N of the rate.
    missing = -(-ahead_us * rate.tokens // (rate.period_us * share.of))
    bucket.debt += min(share.spent, missing)
    bucket.share = None
    bucket.on_credit = False
    bucket.denied_until = 0.0


def _begin(bucket: Bucket, rate: Rate, workers: int, now_us: int) -> State:
    missing = (bucket.policy.rate.burst - bucket.left(now_us / 1e6)) * FRACTION // workers
    load = max(0, min(missing, rate.burst)) * rate.period_us
    return now_us + load // rate.tokens, load % rate.tokens
