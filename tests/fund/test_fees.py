"""Fees: the fee rule that applies, the amount, and the parts of a fee, which add up to the fee."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundledger.fund.model.fees import FeeRule, Tier, choose, fee_of, largest_with_fee, part_of

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
