"""What goes to the fund service and what comes back. Amounts are ints in minor units, times are aware and UTC.

What comes back may have more members than are known here: a newer service does not break an older client. For the same
reason kinds and states are plain text.
"""

from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from fundledger.client.event import Event
from fundledger.client.faults import Problem, Refused
from fundledger.client.types import Balance

Kind = Literal[
    "payment",
    "refund",
    "settlement",
    "withdrawal",
    "chargeback",
    "recovery",
    "write_off",
    "adjustment",
    "channel_cost",
    "bank_difference",
    "reversal",
]
PATHS: Final[dict[Kind, str]] = {
    "payment": "/v1/payments",
    "refund": "/v1/refunds",
    "settlement": "/v1/settlements",
    "withdrawal": "/v1/withdrawals",
    "chargeback": "/v1/chargebacks",
    "recovery": "/v1/recoveries",
    "write_off": "/v1/write-offs",
    "adjustment": "/v1/adjustments",
    "channel_cost": "/v1/channel-costs",
    "bank_difference": "/v1/bank-differences",
    "reversal": "/v1/reversals",
}


class Fee(msgspec.Struct, frozen=True, omit_defaults=True):
    """`basis_points` of the amount, rounded half up, and `fixed`; from `minimum` to `maximum`, at most the amount."""

    basis_points: int = 0
    fixed: int = 0
    minimum: int = 0
    maximum: int | None = None


class FeeRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is charged for a product: of one channel, or of all; from `effective_at` on, or from now on."""

    product: Literal["payment", "withdrawal"]
    channel: str | None = None
    basis_points: int = 0
    fixed: int = 0
    minimum: int = 0
    maximum: int | None = None
    effective_at: datetime | None = None


class Merchant(msgspec.Struct, frozen=True, kw_only=True):
    """`accounts`: their ids in the account service; `balances`: of each of them, where the service tells it. `fees`:
    the rules, oldest first. `withdrawal_limit`: for a day (UTC), in sum. `settlement`: when what is pending is settled
    by itself. `replay`: the merchant was there before.
    """

    id: str
    name: str
    currency: str
    withdrawal_limit: int | None = None
    settlement: str = "manual"
    fees: list[FeeRule] = []
    accounts: list[str] = []
    balances: dict[str, Balance] = {}
    created_at: datetime
    replay: bool = False


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Where events of a merchant are sent, those of the types `events`, or all. `secret` (`whsec_` and base64) signs
    them; it is told once, to whom made the endpoint.
    """

    id: UUID
    merchant: str
    url: str
    events: list[str] | None = None
    secret: str | None = None
    created_at: datetime
    disabled_at: datetime | None = None
    disabled_why: str | None = None


class DeadEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event that could not be delivered to an endpoint, and was given up."""

    seq: int
    event: Event
    attempts: int
    ended_at: datetime
    last_status: int | None = None
    last_error: str | None = None


class Payment(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Confirmed by its channel, which has the money. `settle`: whether the merchant may withdraw it at once."""

    merchant: str
    order_no: str
    amount: int
    currency: str
    channel: str
    channel_ref: str | None = None
    settle: Literal["now", "later"] = "now"
    ticket: str | None = None


class StatementLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of a bank's statement: what came in (or, negative, went out) under a reference.

    `entry_ref` (the bank's own reference of the entry) and `value_date` (a date) tell apart entries that look alike.
    """

    ref: str
    amount: int
    entry_ref: str | None = None
    value_date: str | None = None


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it stands. `net`: by how much the merchant's balance moves in all.

    States: `created` (waits for approval), `posting` (not certain yet, it ends by itself), `posted`, `refused` (see
    `problem`; nothing moved), `stuck` (see `problem`; a person removes the cause, then `retry`); a withdrawal goes on:
    `sent`, `paid`, `bounced`, `unknown`. `of_order`: the one that this
    is about. `from_pending`: of a refund, what comes from money that was not settled yet. `to_receivable`: of a
    chargeback, what the merchant had not, and owes. `replay`: it was there before.
    """

    id: UUID
    kind: str
    merchant: str
    order_no: str
    state: str
    amount: int
    fee: int = 0
    net: int = 0
    currency: str
    voucher_id: UUID | None = None
    channel: str | None = None
    channel_ref: str | None = None
    settle: str | None = None
    of_order: UUID | None = None
    from_pending: int = 0
    to_receivable: int = 0
    direction: str | None = None
    reason: str | None = None
    approved_by: str | None = None
    ending: str | None = None
    reversed_by: UUID | None = None
    created_at: datetime
    posted_at: datetime | None = None
    problem: Problem | None = None
    replay: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether it is known if money moved."""
        return self.state != "posting" and (self.state != "stuck" or self.posted_at is not None)


class OrderRefused(Refused):
    """The order was taken, and the account service refused it, for good: its number is used. Nothing moved."""

    def __init__(self, problem: Problem, order: Order) -> None:
        super().__init__(problem)
        self.order = order


class PaymentResult(msgspec.Struct, frozen=True, gc=False):
    """What became of one payment of a batch. `id` is None when there is no order of it; `problem` says why."""

    order_no: str
    state: str
    id: UUID | None = None
    problem: Problem | None = None
    replay: bool = False


class Step(msgspec.Struct, frozen=True):
    """A state that an order went into."""

    state: str
    at: datetime
    detail: Any = None
