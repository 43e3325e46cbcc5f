"""Fees: the fee rule that applies, the amount, and the parts of a fee, which add up to the fee."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundledger.fund.model.fees import FeeRule, Tier, charge_of, choose, fee_of, largest_with_fee, part_of

AT = datetime(2026, 3, 1, tzinfo=UTC)


def rule(version: int = 1, merchant: str | None = None, channel: str | None = None, **more) -> FeeRule:
    fields = {"basis_points": 0, "fixed": 0, "minimum": 0, "maximum": None, "tiers": [], "effective_at": AT}
    return FeeRule(version=version, merchant=merchant, product="payment", channel=channel, **{**fields, **more})


TIERS = [Tier(1000, 30, 5), Tier(100, 50, 0)]


@pytest.mark.parametrize(
    ("terms", "amount", "fee"),
    [
        ({}, 10000, 0),
        ({"basis_points": 60}, 10000, 60),
        ({"basis_points": 60}, 83, 0),
        ({"basis_points": 60}, 84, 1),
        ({"basis_points": 50}, 100, 1),
        ({"basis_points": 50}, 99, 0),
        ({"basis_points": 1}, 4999, 0),
        ({"basis_points": 10000}, 7, 7),
        ({"basis_points": 1}, 2**53 - 1, 900719925474),
        ({"basis_points": 60, "fixed": 30}, 10000, 90),
        ({"basis_points": 60, "minimum": 100}, 10000, 100),
        ({"basis_points": 60, "maximum": 50}, 10000, 50),
        ({"fixed": 30}, 20, 20),
        ({"minimum": 30}, 20, 20),
        ({"basis_points": 100, "tiers": TIERS}, 99, 1),
        ({"basis_points": 100, "tiers": TIERS}, 100, 1),
        ({"basis_points": 100, "tiers": TIERS}, 999, 5),
        ({"basis_points": 100, "tiers": TIERS}, 1000, 8),
        ({"tiers": TIERS, "maximum": 7}, 1000, 7),
    ],
)
def test_a_fee_is_what_its_rule_says(terms: dict, amount: int, fee: int):
    assert fee_of(rule(**terms), amount) == fee


def test_without_a_rule_nothing_is_charged():
    assert fee_of(None, 100) == 0


SMALL = st.integers(0, 40)


@given(
    st.none()
    | st.builds(
        rule,
        basis_points=st.integers(0, 10000),
        fixed=SMALL,
        minimum=SMALL,
        maximum=st.none() | st.integers(40, 90),
        tiers=st.lists(st.builds(Tier, st.integers(1, 250), st.integers(0, 10000), SMALL), max_size=4),
    ),
    st.integers(-3, 300),
)
def test_the_largest_amount_that_fits_with_its_fee(terms: FeeRule | None, budget: int):
    fitting = [amount for amount in range(1, budget + 1) if amount + fee_of(terms, amount) <= budget]
    assert largest_with_fee(terms, budget) == max(fitting, default=0)


@given(
    st.builds(
        rule,
        basis_points=st.integers(0, 10000),
        fixed=st.integers(0, 10**6),
        minimum=st.integers(0, 10**6),
        maximum=st.none() | st.integers(10**6, 10**7),
        tiers=st.lists(
            st.builds(Tier, st.integers(0, 10**9), st.integers(0, 10000), st.integers(0, 10**6)), max_size=4
        ),
    ),
    st.integers(1, 2**53 - 1),
)
def test_a_fee_is_from_nothing_to_the_amount(of: FeeRule, amount: int):
    fee = fee_of(of, amount)
    assert 0 <= fee <= amount
    assert fee >= min(of.minimum, amount)
    assert of.maximum is None or fee <= of.maximum


@pytest.mark.parametrize(
    ("terms", "amount", "fee", "tax"),
    [
        ({"basis_points": 100}, 10000, 100, 0),
        ({"basis_points": 100, "tax_basis_points": 600}, 10600, 106, 6),
        ({"basis_points": 100, "tax_basis_points": 600}, 10000, 100, 6),  # 100 * 6 / 106 = 5.66
        ({"basis_points": 100, "tax_basis_points": 500}, 1050, 11, 1),  # 0.52
        ({"basis_points": 100, "tax_basis_points": 500}, 900, 9, 0),  # 0.43
        ({"fixed": 21, "tax_basis_points": 500}, 100, 21, 1),
        ({"fixed": 3, "tax_basis_points": 10000}, 100, 3, 2),  # 1.5 is rounded up
        ({"basis_points": 100, "tax_basis_points": 600, "tax_mode": "added"}, 10000, 106, 6),
        ({"basis_points": 100, "tax_basis_points": 600, "tax_mode": "added"}, 800, 8, 0),  # 0.48
        ({"basis_points": 100, "tax_basis_points": 600, "tax_mode": "added"}, 900, 10, 1),  # 0.54
        ({"fixed": 25, "tax_basis_points": 200, "tax_mode": "added"}, 100, 26, 1),  # 0.5 is rounded up
        ({"fixed": 94, "tax_basis_points": 600, "tax_mode": "added"}, 100, 100, 6),
        ({"fixed": 95, "tax_basis_points": 600, "tax_mode": "added"}, 100, 100, 6),  # 101 exceeds the amount
        ({"fixed": 99, "tax_basis_points": 10000, "tax_mode": "added"}, 99, 99, 50),
        ({"tax_basis_points": 600}, 100, 0, 0),
        ({"basis_points": 10000, "tax_basis_points": 10000}, 2**53 - 1, 2**53 - 1, 2**52),
        ({"basis_points": 100, "minimum": 50, "tax_basis_points": 600, "tax_mode": "added"}, 1000, 53, 3),
    ],
)
def test_the_tax_is_in_the_fee_or_on_top_of_it(terms: dict, amount: int, fee: int, tax: int):
    assert charge_of(rule(**terms), amount) == (fee, tax)


@pytest.mark.parametrize(
    ("mode", "commission", "charged"),
    [("included", 106, (106, 6)), ("added", 100, (106, 6)), ("added", 0, (0, 0)), ("added", 1000, (1000, 57))],
)
def test_a_commission_replaces_the_fee_of_the_rule_and_is_taxed_like_it(
    mode: str, commission: int, charged: tuple[int, int]
):
    of = rule(basis_points=300, tax_basis_points=600, tax_mode=mode)
    assert charge_of(of, 1000, commission) == charged
    assert charge_of(None, 1000, commission) == (commission, 0)


def test_without_a_rule_there_is_no_tax():
    assert charge_of(None, 100) == (0, 0)


@given(
    st.builds(
        rule,
        basis_points=st.integers(0, 10000),
        fixed=st.integers(0, 100),
        tax_basis_points=st.integers(0, 10000),
        tax_mode=st.sampled_from(["included", "added"]),
    ),
    st.integers(1, 10**4) | st.integers(1, 2**53 - 1),
)
def test_the_tax_is_within_half_a_unit_of_its_points_of_the_fee_without_it(of: FeeRule, amount: int):
    fee, tax = charge_of(of, amount)
    assert 0 <= tax <= fee <= amount
    assert fee_of(of, amount) <= fee
    if of.tax_mode == "included":
        assert fee == fee_of(of, amount)
    elif fee < amount:
        assert fee - tax == fee_of(of, amount)
    # |tax - (fee - tax) * points| is less than a unit, because both parts of the fee are rounded together.
    assert abs(tax * 10_000 - (fee - tax) * of.tax_basis_points) <= 5_000 + of.tax_basis_points // 2


LATER = AT + timedelta(days=1)


@pytest.mark.parametrize(
    ("rules", "chosen"),
    [
        ([], None),
        ([rule(1)], 1),
        ([rule(1), rule(2, channel="c")], 2),
        ([rule(1, "m"), rule(2, channel="c")], 1),
        ([rule(1, "m", "c"), rule(2, "m"), rule(3, channel="c"), rule(4)], 1),
        ([rule(1, "other"), rule(2, channel="other"), rule(3, "m", "other")], None),
        ([rule(2), rule(1, effective_at=LATER)], 1),
        ([rule(1), rule(2, effective_at=LATER + timedelta(seconds=1))], 1),
        ([rule(3), rule(5), rule(4)], 5),
        ([rule(1, "m"), rule(2, effective_at=LATER)], 1),
    ],
)
def test_the_rule_that_says_most_is_chosen_then_the_latest(rules: list[FeeRule], chosen: int | None):
    found = choose(rules, "m", "payment", "c", LATER)
    assert (None if found is None else found.version) == chosen


def test_a_rule_of_another_product_or_of_a_channel_where_there_is_none_is_not_chosen():
    assert choose([rule()], "m", "withdrawal", "c", AT) is None
    assert choose([rule(channel="c")], "m", "payment", None, AT) is None


def test_a_rule_for_another_currency_is_not_chosen():
    rules = [rule(1), rule(2, currency="CNY"), rule(3, currency="JPY")]
    chosen = [choose(rules, "m", "payment", "c", AT, currency) for currency in ("CNY", "JPY", "USD")]
    assert [one and one.version for one in chosen] == [2, 3, 1]
    assert choose([rule(currency="JPY")], "m", "payment", "c", AT, "CNY") is None
    assert choose([rule(currency="JPY")], "m", "payment", "c", AT) is not None


@st.composite
def parts(draw: st.DrawFn) -> tuple[int, list[int]]:
    """Draw a fee, and an amount (at least the fee) divided into parts."""
    cut = draw(st.lists(st.integers(1, 10**9), min_size=1, max_size=12))
    return draw(st.integers(0, sum(cut))), cut


@given(parts())
def test_parts_of_a_fee_come_to_the_whole_and_none_is_negative_or_above_its_amount(whole: tuple[int, list[int]]):
    fee, amounts = whole
    left, taken = sum(amounts), []
    for amount in amounts:
        taken.append(part_of(fee - sum(taken), left, amount))
        assert 0 <= taken[-1] <= amount
        left -= amount
    assert sum(taken) == fee


@given(parts(), st.data())
def test_shares_of_a_tax_come_to_the_whole_and_none_exceeds_its_share_of_the_fee(
    whole: tuple[int, list[int]], data: st.DataObject
):
    fee, amounts = whole
    tax, left = data.draw(st.integers(0, fee)), sum(amounts)
    for amount in amounts:
        fee_share = part_of(fee, left, amount)
        tax_share = part_of(tax, fee, fee_share)
        assert 0 <= tax_share <= fee_share
        left, fee, tax = left - amount, fee - fee_share, tax - tax_share
    assert (fee, tax) == (0, 0)


@given(parts())
def test_shares_of_the_first_whole_do_not_come_to_it(whole: tuple[int, list[int]]):
    """The broken twin computes each part from the whole fee instead of the rest. The sum may be too small."""
    fee, amounts = whole
    assert sum(part_of(fee, sum(amounts), amount) for amount in amounts) <= fee


def test_the_rest_of_a_fee_is_lost_if_parts_are_of_the_first_whole():
    assert [part_of(10, 3, 1) for _ in range(3)] == [3, 3, 3]
    assert [part_of(10, 3, 1), part_of(7, 2, 1), part_of(4, 1, 1)] == [3, 3, 4]


def test_a_payment_with_nothing_left_has_no_part_of_a_fee():
    assert part_of(0, 0, 0) == 0
