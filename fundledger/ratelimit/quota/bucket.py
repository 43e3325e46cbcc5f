"""Rate limit bucket in the memory of one worker: leased tokens, tokens spent but not charged, a cached refusal."""

from collections.abc import Sequence
from typing import Final

from fundledger.ratelimit.quota.gcra import State
from fundledger.ratelimit.quota.policies import Policy

LEASE_S: Final = 0.25
"""Lifetime (s) of a lease. After this time, unspent tokens are returned to the store, or expire if they are few."""
LOW_WATER: Final = 0.2
SPACE: Final = "fundledger"
"""Default key prefix in the store. Each service has its own prefix. A request that passes through two services is
charged once by each service."""


REMEMBER_S: Final = 1.0
"""Maximum time (s) for which a refusal is cached. The time is limited, because other workers may return tokens
meanwhile."""


class Share:
    """Local quota of one worker for one bucket during one outage of the store.

    The local quota is the fraction 1 / `of` of the bucket, and has its own GCRA state. `spent` counts the tokens taken
    from the local quota.
    """

    __slots__ = ("of", "outage", "spent", "state")

    def __init__(self, state: State, of: int, outage: int) -> None:
        self.state = state
        self.of = of
        self.outage = outage
        self.spent = 0


class Bucket:
    """Local state of one bucket. `leased` is the number of tokens that this worker may use before it calls the store.

    Half of `leased` may be held (`tokens`): the store has deducted these tokens before they are spent. A quarter may be
    spent as overdraft tokens (`debt`), which are charged in the store within milliseconds. In any window, all N workers
    together therefore admit at most N * leased tokens more than the rate and the burst allow. This surplus consists of
    tokens that were deducted before the window and spent in it, tokens that were spent in the window and are not
    charged yet, and tokens that were charged beyond the burst.

    - `asking`: the tokens that running calls to the store request; `charging`: the debt that these calls charge
    - `on_credit`: True if overdraft tokens may be spent; False if the bucket was nearly empty at the store's last reply
    - `share`: the local quota while the store is unavailable

    Times are monotonic seconds.
    """

    __slots__ = (
        "answered",
        "asking",
        "charging",
        "credit",
        "debt",
        "denied_cost",
        "denied_until",
        "dirty",
        "expires",
        "hold",
        "holding",
        "key",
        "low",
        "name",
        "on_credit",
        "policy",
        "remaining",
        "reset_us",
        "retry_at",
        "shadowed",
        "share",
        "tokens",
        "used",
        "want",
        "window",
    )

    def __init__(self, policy: Policy, key: str, leased: int, space: str = SPACE) -> None:
        self.policy = policy
        self.name = key
        self.key = f"{{{space}}}:{policy.name}:{key}"
        self.tokens = 0
        self.expires = 0.0
        self.low = 0
        self.want = 0
        self.hold = leased // 2
        self.credit = leased // 4
        self.debt = 0
        self.charging = 0
        self.asking = 0
        self.on_credit = self.credit > 0
        self.dirty = False
        self.holding = False
        self.denied_until = 0.0
        self.denied_cost = 0
        self.shadowed = policy.shadow
        self.share: Share | None = None
        self.retry_at = 0.0
        self.window = -1
        self.remaining = policy.rate.burst
        self.reset_us = 0
        self.answered = 0.0
        self.used = 0

    def resize(self, leased: int) -> None:
        """Set the number of tokens that this worker may use. Call it after the number of workers has changed."""
        self.hold = leased // 2
        self.credit = leased // 4
        self.on_credit = self.on_credit and self.credit > 0

    def change(self, policy: Policy, leased: int) -> None:
        """Replace the policy of the bucket."""
        self.policy = policy
        self.shadowed = policy.shadow
        self.resize(leased)
        self.denied_until = 0.0
        if self.share is not None:
            # The fraction of a microsecond was in units of the former rate: round up.
            self.share.state = (self.share.state[0] + 1, 0)

    def denies(self, cost: int, now: float) -> bool:
        """Return whether a cached refusal covers this cost: a request for `cost` tokens or fewer was refused."""
        return now < self.denied_until and cost >= self.denied_cost

    def has(self, cost: int, now: float) -> bool:
        """Return whether `cost` tokens may be spent without a call to the store."""
        held = self.tokens if now < self.expires else 0
        return held >= cost or (self.on_credit and self.debt + self.charging + cost - held <= self.credit)

    def take(self, cost: int, now: float) -> None:
        """Spend `cost` tokens: held tokens first, then overdraft tokens. Requires `has(cost, now)`."""
        held = min(cost, self.tokens) if now < self.expires else 0
        self.tokens -= held
        self.debt += cost - held

    def give_back(self, cost: int) -> None:
        """Return tokens that were taken and not used. The debt becomes negative if the tokens are already charged."""
        self.debt -= cost
        self.denied_until = 0.0

    def granted(self, tokens: int, now: float) -> None:
        """Record a lease of `tokens` that the store deducted for this worker."""
        self.tokens = (self.tokens if now < self.expires else 0) + tokens
        self.expires = now + LEASE_S
        self.low = int(self.want * LOW_WATER)

    def answer(self, remaining: int, reset_us: int, now: float) -> None:
        """Record the store's reply."""
        self.remaining = remaining
        self.reset_us = reset_us
        self.answered = now
        self.on_credit = self.credit > 0 and remaining > 2 * (self.credit + self.hold)

    def refused(self, cost: int, retry_us: int, now: float) -> None:
        """Cache a refusal until its retry time.

        Without the minimum pause, the store would be called for each single token that is refilled.
        """
        pause_us = min(5_000, self.hold * self.policy.rate.period_us // (4 * self.policy.rate.tokens))
        self.retry_at = now + max(retry_us, pause_us) / 1e6
        self.denied_until = min(self.retry_at, now + REMEMBER_S)
        self.denied_cost = cost
        self.on_credit = False

    def room(self, now: float) -> int:
        """Return the number of tokens to lease in addition to the tokens that are held or already requested."""
        return max(0, self.want - self.asking - (self.tokens if now < self.expires else 0))

    def left(self, now: float) -> int:
        """Return this worker's estimate of the tokens that are available in the bucket now."""
        rate = self.policy.rate
        refilled = int((now - self.answered) * 1e6) * rate.tokens // rate.period_us if self.answered else rate.burst
        have = min(rate.burst, self.remaining + refilled)
        return max(0, min(rate.burst, have + self.tokens - self.debt - self.charging))


Charges = Sequence[tuple[Bucket, int]]
"""The buckets of a request, each with the tokens that the request takes."""
