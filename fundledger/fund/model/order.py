"""Model of the fund service: orders, with their kinds, their states, and their former unkeyed ids."""

import hashlib
from datetime import date, datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
from asyncpg.pgproto import pgproto

PLATFORM: Final = "platform"
"""The `merchant` of orders that belong to the platform."""
VOUCHER_FORMAT: Final = 2
"""The voucher format of new orders. In format 1 the reference of a voucher has the order id. In format 2 the metadata
of a voucher has the kind and `order_no` of the order, too. An order keeps its format, because another format would
change the content of posted vouchers.
"""
REFUND_FORMAT: Final = 3
"""The voucher format of new refunds: as format 2, but the voucher credits transit instead of the bank, and the refund
ends with another voucher. A refund of an earlier format has credited the bank, and has no end.
"""


class Kind(StrEnum):
    PAYMENT = "payment"
    REFUND = "refund"
    SETTLEMENT = "settlement"
    WITHDRAWAL = "withdrawal"
    PAYOUT_RETURN = "payout_return"
    CHARGEBACK = "chargeback"
    RECOVERY = "recovery"
    WRITE_OFF = "write_off"
    ADJUSTMENT = "adjustment"
    CHANNEL_COST = "channel_cost"
    BANK_DIFFERENCE = "bank_difference"
    REVERSAL = "reversal"
    OWN_TRANSFER = "own_transfer"
    OWN_FUNDS = "own_funds"
    FEE_SWEEP = "fee_sweep"
    PAYABLE_PAYMENT = "payable_payment"
    SUSPENSE_CLEARING = "suspense_clearing"
    PARKED_CLEARING = "parked_clearing"
    TOP_UP = "top_up"
    TRANSFER = "transfer"
    RESERVE_HOLD = "reserve_hold"
    RESERVE_RELEASE = "reserve_release"
    DISPUTE_WON = "dispute_won"
    DISPUTE_FEE = "dispute_fee"
    DISPUTE = "dispute"
    SPLIT_PAYMENT = "split_payment"
    SPLIT_REFUND = "split_refund"
    SPLIT_CHARGEBACK = "split_chargeback"
    CHANNEL_INVOICE = "channel_invoice"


TAKE_ALL_ATTEMPTS_MAX: Final = 3
"""The maximum number of further attempts to post a withdrawal of all. Each attempt has another amount and voucher."""


RECEIPTS: Final[dict[Kind, str]] = {
    Kind.PAYMENT: "in",
    Kind.WITHDRAWAL: "out",
    Kind.PAYOUT_RETURN: "in",
    Kind.CHARGEBACK: "out",
    Kind.REFUND: "out",
    Kind.CHANNEL_COST: "out",
    Kind.OWN_TRANSFER: "in",
    Kind.OWN_FUNDS: "in",
    Kind.FEE_SWEEP: "out",
    Kind.PAYABLE_PAYMENT: "out",
    Kind.TOP_UP: "in",
    Kind.DISPUTE_WON: "in",
    Kind.DISPUTE_FEE: "out",
    Kind.DISPUTE: "out",
    Kind.SPLIT_PAYMENT: "in",
    Kind.SPLIT_REFUND: "out",
    Kind.SPLIT_CHARGEBACK: "out",
    Kind.CHANNEL_INVOICE: "invoice",
}
"""The direction in which an order moves money at its channel, by kind. A reference of a channel counts once in each
direction. An invoice moves no money: its reference is its number, which counts once, too. The function `fund.receipt`
of the database is a copy of this table. The reference `counter_ref` of an order always has the direction `out`, at the
channel `counterparty`.
"""
SPLITS: Final = frozenset({Kind.SPLIT_PAYMENT, Kind.SPLIT_REFUND, Kind.SPLIT_CHARGEBACK})
"""Kinds of orders that have parts: each part belongs to another merchant. The reversal of a split payment or of a
split chargeback has parts, too.
"""
REFUNDS: Final = frozenset({Kind.REFUND, Kind.SPLIT_REFUND})
"""Kinds of orders whose money goes back to the payer through a channel."""
SENDING: Final = (Kind.WITHDRAWAL, Kind.REFUND, Kind.SPLIT_REFUND)
"""Kinds of orders whose money a channel sends. A refund of an earlier version is not sent: see `has_end`. The ends of
all kinds are in `END_VOUCHER_TYPES` of `flows.py`: own transfers and disputes end, too.
"""


FACTS: Final = frozenset(
    {
        *(Kind.PAYMENT, Kind.CHARGEBACK, Kind.PAYOUT_RETURN, Kind.TOP_UP, Kind.DISPUTE_WON, Kind.DISPUTE_FEE),
        *(Kind.SPLIT_PAYMENT, Kind.SPLIT_CHARGEBACK),
    }
)
"""Kinds of orders that have already happened at the bank. Such an order is parked, not refused."""


CHARGING: Final = frozenset({Kind.CHARGEBACK, Kind.DISPUTE, Kind.DISPUTE_FEE, Kind.SPLIT_CHARGEBACK})
"""Kinds of orders that debit the available balance as far as it reaches. The merchant owes the rest."""


class State(StrEnum):
    """The state of an order. `fund.model.transitions` has the transitions. Only an order of a kind under dual control
    can be `created`, which means that it waits for approval. Only an order that has an end (`has_end`) has further
    steps after `posted`.

    `rejected`: the approval was refused. `expired`: the order was not approved in time. Both are final.

    `stuck`: the next step of the order failed, and a retry cannot succeed until an operator removes the cause. After
    that, a request to retry returns the order to its state before `stuck`.

    `parked`: the accounts of the merchant do not take a fact. Its money is posted to suspense. The order is released,
    which makes it `posting` again, when the accounts are open. A split order is parked as a whole. `cleared`: a parked
    clearing has moved the money of a parked order elsewhere.

    `won`, `lost`: the ends of a dispute.
    """

    CREATED = "created"
    POSTING = "posting"
    POSTED = "posted"
    REFUSED = "refused"
    SENT = "sent"
    PAID = "paid"
    BOUNCED = "bounced"
    UNKNOWN = "unknown"
    STUCK = "stuck"
    PARKED = "parked"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CLEARED = "cleared"
    WON = "won"
    LOST = "lost"


class SplitPart(msgspec.Struct):
    """The part of a split order that belongs to one merchant. `fee` includes `tax`. `set_off`, `to_receivable` and
    `end_set_off` are as in `Order`. `keeps_fee`: refunds do not return the fee.
    """

    merchant: str
    amount: int
    fee: int = 0
    tax: int = 0
    set_off: int = 0
    to_receivable: int = 0
    end_set_off: int = 0
    fee_version: int | None = None
    keeps_fee: bool = False


class Order(msgspec.Struct):
    """A row of fund.orders. The migrations describe the columns. Amounts are in minor units. `module` is the
    requester.
    """

    id: UUID
    kind: Kind
    merchant: str
    order_no: str
    state: State
    amount: int
    fee: int
    currency: str
    digest: bytes
    voucher_id: UUID
    module: str
    created_at: datetime
    channel: str | None = None
    channel_ref: str | None = None
    settle: str | None = None
    of_order: UUID | None = None
    from_pending: int = 0
    to_receivable: int = 0
    fee_waived: int = 0
    fee_version: int | None = None
    direction: str | None = None
    reason: str | None = None
    ticket: str | None = None
    approved_by: str | None = None
    attempt: int = 0
    ending: str | None = None
    reversed_by: UUID | None = None
    problem: bytes | None = None
    posted_at: datetime | None = None
    due_at: datetime | None = None
    seq: int = 0
    stuck_from: str | None = None
    of_voucher: UUID | None = None
    end_voucher_id: UUID | None = None
    mac: bytes | None = None
    mac_key: int | None = None
    voucher_format: int = 1
    layout: int = 2
    set_off: int = 0
    end_set_off: int = 0
    parking: str | None = None
    parked_voucher_id: UUID | None = None
    returned: int = 0
    against: str | None = None
    counterparty: str | None = None
    counter_ref: str | None = None
    counter_set_off: int = 0
    of_kind: str | None = None
    tax: int = 0
    parts: list[SplitPart] | None = None
    period: str | None = None
    settle_on: date | None = None
    takes_all: bool = False
    payee: UUID | None = None


def has_end(order: Order) -> bool:
    """Return whether an order ends with a second voucher after it is posted. A refund of an earlier format does not."""
    if order.kind in REFUNDS:
        return order.voucher_format >= REFUND_FORMAT
    return order.kind in (Kind.WITHDRAWAL, Kind.OWN_TRANSFER, Kind.DISPUTE)


def order_id(kind: str, merchant: str, order_no: str) -> UUID:
    """Return the former id of an order: an unkeyed hash of its kind, merchant and order number. `fund.model.ids` has
    the ids of new orders.
    """
    return _named("order", kind, merchant, order_no)


def voucher_id(order: UUID, step: str = "post", attempt: int = 0) -> UUID:
    """Return the former id of a voucher, for an order with a former id. `fund.model.ids` has the ids of
    new vouchers.
    """
    return _named("voucher", order.hex, step, str(attempt))


def _named(*parts: str) -> UUID:
    # The id is a UUID of version 8 (RFC 9562). It has 122 bits of a SHA-256 over the parts, each preceded by its
    # length.
    digest = hashlib.sha256("".join([f"{len(part)}:{part}" for part in parts]).encode()).digest()
    octets = bytearray(digest[:16])
    octets[6] = octets[6] & 0x0F | 0x80
    octets[8] = octets[8] & 0x3F | 0x80
    return pgproto.UUID(bytes(octets))
