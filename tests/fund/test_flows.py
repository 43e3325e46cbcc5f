"""Flows: the entries that the account service receives for each kind of order, one row for each flow."""

import operator
from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundledger.fund.model import flows
from fundledger.fund.model.flows import Entry, end_entries_of, end_voucher_type, entries_of, net_of, voucher_type
from fundledger.fund.model.order import SPLITS, Kind, Order, SplitPart, State
from fundledger.fund.model.requests import Reversal
from fundledger.fund.model.split import of_merchant, with_parts
from tests.support.fund_ids import order_id, voucher_id

D, C = "debit", "credit"


def an_order(kind: Kind, amount: int = 1000, fee: int = 0, currency: str = "CNY", channel: str | None = "c", **more):
    id_ = order_id(kind, "m", "1")
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Order(
        id_,
        kind,
        "m",
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


FLOWS = [
    (
        an_order(Kind.PAYMENT, fee=6, settle="now"),
        "pay",
        [("bank:c", D, 1000), ("merchant:m:available", C, 994), ("income:fee", C, 6)],
    ),
    (
        an_order(Kind.PAYMENT, settle="now"),
        "pay",
        [("bank:c", D, 1000), ("merchant:m:available", C, 1000)],
    ),
    (
        an_order(Kind.PAYMENT, fee=1000, settle="now"),
        "pay",
        [("bank:c", D, 1000), ("income:fee", C, 1000)],
    ),
    (
        an_order(Kind.PAYMENT, fee=6, settle="now", currency="USD"),
        "pay",
        [("bank:c:USD", D, 1000), ("merchant:m:available", C, 994), ("income:fee:USD", C, 6)],
    ),
    (
        an_order(Kind.PAYMENT, fee=6, settle="later"),
        "pay",
        [("bank:c", D, 1000), ("merchant:m:pending", C, 1000)],
    ),
    (
        an_order(Kind.PAYMENT, fee=6, settle="now", set_off=40),
        "pay",
        [
            *(("bank:c", D, 1000), ("merchant:m:available", C, 954)),
            *(("merchant:m:receivable", C, 40), ("income:fee", C, 6)),
        ],
    ),
    (
        an_order(Kind.PAYMENT, fee=6, settle="now", parking="park", currency="USD"),
        "park",
        [("bank:c:USD", D, 1000), ("suspense:parked:USD", C, 1000)],
    ),
    (
        an_order(Kind.PAYMENT, fee=6, settle="now", parking="release", set_off=994),
        "pay",
        [("suspense:parked", D, 1000), ("merchant:m:receivable", C, 994), ("income:fee", C, 6)],
    ),
    (
        an_order(Kind.CHARGEBACK, from_pending=300, to_receivable=100),
        "chargeback",
        [
            *(("merchant:m:pending", D, 300), ("merchant:m:available", D, 600)),
            *(("merchant:m:receivable", D, 100), ("bank:c", C, 1000)),
        ],
    ),
    (
        an_order(Kind.CHARGEBACK, from_pending=300, parking="park"),
        "park",
        [("suspense:parked", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.CHARGEBACK, to_receivable=1000, parking="release"),
        "chargeback",
        [("merchant:m:receivable", D, 1000), ("suspense:parked", C, 1000)],
    ),
    (
        an_order(Kind.SETTLEMENT, fee=6, channel=None, set_off=900),
        "settle",
        [
            *(("merchant:m:pending", D, 1000), ("merchant:m:available", C, 94)),
            *(("merchant:m:receivable", C, 900), ("income:fee", C, 6)),
        ],
    ),
    (
        an_order(Kind.WITHDRAWAL, fee=3, set_off=50),
        "withdraw",
        [
            *(("merchant:m:available", D, 1053), ("transit:payout:c", C, 1000)),
            *(("income:fee", C, 3), ("merchant:m:receivable", C, 50)),
        ],
    ),
    (
        an_order(Kind.ADJUSTMENT, channel=None, direction="credit", set_off=300),
        "adjustment",
        [("suspense:short", D, 1000), ("merchant:m:available", C, 700), ("merchant:m:receivable", C, 300)],
    ),
    (
        an_order(Kind.SETTLEMENT, fee=6, channel=None),
        "settle",
        [("merchant:m:pending", D, 1000), ("merchant:m:available", C, 994), ("income:fee", C, 6)],
    ),
    (
        an_order(Kind.REFUND, fee=6),
        "refund",
        [("merchant:m:available", D, 994), ("income:fee", D, 6), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.REFUND, from_pending=1000, fee_waived=6),
        "refund",
        [("merchant:m:pending", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.REFUND, fee=2, from_pending=600, fee_waived=4),
        "refund",
        [("merchant:m:pending", D, 600), ("merchant:m:available", D, 398), ("income:fee", D, 2), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.REFUND, fee=1000),
        "refund",
        [("income:fee", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.WITHDRAWAL, fee=50),
        "withdraw",
        [("merchant:m:available", D, 1050), ("transit:payout:c", C, 1000), ("income:fee", C, 50)],
    ),
    (
        an_order(Kind.WITHDRAWAL),
        "withdraw",
        [("merchant:m:available", D, 1000), ("transit:payout:c", C, 1000)],
    ),
    (
        an_order(Kind.CHARGEBACK),
        "chargeback",
        [("merchant:m:available", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.CHARGEBACK, to_receivable=300),
        "chargeback",
        [("merchant:m:available", D, 700), ("merchant:m:receivable", D, 300), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.CHARGEBACK, to_receivable=1000),
        "chargeback",
        [("merchant:m:receivable", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.RECOVERY, channel=None),
        "recovery",
        [("merchant:m:available", D, 1000), ("merchant:m:receivable", C, 1000)],
    ),
    (
        an_order(Kind.WRITE_OFF, channel=None),
        "write_off",
        [("expense:loss", D, 1000), ("merchant:m:receivable", C, 1000)],
    ),
    (
        an_order(Kind.ADJUSTMENT, channel=None, direction="credit"),
        "adjustment",
        [("suspense:short", D, 1000), ("merchant:m:available", C, 1000)],
    ),
    (
        an_order(Kind.ADJUSTMENT, channel=None, direction="debit"),
        "adjustment",
        [("merchant:m:available", D, 1000), ("suspense:over", C, 1000)],
    ),
    (
        an_order(Kind.CHANNEL_COST),
        "channel_cost",
        [("expense:channel", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.BANK_DIFFERENCE, direction="more"),
        "bank_difference",
        [("bank:c", D, 1000), ("suspense:over", C, 1000)],
    ),
    (
        an_order(Kind.BANK_DIFFERENCE, direction="less"),
        "bank_difference",
        [("suspense:short", D, 1000), ("bank:c", C, 1000)],
    ),
    (an_order(Kind.REVERSAL, channel=None), "reversal", []),
    (
        an_order(Kind.PAYMENT, fee=6, tax=1, settle="now", currency="USD"),
        "pay",
        [
            *(("bank:c:USD", D, 1000), ("merchant:m:available", C, 994)),
            *(("income:fee:USD", C, 5), ("tax:output:USD", C, 1)),
        ],
    ),
    (
        an_order(Kind.SETTLEMENT, fee=6, tax=1, channel=None),
        "settle",
        [
            *(("merchant:m:pending", D, 1000), ("merchant:m:available", C, 994)),
            *(("income:fee", C, 5), ("tax:output", C, 1)),
        ],
    ),
    (
        an_order(Kind.REFUND, fee=6, tax=6),
        "refund",
        [("merchant:m:available", D, 994), ("tax:output", D, 6), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.WITHDRAWAL, fee=3, tax=1),
        "withdraw",
        [
            *(("merchant:m:available", D, 1003), ("transit:payout:c", C, 1000)),
            *(("income:fee", C, 2), ("tax:output", C, 1)),
        ],
    ),
    (
        split(Kind.SPLIT_PAYMENT, SplitPart("a", 700, 7, 2, 100), SplitPart("b", 300, 5)),
        "split_pay",
        [
            *(("bank:c", D, 1000), ("merchant:a:available", C, 593), ("merchant:a:receivable", C, 100)),
            *(("merchant:b:available", C, 295), ("income:fee", C, 10), ("tax:output", C, 2)),
        ],
    ),
    (
        split(Kind.SPLIT_PAYMENT, SplitPart("a", 700, 700), SplitPart("b", 300), parking="park"),
        "park",
        [("bank:c", D, 1000), ("suspense:parked", C, 1000)],
    ),
    (
        split(Kind.SPLIT_PAYMENT, SplitPart("a", 700, 700), SplitPart("b", 300, 0, 0, 300), parking="release"),
        "split_pay",
        [("suspense:parked", D, 1000), ("merchant:b:receivable", C, 300), ("income:fee", C, 700)],
    ),
    (
        split(Kind.SPLIT_REFUND, SplitPart("a", 700, 7, 2), SplitPart("b", 300)),
        "split_refund",
        [
            *(("merchant:a:available", D, 693), ("merchant:b:available", D, 300), ("income:fee", D, 5)),
            *(("tax:output", D, 2), ("bank:c", C, 1000)),
        ],
    ),
    (
        split(Kind.SPLIT_CHARGEBACK, SplitPart("a", 700, to_receivable=200), SplitPart("b", 300, to_receivable=300)),
        "split_chargeback",
        [
            *(("merchant:a:available", D, 500), ("merchant:a:receivable", D, 200)),
            *(("merchant:b:receivable", D, 300), ("bank:c", C, 1000)),
        ],
    ),
    (
        an_order(Kind.CHANNEL_INVOICE, currency="USD"),
        "channel_invoice",
        [("expense:channel:USD", D, 1000), ("payable:channel:c:USD", C, 1000)],
    ),
    (
        an_order(Kind.CHANNEL_INVOICE_PAYMENT),
        "invoice_payment",
        [("payable:channel:c", D, 1000), ("bank:c", C, 1000)],
    ),
]


@pytest.mark.parametrize(("order", "type_", "entries"), FLOWS)
def test_an_order_moves(order: Order, type_: str, entries: list):
    assert voucher_type(order) == type_
    assert entries_of(order) == [Entry(*entry) for entry in entries]


def test_every_kind_of_order_has_its_flow():
    assert {order.kind for order, _, _ in FLOWS} == set(Kind)


ENDS = [
    (50, "paid", "withdraw_paid", [("transit:payout:c", D, 1000), ("bank:c", C, 1000)]),
    (
        50,
        "bounced",
        "withdraw_bounced",
        [("transit:payout:c", D, 1000), ("income:fee", D, 50), ("merchant:m:available", C, 1050)],
    ),
    (0, "bounced", "withdraw_bounced", [("transit:payout:c", D, 1000), ("merchant:m:available", C, 1000)]),
]


@pytest.mark.parametrize(("fee", "ending", "type_", "entries"), ENDS)
def test_the_end_of_a_withdrawal_moves(fee: int, ending: flows.Ending, type_: str, entries: list):
    assert end_voucher_type(ending) == type_
    assert end_entries_of(an_order(Kind.WITHDRAWAL, fee=fee), ending) == [Entry(*entry) for entry in entries]


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
    from_pending = draw(st.integers(0, amount)) if kind is Kind.REFUND else 0
    with_fee = kind in {Kind.PAYMENT, Kind.SETTLEMENT, Kind.REFUND, Kind.WITHDRAWAL}
    fee = draw(st.integers(0, amount - from_pending)) if with_fee else 0
    return an_order(
        kind,
        amount,
        fee,
        draw(st.sampled_from(["CNY", "USD"])),
        settle=draw(st.sampled_from(["now", "later"])) if kind is Kind.PAYMENT else None,
        tax=draw(st.integers(0, fee)),
        from_pending=from_pending,
        to_receivable=draw(st.integers(0, amount)) if kind is Kind.CHARGEBACK else 0,
        direction=draw(st.sampled_from({Kind.ADJUSTMENT: ["credit", "debit"]}.get(kind, ["more", "less"]))),
    )


def assert_well_made(entries: list[Entry]) -> None:
    assert 2 <= len(entries) <= 64
    assert len({entry.account for entry in entries}) == len(entries)
    assert all(entry.amount > 0 for entry in entries)
    assert sum(entry.amount if entry.side == C else -entry.amount for entry in entries) == 0


@given(orders())
def test_entries_are_balanced_and_positive_and_of_each_account_once(order: Order):
    assert_well_made(entries_of(order))
    if order.kind is Kind.WITHDRAWAL:
        assert_well_made(end_entries_of(order, "paid"))
        assert_well_made(end_entries_of(order, "bounced"))


# A debit of the receivable account raises the debt of a merchant, which counts against it.
SIGNS = {C: 1, D: -1}


@given(orders())
def test_net_is_what_the_voucher_moves_on_the_accounts_of_its_merchants(order: Order):
    moved = [SIGNS[e.side] * e.amount for e in entries_of(order) if e.account.startswith("merchant:")]
    assert net_of(order) == sum(moved)
    if order.parts is not None:
        own = [of_merchant(order, part.merchant) for part in order.parts]
        assert sum(net_of(one) for one in own if one is not None) == net_of(order)
        if order.kind is Kind.SPLIT_PAYMENT:
            assert net_of(reversal_of(order)) == -net_of(order)


@given(orders(Kind.SPLIT_PAYMENT))
def test_a_reversal_of_a_split_payment_moves_the_opposite_for_each_merchant(order: Order):
    moved = {account: -amount for account, amount in flows.moved(order).items()}
    assert flows.moved(reversal_of(order)) == moved
    for part in order.parts or ():
        own, reversed_ = of_merchant(order, part.merchant), of_merchant(reversal_of(order), part.merchant)
        assert own is not None
        assert reversed_ is not None
        assert flows.moved(reversed_) == {account: -amount for account, amount in flows.moved(own).items()}
    assert of_merchant(order, "nobody") is None


@pytest.mark.parametrize(
    ("order", "net"),
    [
        (an_order(Kind.PAYMENT, fee=6, settle="now"), 994),
        (an_order(Kind.PAYMENT, fee=6, settle="later"), 1000),
        (an_order(Kind.SETTLEMENT, fee=6, channel=None), -6),
        (an_order(Kind.REFUND, fee=3, from_pending=400, fee_waived=2), -997),
        (an_order(Kind.WITHDRAWAL, fee=5), -1005),
        (an_order(Kind.CHARGEBACK, to_receivable=400), -1000),
        (an_order(Kind.RECOVERY, channel=None), 0),
        (an_order(Kind.WRITE_OFF, channel=None), 1000),
        (an_order(Kind.ADJUSTMENT, channel=None, direction="credit"), 1000),
        (an_order(Kind.ADJUSTMENT, channel=None, direction="debit"), -1000),
        (an_order(Kind.CHANNEL_COST), 0),
        (an_order(Kind.BANK_DIFFERENCE, direction="less"), 0),
        (split(Kind.SPLIT_PAYMENT, SplitPart("a", 700, 7, 2, 100), SplitPart("b", 300, 5)), 988),
        (split(Kind.SPLIT_REFUND, SplitPart("a", 700, 7, 2), SplitPart("b", 300)), -993),
        (split(Kind.SPLIT_CHARGEBACK, SplitPart("a", 700, to_receivable=200)), -700),
        (an_order(Kind.CHANNEL_INVOICE), 0),
        (an_order(Kind.CHANNEL_INVOICE_PAYMENT), 0),
    ],
    ids=lambda value: str(value.kind) if isinstance(value, Order) else "",
)
def test_net_is_positive_if_the_merchant_has_more(order: Order, net: int):
    assert net_of(order) == net
    if order.kind in get_args(Reversal.__annotations__["of_kind"]):
        assert net_of(reversal_of(order)) == -net


def reversal_of(order: Order) -> Order:
    """Return the reversal of an order, with the members that `_reverse` of fund/store/reservations.py copies."""
    more = {"settle": order.settle, "direction": order.direction, "tax": order.tax, "to_receivable": order.set_off}
    parts = [msgspec.structs.replace(part, set_off=0, to_receivable=part.set_off) for part in order.parts or ()]
    more["parts"] = parts or None
    return an_order(Kind.REVERSAL, order.amount, order.fee, order.currency, order.channel, **more)


def test_every_kind_that_can_be_reversed_is_tried() -> None:
    assert set(get_args(Reversal.__annotations__["of_kind"])) == {
        Kind.PAYMENT,
        Kind.CHANNEL_COST,
        Kind.ADJUSTMENT,
        Kind.BANK_DIFFERENCE,
        Kind.SPLIT_PAYMENT,
        Kind.CHANNEL_INVOICE,
        Kind.CHANNEL_INVOICE_PAYMENT,
    }


@given(orders(Kind.WITHDRAWAL))
def test_a_bounced_withdrawal_leaves_everything_as_it_was(order: Order):
    moved: dict[str, int] = {}
    for entry in [*entries_of(order), *end_entries_of(order, "bounced")]:
        moved[entry.account] = moved.get(entry.account, 0) + (entry.amount if entry.side == C else -entry.amount)
    assert set(moved.values()) == {0}


@pytest.mark.parametrize(
    "order",
    [
        an_order(Kind.PAYMENT, fee=1001),
        an_order(Kind.REFUND, fee=401, from_pending=600),
        an_order(Kind.PAYMENT, channel=None),
        an_order(Kind.ADJUSTMENT, direction="more"),
        an_order(Kind.PAYMENT, fee=5, tax=6, settle="now"),
        an_order(Kind.SPLIT_PAYMENT),
        an_order(Kind.SPLIT_PAYMENT, parts=[]),
        an_order(Kind.SPLIT_PAYMENT, parts=[SplitPart("a", 600), SplitPart("b", 300)]),
        an_order(Kind.SPLIT_PAYMENT, parts=[SplitPart("a", 600), SplitPart("a", 400)]),
        an_order(Kind.SPLIT_PAYMENT, parts=[SplitPart("a", 1100), SplitPart("b", -100)]),
        an_order(Kind.SPLIT_PAYMENT, fee=1, parts=[SplitPart("a", 600), SplitPart("b", 400)]),
        an_order(Kind.SPLIT_PAYMENT, set_off=1, parts=[SplitPart("a", 600), SplitPart("b", 400)]),
        split(Kind.SPLIT_PAYMENT, SplitPart("a", 600, 601), SplitPart("b", 400)),
        split(Kind.SPLIT_PAYMENT, SplitPart("a", 600, 1, 0, 600), SplitPart("b", 400)),
    ],
)
def test_an_order_that_no_rule_lets_in_is_a_bug(order: Order):
    with pytest.raises(AssertionError):
        entries_of(order)
