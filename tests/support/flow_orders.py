"""Orders of each kind for tests of flows: given ones, and random ones that the rules of the fund service accept."""

import operator
from datetime import UTC, datetime

import msgspec
from hypothesis import strategies as st

from fundledger.fund.model.order import CHARGING, REFUND_FORMAT, SPLITS, Kind, Order, SplitPart, State
from fundledger.fund.model.own_requests import AGAINST_OVERAGE, AGAINST_SHORTAGE, PARKED_IN, PARKED_OUT
from fundledger.fund.model.split import with_parts
from tests.support.fund_ids import order_id, voucher_id

D, C = "debit", "credit"


def an_order(kind: Kind, amount: int = 1000, fee: int = 0, currency: str = "CNY", channel: str | None = "c", **more):
    merchant = more.pop("merchant", "m")
    id_ = order_id(kind, merchant, "1")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Order(
        id_,
        kind,
        merchant,
        "1",
        State.POSTING,
        amount,
        fee,
        currency,
        b"",
        voucher_id(id_),
        "front",
        at,
        channel=channel,
        **more,
    )


def split(kind: Kind, *parts: SplitPart, **more):
    """Return a split order with these parts."""
    return with_parts(an_order(kind, **more), list(parts))


def reversal_of(order: Order) -> Order:
    """Return the reversal of an order, with the members that `reverse` of fund/store/decisions.py copies."""
    more = {"settle": order.settle, "direction": order.direction, "against": order.against, "of_kind": order.kind}
    terms = order.amount, order.fee, order.currency, order.channel
    parts = [msgspec.structs.replace(part, set_off=0, to_receivable=part.set_off) for part in order.parts or ()]
    more |= {"tax": order.tax, "parts": parts or None, "to_receivable": order.set_off}
    return an_order(Kind.REVERSAL, *terms, merchant=order.merchant, **more)


DIRECTIONS = {
    Kind.ADJUSTMENT: ["credit", "debit"],
    Kind.OWN_FUNDS: ["in", "out"],
    Kind.PARKED_CLEARING: ["in", "out"],
}
AGAINST = {
    (Kind.ADJUSTMENT, None): [None, "over", "short"],
    (Kind.SUSPENSE_CLEARING, "more"): sorted(AGAINST_OVERAGE),
    (Kind.SUSPENSE_CLEARING, "less"): sorted(AGAINST_SHORTAGE),
    (Kind.PARKED_CLEARING, "in"): sorted(PARKED_IN),
    (Kind.PARKED_CLEARING, "out"): sorted(PARKED_OUT),
    (Kind.DISPUTE_FEE, None): [None, "payable"],
    (Kind.PAYABLE_PAYMENT, None): [None, "tax"],
}

MERCHANT = operator.attrgetter("merchant")


@st.composite
def parts(draw: st.DrawFn, kind: Kind) -> SplitPart:
    """Draw a part of a split order that the rules of the fund service accept."""
    amount = draw(st.integers(1, 2**53 // 20))
    part = SplitPart(draw(st.text("abcm", min_size=1, max_size=4)), amount)
    if kind is Kind.SPLIT_CHARGEBACK:
        part.to_receivable = draw(st.integers(0, amount))
    else:
        part.fee = draw(st.integers(0, amount))
        part.tax = draw(st.integers(0, part.fee))
        part.set_off = draw(st.integers(0, amount - part.fee)) if kind is Kind.SPLIT_PAYMENT else 0
    return part


@st.composite
def orders(draw: st.DrawFn, *kinds: Kind) -> Order:
    """Draw an order that the rules of the fund service accept, of one of these kinds or of any kind."""
    kind = draw(st.sampled_from(kinds or [kind for kind in Kind if kind is not Kind.REVERSAL]))
    if kind in SPLITS:
        return with_parts(an_order(kind), draw(st.lists(parts(kind), min_size=2, max_size=20, unique_by=MERCHANT)))
    amount = draw(st.integers(1, 2**53 - 1))
    from_pending = draw(st.integers(0, amount)) if kind in {Kind.REFUND, Kind.DISPUTE} else 0
    with_fee = kind in {
        *(Kind.PAYMENT, Kind.SETTLEMENT, Kind.REFUND, Kind.WITHDRAWAL, Kind.TOP_UP, Kind.PAYOUT_RETURN),
    }
    fee = draw(st.integers(0, amount - from_pending)) if with_fee else 0
    direction = draw(st.sampled_from(DIRECTIONS.get(kind, ["more", "less"])))
    against = AGAINST.get((kind, direction), AGAINST.get((kind, None), [None]))
    return an_order(
        kind,
        amount,
        fee,
        draw(st.sampled_from(["CNY", "USD"])),
        settle=draw(st.sampled_from(["now", "later"])) if kind is Kind.PAYMENT else None,
        tax=draw(st.integers(0, fee)),
        from_pending=from_pending,
        voucher_format=draw(st.sampled_from([2, REFUND_FORMAT])) if kind is Kind.REFUND else 2,
        to_receivable=draw(st.integers(0, amount - from_pending)) if kind in CHARGING else 0,
        direction=direction,
        against=draw(st.sampled_from(against)),
        counterparty="other" if kind in {Kind.TRANSFER, Kind.OWN_TRANSFER} else None,
        counter_set_off=draw(st.integers(0, amount)) if kind is Kind.TRANSFER else 0,
    )
