"""Model of the fund service: fee rules. Functions return the rule that applies, the fee of an amount and the tax in it,
and the share of a fee for a partial refund or settlement.

All amounts are integers in minor units.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, Literal

import msgspec

TaxMode = Literal["included", "added"]
FeeReturn = Literal["proportional", "none"]


class Tier(msgspec.Struct, frozen=True):
    """A fee tier: it applies to the whole amount if the amount is at least `from_amount`."""

    from_amount: int
    basis_points: int
    fixed: int


tiers_of: Final = msgspec.json.Decoder(list[Tier]).decode
"""Decode the tiers of a fee rule from the JSON in the rule's column."""


class FeeRule(msgspec.Struct, frozen=True):
    """A row of fund.fee_rules. `merchant` and `channel`: None for all. If an amount reaches a tier, the highest such
    tier replaces `basis_points` and `fixed`.

    `currency`: the only currency to which the rule applies, None for all. `tax_basis_points`: the tax on the fee, which
    `tax_mode` includes in the fee or adds to it. `returned`: whether refunds return the fee.
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
    currency: str | None = None
    tax_basis_points: int = 0
    tax_mode: TaxMode = "included"
    returned: FeeReturn = "proportional"


def fee_of(rule: FeeRule | None, amount: int) -> int:
    """Return the fee of `amount`: the basis points of the amount, rounded half up, plus the fixed part. The fee is then
    limited to the minimum and maximum of the rule, and last to the amount. Without a rule the fee is 0.
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


def charge_of(rule: FeeRule | None, amount: int, commission: int | None = None) -> tuple[int, int]:
    """Return `(fee, tax)`: what is charged for an amount, and the part of it that is tax. `commission`: replaces the
    fee that the rule would charge.

    The tax is rounded half up. If the rule includes the tax, the fee is that of `fee_of`, and contains the tax. If the
    rule adds the tax, it is the basis points of that fee, on top of it. If both together exceed the amount, the amount
    is charged, and includes the tax. Without a rule there is no tax.
    """
    fee = fee_of(rule, amount) if commission is None else commission
    if rule is None or not rule.tax_basis_points:
        return fee, 0
    points = rule.tax_basis_points
    if rule.tax_mode == "added":
        tax = _half_up(fee * points, 10_000)
        if fee + tax <= amount:
            return fee + tax, tax
        fee = amount
    return fee, _half_up(fee * points, 10_000 + points)


def _half_up(numerator: int, denominator: int) -> int:
    return (2 * numerator + denominator) // (2 * denominator)


def largest_with_fee(rule: FeeRule | None, budget: int) -> int:
    """Return the largest amount that, together with its fee and the tax on it, is at most `budget`, or 0 if there is
    none. A higher tier may charge less than a lower one, so the tiers are searched from the highest to the lowest.
    """
    bounds = sorted({1, *([] if rule is None else [tier.from_amount for tier in rule.tiers])})
    most = budget
    for least in reversed(bounds):
        if least <= most and least + charge_of(rule, least)[0] <= budget:
            low, high = least, most
            while low < high:
                # Within a tier, the sum of amount and fee never falls.
                middle = (low + high + 1) // 2
                low, high = (middle, high) if middle + charge_of(rule, middle)[0] <= budget else (low, middle - 1)
            return low
        most = min(most, least - 1)
    return 0


def choose(
    rules: Iterable[FeeRule],
    merchant: str,
    product: str,
    channel: str | None,
    at: datetime,
    currency: str | None = None,
) -> FeeRule | None:
    """Return the most specific rule that is in effect at the time `at`. A rule for the merchant and the channel
    precedes a rule for the merchant, then one for the channel, then one for all. Of equally specific rules, the rule
    with the latest `effective_at` applies, then the rule with the highest version. `currency`: rules for another
    currency do not apply; None: rules for any currency do.
    """
    fitting = [
        rule
        for rule in rules
        if rule.product == product
        and rule.merchant in (None, merchant)
        and rule.channel in (None, channel)
        and (currency is None or rule.currency in (None, currency))
        and rule.effective_at <= at
    ]
    return max(fitting, key=_rank, default=None)


def _rank(rule: FeeRule) -> tuple[bool, bool, datetime, int]:
    return rule.merchant is not None, rule.channel is not None, rule.effective_at, rule.version


def part_of(whole: int, of: int, part: int) -> int:
    """Return the share of a fee for a part of an amount, rounded down. `whole` is the remaining fee. `of` is the
    remaining amount. `part` is the part of the remaining amount to which the share belongs. The share of a tax for a
    part of a fee is computed in the same way.

    Before the next call, the caller subtracts the share from the remaining fee, and the part from the remaining amount.
    Then no share is negative, and no share exceeds its part. The last share is the rest of the fee. The shares of all
    parts add up to the fee, in any order of the parts.
    """
    assert 0 <= part <= of, (whole, of, part)
    assert whole >= 0, (whole, of, part)
    return whole if part == of else whole * part // of
