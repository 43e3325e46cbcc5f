"""The division of an amount among parts, and the parts of split orders: the shares always sum to the whole."""

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fundledger.fund.model import split
from fundledger.fund.model.fees import part_of
from fundledger.fund.model.order import PLATFORM, Kind, Order, SplitPart
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.split import divide
from fundledger.fund.model.split_requests import PARTS_MAX
from tests.support.flow_orders import an_order

LARGEST = 2**53 - 1
WEIGHTS = st.lists(st.integers(0, 100) | st.integers(0, LARGEST), min_size=1, max_size=20).filter(any)


@given(WEIGHTS, st.data())
def test_shares_sum_to_the_amount_and_none_exceeds_its_weight(weights: list[int], data: st.DataObject) -> None:
    amount = data.draw(st.integers(0, sum(weights)))
    shares = divide(amount, weights)
    assert sum(shares) == amount
    assert len(shares) == len(weights)
    assert all(0 <= share <= weight for share, weight in zip(shares, weights, strict=True))


@given(WEIGHTS, st.integers(0, LARGEST))
def test_a_share_differs_from_its_exact_value_by_less_than_one(weights: list[int], amount: int) -> None:
    shares = divide(amount, weights)
    exact = [Fraction(amount * weight, sum(weights)) for weight in weights]
    assert all(abs(share - value) < 1 for share, value in zip(shares, exact, strict=True))
    # The units that are left go to the largest remainders: a share that got one has no smaller remainder than one that did not.
    got = [value % 1 for share, value in zip(shares, exact, strict=True) if share > value]
    missed = [value % 1 for share, value in zip(shares, exact, strict=True) if share < value]
    assert not got or not missed or min(got) >= max(missed)


@given(WEIGHTS, st.integers(0, LARGEST))
def test_a_larger_weight_never_has_a_smaller_share(weights: list[int], amount: int) -> None:
    shares = divide(amount, weights)
    by_weight = sorted(zip(weights, shares, strict=True), reverse=True)
    assert [share for _, share in by_weight] == sorted(shares, reverse=True)


@given(WEIGHTS, st.data())
@example([1, 1, 1], None)
def test_refunds_in_proportion_to_what_is_left_end_with_nothing_left(weights: list[int], data: Any) -> None:
    left = list(weights)
    for _ in range(30):
        if not any(left):
            break
        amount = 1 if data is None else data.draw(st.integers(1, sum(left)))
        shares = divide(amount, left)
        left = [of - share for of, share in zip(left, shares, strict=True)]
        assert min(left) >= 0
    if any(left):
        assert divide(sum(left), left) == left


@pytest.mark.parametrize(
    ("amount", "weights", "shares"),
    [
        (100, [1, 1, 1], [34, 33, 33]),  # of equal remainders, the first has the unit
        (101, [1, 1, 1], [34, 34, 33]),
        (2, [1, 1, 1], [1, 1, 0]),
        (1, [1, 2, 3], [0, 0, 1]),
        (10, [333, 333, 334], [3, 3, 4]),
        (0, [5, 5], [0, 0]),
        (10, [0, 7, 0], [0, 10, 0]),
        (7, [7], [7]),
        (LARGEST, [LARGEST - 1, 1], [LARGEST - 1, 1]),
        (3, [LARGEST, LARGEST], [2, 1]),
    ],
)
def test_the_largest_remainder_has_what_is_left(amount: int, weights: list[int], shares: list[int]) -> None:
    assert divide(amount, weights) == shares


def test_shares_that_are_each_rounded_do_not_sum_to_the_amount() -> None:
    """The broken twin rounds each share on its own."""
    assert sum(round(100 * weight / 3) for weight in (1, 1, 1)) != 100
    assert sum(100 * weight // 3 for weight in (1, 1, 1)) != 100


@given(WEIGHTS, st.data())
def test_the_fees_of_refunds_by_part_come_to_the_fees_that_were_charged(
    weights: list[int], data: st.DataObject
) -> None:
    amounts = [weight for weight in weights if weight]
    fees = [data.draw(st.integers(0, amount)) for amount in amounts]
    left, fees_left = list(amounts), list(fees)
    for last in (False, False, True):
        amount = sum(left) if last else data.draw(st.integers(0, sum(left)))
        for i, share in enumerate(divide(amount, left) if any(left) else []):
            returned = part_of(fees_left[i], left[i], share)
            assert 0 <= returned <= share
            left[i], fees_left[i] = left[i] - share, fees_left[i] - returned
    assert (sum(left), sum(fees_left)) == (0, 0)


# --- Parts of an order ---


def an_order_of(*parts: SplitPart) -> Order:
    return split.with_parts(an_order(Kind.SPLIT_PAYMENT), list(parts))


def test_an_order_has_the_sums_of_its_parts() -> None:
    order = an_order_of(SplitPart("a", 100, 10, 3, 5, 2), SplitPart("b", 50, 5, 1, 2, 1))
    assert (order.amount, order.fee, order.tax, order.set_off, order.to_receivable) == (150, 15, 4, 7, 3)
    own = split.of_merchant(order, "b")
    assert own is not None
    assert (own.amount, own.fee, own.tax, own.set_off, own.to_receivable) == (50, 5, 1, 2, 1)
    assert [part.merchant for part in own.parts or ()] == ["b"]
    assert split.of_merchant(order, PLATFORM) is None
    assert split.merchants_of(order) == ["a", "b"]


def test_set_offs_and_debts_are_set_by_merchant_and_cleared_together() -> None:
    order = an_order_of(SplitPart("a", 100), SplitPart("b", 50))
    split.set_off(order, {"b": 20, "other": 5})
    assert [part.set_off for part in order.parts or ()] == [0, 20]
    assert order.set_off == 20
    split.owe(order, {"a": 130, "b": 10})
    assert [part.to_receivable for part in order.parts or ()] == [0, 40]
    assert order.to_receivable == 40
    split.clear(order)
    assert (order.set_off, order.to_receivable) == (0, 0)
    assert [(part.set_off, part.to_receivable) for part in order.parts or ()] == [(0, 0), (0, 0)]


# --- Parts of a request ---

PARTS = [{"merchant": "a", "amount": 60}, {"merchant": "b", "amount": 40}]
SPLIT_PAYMENT = {"order_no": "1", "amount": 100, "currency": "CNY", "channel": "c", "parts": PARTS}


def part(merchant: str = "b", amount: int = 40, **more: Any) -> dict[str, Any]:
    return {"merchant": merchant, "amount": amount, **more}


@pytest.mark.parametrize(
    "changed",
    [
        {"parts": []},
        {"parts": PARTS[:1], "amount": 60},
        {"parts": [part(f"m{i}", 1) for i in range(PARTS_MAX + 1)], "amount": PARTS_MAX + 1},
        {"amount": 99},
        {"amount": 101},
        {"parts": [part("a", 60), part("a", 40)]},
        {"parts": [part("a", 100), part("b", 0)]},
        {"parts": [part("a", 140), part("b", -40)]},
        {"parts": [part("a", 60), part("b", 40, commission=41)]},
        {"parts": [part("a", 60), part("b", 40, commission=-1)]},
        {"parts": [part("a", LARGEST), part("b", 1)], "amount": LARGEST},
        {"parts": [part("a", LARGEST), part("b", LARGEST)], "amount": LARGEST + LARGEST},
    ],
    ids=str,
)
def test_parts_that_are_no_division_of_the_amount_are_no_request(changed: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**SPLIT_PAYMENT, **changed}, REQUESTS[Kind.SPLIT_PAYMENT])


@pytest.mark.parametrize(
    "changed",
    [
        {"parts": [part("a", 60, commission=0), part("b", 40, commission=40)]},
        {"parts": [part(f"m{i}", 5) for i in range(PARTS_MAX)]},
        {"parts": [part("a", LARGEST - 1), part("b", 1)], "amount": LARGEST},
    ],
    ids=["commissions", "twenty parts", "largest"],
)
def test_parts_that_divide_the_amount_are_a_request(changed: dict[str, Any]) -> None:
    found = msgspec.convert({**SPLIT_PAYMENT, **changed}, REQUESTS[Kind.SPLIT_PAYMENT])
    assert found.whose == PLATFORM
