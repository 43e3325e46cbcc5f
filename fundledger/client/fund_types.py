"""Python client: request and response types of the fund service.

Amounts are ints in minor units, times are aware and in UTC. Unknown members of a response are ignored, so that a newer
service does not break an older client. For the same reason kinds and states are plain strings.
"""

from datetime import date, datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from fundledger.client.event import Event
from fundledger.client.faults import Problem, Refused

Kind = Literal[
    "payment",
    "refund",
    "settlement",
    "withdrawal",
    "payout_return",
    "chargeback",
    "recovery",
    "write_off",
    "adjustment",
    "channel_cost",
    "bank_difference",
    "reversal",
    "own_transfer",
    "own_funds",
    "fee_sweep",
    "payable_payment",
    "suspense_clearing",
    "parked_clearing",
    "top_up",
    "transfer",
    "reserve_hold",
    "reserve_release",
    "dispute_won",
    "dispute_fee",
    "dispute",
    "split_payment",
    "split_refund",
    "split_chargeback",
    "channel_invoice",
]
PATHS: Final[dict[Kind, str]] = {
    "payment": "/v1/payments",
    "refund": "/v1/refunds",
    "settlement": "/v1/settlements",
    "withdrawal": "/v1/withdrawals",
    "payout_return": "/v1/payout-returns",
    "chargeback": "/v1/chargebacks",
    "recovery": "/v1/recoveries",
    "write_off": "/v1/write-offs",
    "adjustment": "/v1/adjustments",
    "channel_cost": "/v1/channel-costs",
    "bank_difference": "/v1/bank-differences",
    "reversal": "/v1/reversals",
    "own_transfer": "/v1/own-transfers",
    "own_funds": "/v1/own-funds",
    "fee_sweep": "/v1/fee-sweeps",
    "payable_payment": "/v1/payable-payments",
    "suspense_clearing": "/v1/suspense-clearings",
    "parked_clearing": "/v1/parked-clearings",
    "top_up": "/v1/top-ups",
    "transfer": "/v1/transfers",
    "reserve_hold": "/v1/reserve-holds",
    "reserve_release": "/v1/reserve-releases",
    "dispute_won": "/v1/dispute-wins",
    "dispute_fee": "/v1/dispute-fees",
    "dispute": "/v1/disputes",
    "split_payment": "/v1/split-payments",
    "split_refund": "/v1/split-refunds",
    "split_chargeback": "/v1/split-chargebacks",
    "channel_invoice": "/v1/channel-invoices",
}


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that receives events of a merchant. `events`: the types of these events, None for all types.

    `secret` (`whsec_` and base64) is the signing key; only the response to the creation contains it.
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
    """An event whose delivery to an endpoint was given up."""

    seq: int
    event: Event
    attempts: int
    ended_at: datetime
    last_status: int | None = None
    last_error: str | None = None


class Payment(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A payment that its channel has received and confirmed. With `settle` `now`, the amount is
    available immediately.
    """

    merchant: str
    order_no: str
    amount: int
    currency: str
    channel: str
    channel_ref: str | None = None
    settle: Literal["now", "later"] = "now"
    ticket: str | None = None


class StatementLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of a bank statement: an amount under a reference. `amount` is positive for money that the bank received.

    `entry_ref` (the bank's reference of the entry) and `value_date` (a date) distinguish otherwise equal lines.
    """

    ref: str
    amount: int
    entry_ref: str | None = None
    value_date: str | None = None


class SplitPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of one merchant in the request of a split order. `commission`: the fee of a part of a split payment,
    None for that of the merchant's own fee rule.
    """

    merchant: str
    amount: int
    commission: int | None = None


class OrderPart(msgspec.Struct, frozen=True, kw_only=True):
    """The part of one merchant in a split order. The members have the meaning that they have in `Order`."""

    merchant: str
    amount: int
    fee: int = 0
    net: int = 0
    fee_version: int | None = None
    tax: int = 0
    set_off: int = 0
    to_receivable: int = 0
    end_set_off: int = 0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order in its current state.

    States: `created` (waits for approval), `posting` (outcome unknown, completes automatically), `posted`, `refused`
    (see `problem`; no money moved), `stuck` (see `problem`; remove the cause, then `retry`), `parked` (the merchant's
    accounts do not take a fact, and its money waits in suspense), `cleared` (a parked clearing moved this money). A
    withdrawal or a refund has further states after `posted`: `sent`, `paid`, `bounced`, `unknown`. An own transfer ends
    as `paid` or `bounced`, a dispute as `won` or `lost`.

    `net`: what the order's voucher moves on the merchant's accounts, the change of available plus pending minus
    receivable; negative if the merchant has less. `fee_version`: the version of the fee rule, None if no rule applied.
    `fee_waived`: the fee of the pending part of a refund or chargeback, which will not be charged. `of_order`: the id
    of the order to which this order refers, `of_kind`: its kind. `from_pending`: the part of a refund, chargeback or
    dispute that is taken from the pending balance. `to_receivable`: the part of a chargeback, dispute or dispute fee
    that the merchant owes because its balance did not cover it; of a reversal, the set-off that it undoes. `set_off`:
    the part that repaid the merchant's debt. `end_set_off`: the part of a bounced order or a won dispute that repaid
    it. `parked_voucher_id`: the voucher that parked the order. `returned`: the part of a withdrawal that returned after
    it was paid. `against`: the account that the request names. `counterparty`: the channel that own money leaves, with
    its reference `counter_ref`; of a transfer, the merchant that receives the amount, of which `counter_set_off` repaid
    its debt. `tax`: the part of `fee` that is tax. `parts`: the parts of a split order. `invoice_no` and `period`: the
    number and the month of an invoice of a channel. `settle_on`: the day on which a payment is due for settlement.
    `takes_all`: the amount of a withdrawal was decided from the available balance. `release_on`: the day on which a
    reserve hold is released, unless a request releases it earlier. `reversed_by`: the order that reversed this order,
    cleared it or released it. `replay`: the order already existed.
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
    set_off: int = 0
    end_set_off: int = 0
    parked_voucher_id: UUID | None = None
    direction: str | None = None
    reason: str | None = None
    approved_by: str | None = None
    ending: str | None = None
    reversed_by: UUID | None = None
    created_at: datetime
    posted_at: datetime | None = None
    problem: Problem | None = None
    fee_version: int | None = None
    fee_waived: int = 0
    returned: int = 0
    against: str | None = None
    counterparty: str | None = None
    counter_ref: str | None = None
    counter_set_off: int = 0
    of_kind: str | None = None
    tax: int = 0
    parts: list[OrderPart] = []
    invoice_no: str | None = None
    period: str | None = None
    settle_on: date | None = None
    takes_all: bool = False
    payee: UUID | None = None
    release_on: date | None = None
    replay: bool = False

    @property
    def is_certain(self) -> bool:
        """Whether the outcome of the order is certain: money moved, or no money moved."""
        return self.state != "posting" and (self.state != "stuck" or self.posted_at is not None)


class MerchantAmounts(msgspec.Struct, frozen=True):
    """An amount for each account of a merchant. A positive `receivable` is a debt of the merchant."""

    available: int
    pending: int
    receivable: int


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """A movement of a merchant's accounts: `change` is what the voucher moved, `balance` are the balances after it.

    `order`, `kind`, `order_no`, `amount`: the order that caused the movement, None if no order did. `fee` is positive
    if it was charged, and negative if it was returned; `tax` is the part of it that is tax. `fee_version`: the version
    of the fee rule, None if no rule applied.
    """

    posted_at: datetime
    kind: str | None = None
    order_no: str | None = None
    order: UUID | None = None
    voucher_id: UUID
    type: str
    amount: int | None = None
    fee: int = 0
    fee_version: int | None = None
    tax: int = 0
    change: MerchantAmounts
    balance: MerchantAmounts


class BillPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a bill. `opening` and `closing`: the balances at the beginning and the end of the period, or now if the
    period has not ended. `begins` is inclusive, `ends` exclusive.
    """

    merchant: str
    currency: str
    begins: datetime
    ends: datetime
    opening: MerchantAmounts
    closing: MerchantAmounts
    lines: list[BillLine]
    next_cursor: str | None = None


class DaySum(msgspec.Struct, frozen=True, kw_only=True):
    """The sum of a merchant's orders of one kind, currency and state, as they were when the day was closed. `orders`,
    `amount`, `fee`: of the orders that were posted on the day. `ended`, `ended_amount`, `ended_fee`: of the orders
    that ended on the day.
    """

    merchant: str
    kind: str
    currency: str
    state: str
    orders: int
    amount: int
    fee: int
    tax: int = 0
    ended: int = 0
    ended_amount: int = 0
    ended_fee: int = 0


class DayPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the sums of a day. `closed_at` and `orders`: None if the day is not closed; then there are no sums.
    `begins_at` is inclusive, `ends_at` exclusive. `ends`: the number of orders that ended on the day.
    """

    day: date
    closed_at: datetime | None = None
    orders: int | None = None
    sums: list[DaySum]
    next_cursor: str | None = None
    begins_at: datetime | None = None
    ends_at: datetime | None = None
    ends: int | None = None


class BankStatement(msgspec.Struct, frozen=True, kw_only=True):
    """An imported bank statement. `counts`: the number of lines by outcome. `total` and `difference` are sums over the
    lines.
    """

    channel: str
    statement_no: str
    currency: str
    at: datetime
    module: str
    lines: int
    counts: dict[str, int]
    total: int
    difference: int


class OrderRefused(Refused):
    """An order that the account service refused permanently. The order number is used up, and no money moved."""

    def __init__(self, problem: Problem, order: Order) -> None:
        super().__init__(problem)
        self.order = order


class PaymentResult(msgspec.Struct, frozen=True, gc=False):
    """Result of one payment of a batch. If no order was stored, `id` is None and `problem` has the reason."""

    order_no: str
    state: str
    id: UUID | None = None
    problem: Problem | None = None
    replay: bool = False


class ApprovalResult(msgspec.Struct, frozen=True):
    """Result of one approval. If the order was not approved, `state` is None and `problem` has the reason."""

    id: UUID
    state: str | None = None
    problem: Problem | None = None
    replay: bool = False


class Step(msgspec.Struct, frozen=True):
    """A state that an order entered, and the time at which it entered the state."""

    state: str
    at: datetime
    detail: Any = None
