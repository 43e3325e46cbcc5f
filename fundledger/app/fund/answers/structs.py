"""Answers of the fund service. The OpenAPI document takes their schemas from these types.

The types of orders and events are in `fund.model.order_json`. The type of a statement report is in
`fund.statements.imports`.
"""

from datetime import date
from typing import Annotated, get_args

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.http.problems import Problem
from fundledger.fund.model.fees import FeeReturn, TaxMode
from fundledger.fund.model.merchant import MerchantState
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.order_json import Order, StateName
from fundledger.fund.model.requests import (
    Amount,
    BasisPoints,
    Calendar,
    LocalTime,
    MerchantId,
    OrderNo,
    Part,
    Region,
    RollingBasisPoints,
    RollingDays,
    SettlementDays,
)
from fundledger.fund.statements.matching import Outcome
from fundledger.json_values import Balance, CurrencyCode, Exact, Instant, Text, Uuid, about, encoded

NextCursor = Annotated[str | None, about("send this as `cursor` for the next page; null on the last page")]


class OrderProblem(Problem, kw_only=True):
    """A problem (RFC 9457) of an order."""

    rejected_by: Annotated[str, about("of a rejected order: the identity that rejected it")] | UnsetType = UNSET


class RefusedOrder(OrderProblem, kw_only=True):
    """A problem (RFC 9457). If the account service refused the order, the problem includes the order."""

    order: Annotated[Order, about("the order that the account service refused")] | UnsetType = UNSET


class Unverified(msgspec.Struct):
    id: str
    problem: Problem


LeftOut = Annotated[
    list[Unverified], about("records omitted from the page because they do not match their MAC; absent if none")
]


class Orders(msgspec.Struct):
    orders: Annotated[list[Order], about("oldest first")]
    next_cursor: NextCursor
    unverified: LeftOut | UnsetType = UNSET


class Step(msgspec.Struct):
    state: StateName
    at: Instant
    detail: Annotated[msgspec.Raw, about("details of the change")] | UnsetType = UNSET


class History(msgspec.Struct):
    id: Uuid
    history: Annotated[list[Step], about("oldest first")]


class PaymentResult(msgspec.Struct):
    order_no: OrderNo
    state: StateName
    id: Uuid | UnsetType = UNSET
    problem: (
        Annotated[msgspec.Raw, encoded("Problem", "of a refused payment; without `id`, nothing is stored")] | UnsetType
    ) = UNSET
    replay: Annotated[bool, about("replay of an earlier request: the current state")] | UnsetType = UNSET


class PaymentResults(msgspec.Struct):
    results: Annotated[list[PaymentResult], about("`results[i]` answers `payments[i]`")]


class WithdrawalResult(PaymentResult):
    """The result of a withdrawal, with the members of the result of a payment."""


class WithdrawalResults(msgspec.Struct):
    results: Annotated[list[WithdrawalResult], about("`results[i]` answers `withdrawals[i]`")]


class ApprovalResult(msgspec.Struct):
    id: Uuid
    state: Annotated[StateName, about("the state of the order; absent if the order was not approved")] | UnsetType = (
        UNSET
    )
    problem: (
        Annotated[msgspec.Raw, encoded("OrderProblem", "why the order is not approved, or why its voucher is refused")]
        | UnsetType
    ) = UNSET
    replay: Annotated[bool, about("the order was approved before")] | UnsetType = UNSET


class ApprovalResults(msgspec.Struct):
    results: Annotated[list[ApprovalResult], about("`results[i]` answers `orders[i]`")]


class FeeNow(msgspec.Struct):
    basis_points: BasisPoints
    fixed: Part
    minimum: Part
    maximum: Part | None


class FeeTierShown(msgspec.Struct):
    from_amount: Amount
    basis_points: BasisPoints
    fixed: Part


class FeeRule(msgspec.Struct):
    version: Annotated[int, about(minimum=1)]
    merchant: Annotated[str | None, about("null: all merchants")]
    product: Annotated[str, about(enum=["payment", "withdrawal", "top_up"])]
    channel: Annotated[str | None, about("null: all channels")]
    basis_points: BasisPoints
    fixed: Part
    minimum: Part
    maximum: Part | None
    tiers: list[FeeTierShown]
    effective_at: Instant
    currency: Annotated[str | None, about("null: any currency", pattern="^[A-Z]{3}$")] = None
    tax_basis_points: Annotated[BasisPoints, about("tax on the fee, in hundredths of a percent")] = 0
    tax_mode: Annotated[str, about("whether the fee includes the tax", enum=list(get_args(TaxMode)))] = "included"
    returned: Annotated[str, about("whether refunds return the fee", enum=list(get_args(FeeReturn)))] = msgspec.field(
        default="proportional", name="return"
    )


class Merchant(msgspec.Struct):
    id: MerchantId
    name: str
    currency: CurrencyCode
    withdrawal_limit: Annotated[Part | None, about("per day; null: no limit")]
    settlement: Annotated[
        str,
        about(
            "when the pending balance is settled automatically (weekly: Monday, monthly: first day)",
            enum=list(get_args(Calendar)),
        ),
    ]
    fee: Annotated[FeeNow | None, about("current fee of a payment through a channel without its own rule")]
    fees: Annotated[list[FeeRule], about("all rules that may apply, including those for all merchants")]
    accounts: Annotated[list[str], about("account ids in the account service: available, pending, receivable")]
    created_at: Instant
    balances: (
        Annotated[
            dict[str, Balance],
            about("by account id, also of the accounts `reserve` and `disputed` if they exist; omitted in lists"),
        ]
        | UnsetType
    ) = UNSET
    state: Annotated[MerchantState, about(enum=[str(state) for state in MerchantState])] = MerchantState.OPEN
    settlement_days: Annotated[
        SettlementDays | None, about("working days until a payment is settled; null: the next day of `settlement`")
    ] = None
    settlement_cut: Annotated[
        LocalTime | None, about("when a day of payments ends; null: the cut of the accounting date")
    ] = None
    settlement_region: Annotated[Region | None, about("whose holidays apply; null: those of the currency")] = None
    rolling_basis_points: Annotated[
        RollingBasisPoints | None,
        about("hundredths of a percent of each day's credits that are held in reserve"),
    ] = None
    rolling_days: Annotated[RollingDays | None, about("the days for which the part is held")] = None
    rolling_from: Annotated[date | None, about("the first day to which the rolling reserve applies")] = None


class Merchants(msgspec.Struct):
    merchants: Annotated[list[Merchant], about("oldest first")]
    next_cursor: NextCursor
    unverified: LeftOut | UnsetType = UNSET


class MerchantAmounts(Exact):
    available: Annotated[int, about("of the account `merchant:ID:available`, in minor units")]
    pending: Annotated[int, about("of the account `merchant:ID:pending`")]
    receivable: Annotated[int, about("of the account `merchant:ID:receivable`; positive: the merchant owes it")]
    available_text: Text = UNSET
    pending_text: Text = UNSET
    receivable_text: Text = UNSET


class BillLine(msgspec.Struct):
    posted_at: Instant
    kind: Annotated[str | None, about("of the order; null if no order caused the movement")]
    order_no: str | None
    order: Annotated[Uuid | None, about("id of the order")]
    voucher_id: Annotated[Uuid, about("id of the voucher in the account service")]
    type: Annotated[str, about("type of the voucher")]
    amount: Annotated[Amount | None, about("amount of the order, or of the merchant's part of a split order")]
    fee: Annotated[int, about("fee of the movement; negative if it was returned")]
    fee_version: Annotated[int | None, about("version of the fee rule; null if no rule applied")]
    tax: Annotated[int, about("the part of `fee` that is tax")]
    change: Annotated[MerchantAmounts, about("what the voucher moved")]
    balance: Annotated[MerchantAmounts, about("the balances after the voucher")]


class Bill(msgspec.Struct):
    merchant: MerchantId
    currency: CurrencyCode
    begins: Annotated[Instant, about("beginning of the period, inclusive")]
    ends: Annotated[Instant, about("end of the period, exclusive")]
    opening: Annotated[MerchantAmounts, about("balances at the beginning of the period")]
    closing: Annotated[MerchantAmounts, about("balances at the end of the period, or now if it has not ended")]
    lines: Annotated[list[BillLine], about("oldest first")]
    next_cursor: NextCursor
    unverified: (
        Annotated[list[Unverified], about("orders that do not match their MAC; their lines have no order")] | UnsetType
    ) = UNSET


class DaySum(Exact):
    merchant: Annotated[MerchantId, about("`platform` for orders that belong to no merchant")]
    kind: Annotated[str, about(enum=[str(kind) for kind in Kind])]
    currency: CurrencyCode
    state: Annotated[str, about("as it was when the day was closed", enum=[str(state) for state in State])]
    orders: Annotated[int, about("number of orders that were posted on the day", minimum=0)]
    amount: Annotated[int, about("sum of their amounts", minimum=0)]
    fee: Annotated[int, about("sum of their fees", minimum=0)]
    tax: Annotated[int, about("sum of the taxes in their fees", minimum=0)]
    ended: Annotated[int, about("number of orders that ended in this state on the day", minimum=0)]
    ended_amount: Annotated[int, about("sum of their amounts", minimum=0)]
    ended_fee: Annotated[int, about("sum of their fees", minimum=0)]
    amount_text: Text = UNSET
    fee_text: Text = UNSET
    tax_text: Text = UNSET
    ended_amount_text: Text = UNSET
    ended_fee_text: Text = UNSET


class Day(msgspec.Struct):
    day: date
    closed_at: Annotated[Instant | None, about("null: the day is not closed, and has no sums yet")]
    orders: Annotated[int | None, about("number of orders that were posted on the day", minimum=0)]
    sums: Annotated[list[DaySum], about("ordered by merchant, kind, currency and state")]
    next_cursor: NextCursor
    begins_at: Annotated[Instant, about("beginning of the day, inclusive")]
    ends_at: Annotated[Instant, about("end of the day, exclusive")]
    ends: Annotated[
        int | None, about("number of orders that ended on the day; null: not closed, or closed without them")
    ]


class BankStatement(Exact):
    channel: str
    statement_no: str
    currency: CurrencyCode
    at: Annotated[Instant, about("time of the import")]
    module: Annotated[str, about("the identity that imported it")]
    lines: Annotated[int, about("number of lines", minimum=1)]
    counts: Annotated[dict[Outcome, int], about("number of lines by outcome")]
    total: Annotated[int, about("sum of the lines")]
    difference: Annotated[int, about("sum of the differences between the bank and the books")]
    total_text: Text = UNSET
    difference_text: Text = UNSET


class BankStatements(msgspec.Struct):
    statements: Annotated[list[BankStatement], about("ordered by channel and number")]
    next_cursor: NextCursor


class Webhook(msgspec.Struct):
    id: Uuid
    merchant: MerchantId
    url: str
    events: Annotated[list[str] | None, about("event types; null: all")]
    created_at: Instant
    disabled_at: Annotated[Instant | None, about("no events are sent after this time")]
    disabled_why: str | None


class WebhookWithSecret(Webhook):
    secret: Annotated[
        str,
        about("the signing key is the base64 after `whsec_`; returned only once", pattern="^whsec_[A-Za-z0-9+/]{43}=$"),
    ]


class Webhooks(msgspec.Struct):
    webhooks: Annotated[list[Webhook], about("oldest first, including disabled endpoints, at most 1,000")]
    unverified: LeftOut | UnsetType = UNSET


class DeadEvent(msgspec.Struct):
    seq: Annotated[int, about(minimum=1)]
    event: Annotated[msgspec.Raw, about("the event as sent", type="object")]
    attempts: Annotated[int, about(minimum=0)]
    ended_at: Instant
    last_status: Annotated[int | None, about("null: no response")]
    last_error: str | None


class DeadEvents(msgspec.Struct):
    dead: Annotated[list[DeadEvent], about("in order")]
    next: Annotated[int | None, about("send this as `after` for the next page; null on the last page")]


class Redelivered(msgspec.Struct):
    redelivered: Annotated[int, about("number of events", minimum=0)]
