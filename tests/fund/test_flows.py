"""Flows: the entries that the account service receives for each kind of order, one row for each flow."""

from typing import get_args

import pytest

from fundledger.fund.model import flows
from fundledger.fund.model.flows import Entry, end_entries_of, end_voucher_type, entries_of, net_of, voucher_type
from fundledger.fund.model.order import (
    PLATFORM,
    REFUND_FORMAT,
    SENDING,
    Kind,
    Order,
    SplitPart,
    has_end,
)
from fundledger.fund.model.requests import Reversal
from tests.support.flow_orders import C, D, an_order, reversal_of, split

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
        an_order(Kind.REFUND, fee=2, from_pending=600, fee_waived=4, currency="USD", voucher_format=REFUND_FORMAT),
        "refund",
        [
            *(("merchant:m:pending", D, 600), ("merchant:m:available", D, 398)),
            *(("income:fee:USD", D, 2), ("transit:refund:c:USD", C, 1000)),
        ],
    ),
    (
        an_order(Kind.PAYOUT_RETURN),
        "payout_return",
        [("bank:c", D, 1000), ("merchant:m:available", C, 1000)],
    ),
    (
        an_order(Kind.PAYOUT_RETURN, fee=3, set_off=400),
        "payout_return",
        [
            *(("bank:c", D, 1000), ("income:fee", D, 3)),
            *(("merchant:m:available", C, 603), ("merchant:m:receivable", C, 400)),
        ],
    ),
    (
        an_order(Kind.PAYOUT_RETURN, fee=3, set_off=1003),
        "payout_return",
        [("bank:c", D, 1000), ("income:fee", D, 3), ("merchant:m:receivable", C, 1003)],
    ),
    (
        an_order(Kind.PAYOUT_RETURN, fee=3, parking="park", currency="USD"),
        "park",
        [("bank:c:USD", D, 1000), ("suspense:parked:USD", C, 1000)],
    ),
    (
        an_order(Kind.PAYOUT_RETURN, fee=3, parking="release"),
        "payout_return",
        [("suspense:parked", D, 1000), ("income:fee", D, 3), ("merchant:m:available", C, 1003)],
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
        an_order(Kind.ADJUSTMENT, channel=None, direction="credit", against="over", set_off=300),
        "adjustment",
        [("suspense:over", D, 1000), ("merchant:m:available", C, 700), ("merchant:m:receivable", C, 300)],
    ),
    (
        an_order(Kind.ADJUSTMENT, channel=None, direction="credit", against="short"),
        "adjustment",
        [("suspense:short", D, 1000), ("merchant:m:available", C, 1000)],
    ),
    (
        an_order(Kind.ADJUSTMENT, channel=None, direction="debit", against="short"),
        "adjustment",
        [("merchant:m:available", D, 1000), ("suspense:short", C, 1000)],
    ),
    (
        an_order(Kind.OWN_TRANSFER, counterparty="a", currency="USD"),
        "own_transfer",
        [("transit:bank:USD", D, 1000), ("bank:a:USD", C, 1000)],
    ),
    (
        an_order(Kind.OWN_FUNDS, direction="in"),
        "own_funds",
        [("bank:c", D, 1000), ("equity:own", C, 1000)],
    ),
    (
        an_order(Kind.OWN_FUNDS, direction="out", counterparty="c", currency="JPY"),
        "own_funds",
        [("equity:own:JPY", D, 1000), ("bank:c:JPY", C, 1000)],
    ),
    (an_order(Kind.FEE_SWEEP), "fee_sweep", [("equity:own", D, 1000), ("bank:c", C, 1000)]),
    (an_order(Kind.PAYABLE_PAYMENT), "payable_payment", [("payable:c", D, 1000), ("bank:c", C, 1000)]),
    (
        an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="more", against="merchant", set_off=1000),
        "suspense_clearing",
        [("suspense:over", D, 1000), ("merchant:m:receivable", C, 1000)],
    ),
    (
        an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="more", against="income", currency="USD"),
        "suspense_clearing",
        [("suspense:over:USD", D, 1000), ("income:other:USD", C, 1000)],
    ),
    (
        an_order(Kind.SUSPENSE_CLEARING, direction="more", against="bank"),
        "suspense_clearing",
        [("suspense:over", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="more", against="short"),
        "suspense_clearing",
        [("suspense:over", D, 1000), ("suspense:short", C, 1000)],
    ),
    (
        an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="less", against="merchant"),
        "suspense_clearing",
        [("merchant:m:available", D, 1000), ("suspense:short", C, 1000)],
    ),
    (
        an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="less", against="loss"),
        "suspense_clearing",
        [("expense:loss", D, 1000), ("suspense:short", C, 1000)],
    ),
    (
        an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="less", against="channel"),
        "suspense_clearing",
        [("expense:channel", D, 1000), ("suspense:short", C, 1000)],
    ),
    (
        an_order(Kind.PARKED_CLEARING, direction="in", against="merchant", set_off=200),
        "parked_clearing",
        [("suspense:parked", D, 1000), ("merchant:m:available", C, 800), ("merchant:m:receivable", C, 200)],
    ),
    (
        an_order(Kind.PARKED_CLEARING, direction="in", against="income"),
        "parked_clearing",
        [("suspense:parked", D, 1000), ("income:other", C, 1000)],
    ),
    (
        an_order(Kind.PARKED_CLEARING, direction="in", against="bank", currency="USD"),
        "parked_clearing",
        [("suspense:parked:USD", D, 1000), ("bank:c:USD", C, 1000)],
    ),
    (
        an_order(Kind.PARKED_CLEARING, direction="out", against="merchant"),
        "parked_clearing",
        [("merchant:m:available", D, 1000), ("suspense:parked", C, 1000)],
    ),
    (
        an_order(Kind.PARKED_CLEARING, direction="out", against="loss"),
        "parked_clearing",
        [("expense:loss", D, 1000), ("suspense:parked", C, 1000)],
    ),
    (
        an_order(Kind.TOP_UP, fee=6, set_off=4),
        "top_up",
        [
            *(("bank:c", D, 1000), ("merchant:m:available", C, 990)),
            *(("merchant:m:receivable", C, 4), ("income:fee", C, 6)),
        ],
    ),
    (
        an_order(Kind.TOP_UP, fee=6, parking="park"),
        "park",
        [("bank:c", D, 1000), ("suspense:parked", C, 1000)],
    ),
    (
        an_order(Kind.TOP_UP, fee=6, parking="release"),
        "top_up",
        [("suspense:parked", D, 1000), ("merchant:m:available", C, 994), ("income:fee", C, 6)],
    ),
    (
        an_order(Kind.TRANSFER, channel=None, counterparty="n", set_off=50, counter_set_off=300),
        "transfer",
        [
            *(("merchant:m:available", D, 1050), ("merchant:m:receivable", C, 50)),
            *(("merchant:n:available", C, 700), ("merchant:n:receivable", C, 300)),
        ],
    ),
    (
        an_order(Kind.RESERVE_HOLD, channel=None),
        "reserve_hold",
        [("merchant:m:available", D, 1000), ("merchant:m:reserve", C, 1000)],
    ),
    (
        an_order(Kind.RESERVE_RELEASE, channel=None, set_off=10),
        "reserve_release",
        [("merchant:m:reserve", D, 1000), ("merchant:m:available", C, 990), ("merchant:m:receivable", C, 10)],
    ),
    (
        an_order(Kind.DISPUTE, from_pending=300, to_receivable=100),
        "dispute",
        [
            *(("merchant:m:pending", D, 300), ("merchant:m:available", D, 600)),
            *(("merchant:m:receivable", D, 100), ("merchant:m:disputed", C, 1000)),
        ],
    ),
    (
        an_order(Kind.DISPUTE_WON, set_off=400, from_pending=300),
        "dispute_won",
        [("bank:c", D, 1000), ("merchant:m:available", C, 600), ("merchant:m:receivable", C, 400)],
    ),
    (
        an_order(Kind.DISPUTE_FEE, to_receivable=1000),
        "dispute_fee",
        [("merchant:m:receivable", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.DISPUTE_FEE, to_receivable=1, against="payable", currency="USD"),
        "dispute_fee",
        [("merchant:m:available", D, 999), ("merchant:m:receivable", D, 1), ("payable:c:USD", C, 1000)],
    ),
    (
        an_order(Kind.DISPUTE_FEE, against="payable", parking="park"),
        "park",
        [("suspense:parked", D, 1000), ("payable:c", C, 1000)],
    ),
    (
        an_order(Kind.DISPUTE_FEE, against="payable", parking="release"),
        "dispute_fee",
        [("merchant:m:available", D, 1000), ("suspense:parked", C, 1000)],
    ),
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
            *(("tax:output", D, 2), ("transit:refund:c", C, 1000)),
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
        [("expense:channel:USD", D, 1000), ("payable:c:USD", C, 1000)],
    ),
    (
        an_order(Kind.PAYABLE_PAYMENT, against="tax", currency="USD"),
        "payable_payment",
        [("tax:output:USD", D, 1000), ("bank:c:USD", C, 1000)],
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
    assert end_voucher_type(Kind.WITHDRAWAL, ending) == type_
    assert end_entries_of(an_order(Kind.WITHDRAWAL, fee=fee), ending) == [Entry(*entry) for entry in entries]


ENDS_OF_REFUNDS = [
    ({}, "paid", "refund_paid", [("transit:refund:c", D, 1000), ("bank:c", C, 1000)]),
    ({"fee": 6}, "paid", "refund_paid", [("transit:refund:c", D, 1000), ("bank:c", C, 1000)]),
    ({}, "bounced", "refund_bounced", [("transit:refund:c", D, 1000), ("merchant:m:available", C, 1000)]),
    (
        {"fee": 2, "from_pending": 600, "fee_waived": 4},
        "bounced",
        "refund_bounced",
        [
            *(("transit:refund:c", D, 1000), ("income:fee", C, 2)),
            *(("merchant:m:pending", C, 600), ("merchant:m:available", C, 398)),
        ],
    ),
    (
        {"fee": 6, "end_set_off": 994},
        "bounced",
        "refund_bounced",
        [("transit:refund:c", D, 1000), ("income:fee", C, 6), ("merchant:m:receivable", C, 994)],
    ),
    (
        {"from_pending": 1000},
        "bounced",
        "refund_bounced",
        [("transit:refund:c", D, 1000), ("merchant:m:pending", C, 1000)],
    ),
]


@pytest.mark.parametrize(("more", "ending", "type_", "entries"), ENDS_OF_REFUNDS)
def test_the_end_of_a_refund_moves(more: dict, ending: flows.Ending, type_: str, entries: list):
    refund = an_order(Kind.REFUND, voucher_format=REFUND_FORMAT, **more)
    assert end_voucher_type(Kind.REFUND, ending) == type_
    assert end_entries_of(refund, ending) == [Entry(*entry) for entry in entries]


@pytest.mark.parametrize(
    "order",
    [
        an_order(Kind.PAYMENT, settle="now"),
        an_order(Kind.REFUND),
        an_order(Kind.REFUND, voucher_format=2),
        an_order(Kind.PAYOUT_RETURN, voucher_format=REFUND_FORMAT),
    ],
)
def test_an_order_without_an_end_has_no_end_voucher(order: Order):
    assert not has_end(order)
    with pytest.raises(AssertionError):
        end_entries_of(order, "paid")


def test_an_order_has_an_end_if_its_kind_has_end_vouchers():
    ending = {kind for kind, _ in flows.END_VOUCHER_TYPES}
    assert {kind for kind in Kind if has_end(an_order(kind, voucher_format=REFUND_FORMAT))} == ending
    assert set(SENDING) < ending


OTHER_ENDS = [
    (
        split(Kind.SPLIT_REFUND, SplitPart("a", 700, 7, 2), SplitPart("b", 300), voucher_format=REFUND_FORMAT),
        *("paid", "split_refund_paid"),
        [("transit:refund:c", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        split(
            Kind.SPLIT_REFUND,
            SplitPart("a", 700, 7, 2, end_set_off=100),
            SplitPart("b", 300, end_set_off=300),
            voucher_format=REFUND_FORMAT,
        ),
        *("bounced", "split_refund_bounced"),
        [
            *(("transit:refund:c", D, 1000), ("income:fee", C, 5), ("tax:output", C, 2)),
            *(("merchant:a:available", C, 593), ("merchant:a:receivable", C, 100), ("merchant:b:receivable", C, 300)),
        ],
    ),
    (
        an_order(Kind.OWN_TRANSFER, counterparty="a"),
        *("paid", "own_transfer_paid"),
        [("bank:c", D, 1000), ("transit:bank", C, 1000)],
    ),
    (
        an_order(Kind.OWN_TRANSFER, counterparty="a", currency="USD"),
        *("bounced", "own_transfer_bounced"),
        [("bank:a:USD", D, 1000), ("transit:bank:USD", C, 1000)],
    ),
    (
        an_order(Kind.DISPUTE, from_pending=300, to_receivable=100),
        *("lost", "dispute_lost"),
        [("merchant:m:disputed", D, 1000), ("bank:c", C, 1000)],
    ),
    (
        an_order(Kind.DISPUTE, from_pending=300, to_receivable=100, end_set_off=50),
        *("won", "dispute_released"),
        [
            *(("merchant:m:disputed", D, 1000), ("merchant:m:pending", C, 300)),
            *(("merchant:m:available", C, 650), ("merchant:m:receivable", C, 50)),
        ],
    ),
]


@pytest.mark.parametrize(("order", "ending", "type_", "entries"), OTHER_ENDS)
def test_the_end_of_any_other_order_moves(order: Order, ending: flows.Ending, type_: str, entries: list):
    assert end_voucher_type(order.kind, ending) == type_
    assert end_entries_of(order, ending) == [Entry(*entry) for entry in entries]


def test_every_end_is_tried():
    tried = {(Kind.WITHDRAWAL, ending) for _, ending, *_ in ENDS} | {(order.kind, end) for order, end, *_ in OTHER_ENDS}
    tried |= {(Kind.REFUND, ending) for _, ending, *_ in ENDS_OF_REFUNDS}
    assert tried == set(flows.END_VOUCHER_TYPES)


@pytest.mark.parametrize(
    ("order", "net"),
    [
        (an_order(Kind.PAYMENT, fee=6, settle="now"), 994),
        (an_order(Kind.PAYMENT, fee=6, settle="later"), 1000),
        (an_order(Kind.SETTLEMENT, fee=6, channel=None), -6),
        (an_order(Kind.REFUND, fee=3, from_pending=400, fee_waived=2), -997),
        (an_order(Kind.REFUND, fee=3, from_pending=400, fee_waived=2, voucher_format=REFUND_FORMAT), -997),
        (an_order(Kind.WITHDRAWAL, fee=5), -1005),
        (an_order(Kind.PAYOUT_RETURN, fee=5, set_off=300), 1005),
        (an_order(Kind.CHARGEBACK, to_receivable=400), -1000),
        (an_order(Kind.RECOVERY, channel=None), 0),
        (an_order(Kind.WRITE_OFF, channel=None), 1000),
        (an_order(Kind.ADJUSTMENT, channel=None, direction="credit"), 1000),
        (an_order(Kind.ADJUSTMENT, channel=None, direction="debit"), -1000),
        (an_order(Kind.CHANNEL_COST, merchant=PLATFORM), 0),
        (an_order(Kind.BANK_DIFFERENCE, direction="less"), 0),
        (an_order(Kind.OWN_TRANSFER, counterparty="a"), 0),
        (an_order(Kind.OWN_FUNDS, direction="in"), 0),
        (an_order(Kind.FEE_SWEEP), 0),
        (an_order(Kind.PAYABLE_PAYMENT), 0),
        (an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="more", against="merchant", set_off=9), 1000),
        (an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="less", against="merchant"), -1000),
        (an_order(Kind.SUSPENSE_CLEARING, channel=None, direction="less", against="loss"), 0),
        (an_order(Kind.PARKED_CLEARING, direction="in", against="merchant"), 1000),
        (an_order(Kind.PARKED_CLEARING, direction="out", against="merchant"), -1000),
        (an_order(Kind.PARKED_CLEARING, direction="in", against="bank"), 0),
        (an_order(Kind.TOP_UP, fee=6), 994),
        (an_order(Kind.TRANSFER, channel=None, counterparty="n", set_off=5, counter_set_off=7), -1000),
        (an_order(Kind.RESERVE_HOLD, channel=None), -1000),
        (an_order(Kind.RESERVE_RELEASE, channel=None, set_off=5), 1000),
        (an_order(Kind.DISPUTE, from_pending=300, to_receivable=100), -1000),
        (an_order(Kind.DISPUTE_WON, set_off=5), 1000),
        (an_order(Kind.DISPUTE_FEE, to_receivable=5), -1000),
        (split(Kind.SPLIT_PAYMENT, SplitPart("a", 700, 7, 2, 100), SplitPart("b", 300, 5)), 988),
        (split(Kind.SPLIT_REFUND, SplitPart("a", 700, 7, 2), SplitPart("b", 300)), -993),
        (split(Kind.SPLIT_CHARGEBACK, SplitPart("a", 700, to_receivable=200)), -700),
        (an_order(Kind.CHANNEL_INVOICE), 0),
    ],
    ids=lambda value: str(value.kind) if isinstance(value, Order) else "",
)
def test_net_is_positive_if_the_merchant_has_more(order: Order, net: int):
    assert net_of(order) == net
    if order.kind in get_args(Reversal.__annotations__["of_kind"]):
        assert net_of(reversal_of(order)) == -net


@pytest.mark.parametrize(
    ("order", "kind"),
    [
        (an_order(Kind.PAYMENT, settle="later"), Kind.PAYMENT),
        (an_order(Kind.PAYOUT_RETURN), Kind.PAYOUT_RETURN),
        (an_order(Kind.CHANNEL_COST, merchant=PLATFORM), Kind.CHANNEL_COST),
        (an_order(Kind.ADJUSTMENT, channel=None, direction="credit"), Kind.ADJUSTMENT),
        (an_order(Kind.BANK_DIFFERENCE, direction="more"), Kind.BANK_DIFFERENCE),
    ],
)
def test_a_reversal_of_an_earlier_version_does_not_name_the_kind(order: Order, kind: Kind) -> None:
    reversal = reversal_of(order)
    reversal.of_kind = None
    assert flows.reversed_kind(reversal) is kind


def test_every_kind_has_a_reversal_or_another_way_back() -> None:
    assert set(get_args(Reversal.__annotations__["of_kind"])) == set(Kind) - {
        # The other direction.
        *(Kind.TRANSFER, Kind.RESERVE_HOLD, Kind.RESERVE_RELEASE),
        # The end that brings the money back.
        *{kind for kind, _ in flows.END_VOUCHER_TYPES},
        # A won dispute, or another chargeback.
        *(Kind.CHARGEBACK, Kind.DISPUTE_WON),
        # The order itself, once more.
        Kind.REVERSAL,
    }


@pytest.mark.parametrize(
    "order",
    [
        an_order(Kind.PAYMENT, fee=1001),
        an_order(Kind.REFUND, fee=401, from_pending=600),
        an_order(Kind.PAYMENT, channel=None),
        an_order(Kind.ADJUSTMENT, direction="more"),
        an_order(Kind.ADJUSTMENT, direction="credit", against="bank"),
        an_order(Kind.OWN_TRANSFER),
        an_order(Kind.OWN_FUNDS, direction="more"),
        an_order(Kind.SUSPENSE_CLEARING, direction="more", against="payable"),
        an_order(Kind.PARKED_CLEARING, direction="in"),
        an_order(Kind.TRANSFER, counterparty="n", counter_set_off=1001),
        an_order(Kind.DISPUTE, from_pending=600, to_receivable=401),
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
