"""What one worker knows of one bucket: tokens that it holds, what it spent unasked, until when it is refused."""

from typing import Final

from fundledger.ratelimit.gcra import State
from fundledger.ratelimit.policies import Policy

LEASE_S: Final = 0.25
"""Tokens that were not spent for so long go back."""
LOW_WATER: Final = 0.2
SPACE: Final = "fundledger"
"""Whose buckets they are in the store: what passes two services is not charged twice to one bucket."""


REMEMBER_S: Final = 1.0
"""A refusal is remembered for no longer: others may have given back what was missing."""


class Share:
    """What one worker has of a bucket in one outage of the store: one of `of`, by its own GCRA; `spent` tokens."""

    __slots__ = ("of", "outage", "spent", "state")

    def __init__(self, state: State, of: int, outage: int) -> None:
        self.state = state
        self.of = of
        self.outage = outage
        self.spent = 0


class Bucket:
    """Of the `leased` tokens that this worker may have to itself, half are held (`tokens`), deducted in the store
    before they are spent; a quarter may be spent before it is asked (`debt`), and is charged within milliseconds. So
    all N workers together admit at most N * leased more than the rate and the burst: what was deducted before a window
    and spent in it, what was spent in it and is not charged yet, and what was charged beyond the burst.

    `asking` tokens and `charging` debt are on their way to the store. `on_credit`: the bucket was not near its end when
    the store answered last. `share` is this worker's own while the store is away.
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
        """As many workers live now."""
        self.hold = leased // 2
        self.credit = leased // 4
        self.on_credit = self.on_credit and self.credit > 0

    def change(self, policy: Policy, leased: int) -> None:
        """Its policy was changed."""
        self.policy = policy
        self.shadowed = policy.shadow
        self.resize(leased)
        self.denied_until = 0.0
        if self.share is not None:
            # The fraction is one of the rate that was.
            self.share.state = (self.share.state[0] + 1, 0)

    def denies(self, cost: int, now: float) -> bool:
        """Whether it was refused to somebody who asked for no more, and it is too early to ask again."""
        return now < self.denied_until and cost >= self.denied_cost

    def has(self, cost: int, now: float) -> bool:
        """Whether so much may be spent without asking."""
        held = self.tokens if now < self.expires else 0
        return held >= cost or (self.on_credit and self.debt + self.charging + cost - held <= self.credit)

    def take(self, cost: int, now: float) -> None:
        """Spend what is held, then on credit: it `has` so much."""
        held = min(cost, self.tokens) if now < self.expires else 0
        self.tokens -= held
        self.debt += cost - held

    def give_back(self, cost: int) -> None:
        """What was taken was not used after all. It may be charged already: then it is owed the other way round."""
        self.debt -= cost
        self.denied_until = 0.0

    def granted(self, tokens: int, now: float) -> None:
        """The store deducted so many for this worker."""
        self.tokens = (self.tokens if now < self.expires else 0) + tokens
        self.expires = now + LEASE_S
        self.low = int(self.want * LOW_WATER)

    def answer(self, remaining: int, reset_us: int, now: float) -> None:
        """What the store said of it."""
        self.remaining = remaining
        self.reset_us = reset_us
        self.answered = now
        self.on_credit = self.credit > 0 and remaining > 2 * (self.credit + self.hold)

    def refused(self, cost: int, retry_us: int, now: float) -> None:
        """For as long as nothing can be had, nothing is asked; and not for every single token that trickles in."""
        pause_us = min(5_000, self.hold * self.policy.rate.period_us // (4 * self.policy.rate.tokens))
        self.retry_at = now + max(retry_us, pause_us) / 1e6
        self.denied_until = min(self.retry_at, now + REMEMBER_S)
        self.denied_cost = cost
        self.on_credit = False

    def room(self, now: float) -> int:
        """How many tokens it wants to hold beyond those that it has and asks for."""
        return max(0, self.want - self.asking - (self.tokens if now < self.expires else 0))

    def left(self, now: float) -> int:
        """Tokens that may be had now, as far as this worker knows."""
        rate = self.policy.rate
        refilled = int((now - self.answered) * 1e6) * rate.tokens // rate.period_us if self.answered else rate.burst
        have = min(rate.burst, self.remaining + refilled)
        return max(0, min(rate.burst, have + self.tokens - self.debt - self.charging))
