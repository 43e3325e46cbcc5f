"""An order: what a front end asks of the fund service, by its own number; and the ids that are made of that."""

import hashlib
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
from asyncpg.pgproto import pgproto

PLATFORM: Final = "platform"
"""Stands as the merchant of orders that are no merchant's."""
VOUCHER_FORMAT: Final = 2
"""Of new orders. 1: the vouchers of an order have its id in their reference; 2: and its kind and `order_no` in their
metadata. An order keeps its format: another one would change the content of vouchers that are posted.
"""


class Kind(StrEnum):
    PAYMENT = "payment"
    REFUND = "refund"
    SETTLEMENT = "settlement"
    WITHDRAWAL = "withdrawal"
    CHARGEBACK = "chargeback"
    RECOVERY = "recovery"
    WRITE_OFF = "write_off"
    ADJUSTMENT = "adjustment"
    CHANNEL_COST = "channel_cost"
    BANK_DIFFERENCE = "bank_difference"
    REVERSAL = "reversal"


class State(StrEnum):
    """created -> posting -> posted | refused; a withdrawal goes on: posted -> sent -> paid | bounced | unknown, then
    to paid | bounced. Only an adjustment stays `created`: until another one has approved it.

    `stuck`: the next step of the order got an answer that no repetition changes. A person removes the cause, and a
    request to retry takes the order back to the state that it came from.
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


NEXT: Final[dict[State, frozenset[State]]] = {
    State.CREATED: frozenset({State.POSTING}),
    State.POSTING: frozenset({State.POSTED, State.REFUSED, State.STUCK}),
    State.POSTED: frozenset({State.SENT, State.PAID, State.BOUNCED, State.STUCK}),
    State.SENT: frozenset({State.PAID, State.BOUNCED, State.UNKNOWN, State.STUCK}),
    State.UNKNOWN: frozenset({State.PAID, State.BOUNCED, State.STUCK}),
    State.STUCK: frozenset({State.POSTING, State.POSTED, State.SENT, State.UNKNOWN}),
    State.REFUSED: frozenset(),
    State.PAID: frozenset(),
    State.BOUNCED: frozenset(),
}


class Order(msgspec.Struct):
    """A row of fund.orders; see there for what the columns mean. Amounts in minor units. `module` asked for it.

    `net`, which is shown but not kept, is by how much the merchant's balance moves in all.
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

    @property
    def net(self) -> int:
        if self.kind is Kind.WITHDRAWAL:
            return self.amount + self.fee
        return self.amount - self.fee


def order_id(kind: str, merchant: str, order_no: str) -> UUID:
    """The former id of an order, an unkeyed hash of its names; new orders have those of `fund.ids`."""
    return _named("order", kind, merchant, order_no)


def voucher_id(order: UUID, step: str = "post", attempt: int = 0) -> UUID:
    """The former id of a voucher of an order with a former id; new vouchers have those of `fund.ids`."""
    return _named("voucher", order.hex, step, str(attempt))


def _named(*parts: str) -> UUID:
    # RFC 9562, version 8: 122 bits of a SHA-256, each part with its length before it.
    digest = hashlib.sha256("".join([f"{len(part)}:{part}" for part in parts]).encode()).digest()
    octets = bytearray(digest[:16])
    octets[6] = octets[6] & 0x0F | 0x80
    octets[8] = octets[8] & 0x3F | 0x80
    return pgproto.UUID(bytes(octets))
