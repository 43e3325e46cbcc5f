"""What is charged: rules, which of them applies, and how a fee is divided. Whole minor units, nothing but integers."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec


class Tier(msgspec.Struct, frozen=True):
    """Holds for amounts from `from_amount` on, for the whole of them."""

    from_amount: int
    basis_points: int
    fixed: int


tiers_of: Final = msgspec.json.Decoder(list[Tier]).decode
"""The tiers of a rule from its column."""


class FeeRule(msgspec.Struct, frozen=True):
    """A row of fund.fee_rules. `merchant` and `channel` None: any. Of `tiers`, the highest that the amount reaches
    stands in the place of `basis_points` and `fixed`.
    """

    version: int
    merchant: str | None
    product: str
    channel: str | None
    basis_points: int
    fixed: int
    minimum: int
    maximum: int | None
    tiers: list[Tier]
    effective_at: datetime


def fee_of(rule: FeeRule | None, amount: int) -> int:
    """The fee on `amount`: basis points, rounded half up, and the fixed part; then from minimum to maximum; then at
    most the amount. Without a rule: 0.
    """
    if rule is None:
        return 0
    reached = [tier for tier in rule.tiers if tier.from_amount <= amount]
    charged: FeeRule | Tier = max(reached, key=lambda tier: tier.from_amount, default=rule)
    fee = (amount * charged.basis_points + 5000) // 10000 + charged.fixed
    fee = max(fee, rule.minimum)
    if rule.maximum is not None:
        fee = min(fee, rule.maximum)
    return min(fee, amount)


def choose(rules: Iterable[FeeRule], merchant: str, product: str, channel: str | None, at: datetime) -> FeeRule | None:
    """The rule for this: of merchant and channel, else of the merchant, else of the channel, else of anybody. Of
    several the one that took effect last, by `at`; of those with one time the highest version.
    """
    fitting = [
        rule
        for rule in rules
        if rule.product == product
        and rule.merchant in (None, merchant)
        and rule.channel in (None, channel)
        and rule.effective_at <= at
    ]
    return max(fitting, key=_rank, default=None)


def _rank(rule: FeeRule) -> tuple[bool, bool, datetime, int]:
    return rule.merchant is not None, rule.channel is not None, rule.effective_at, rule.version


def part_of(whole: int, of: int, part: int) -> int:
    """How much of the fee `whole` on what is left, `of`, goes with `part` of that: its share, rounded down.

    Whoever takes parts takes each from what the ones before left, of the fee as of the amount. Then no part is negative
    or more than its amount, the last one gets the rest, and all of them come to the whole, whatever their order.
    """
    assert 0 <= part <= of, (whole, of, part)
    assert whole >= 0, (whole, of, part)
    return whole if part == of else whole * part // of
