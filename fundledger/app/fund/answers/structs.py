"""Answers of the fund service. The OpenAPI document takes their schemas from these types.

The types of orders and events are in `fund.model.order_json`. The type of a statement report is in
`fund.statements.imports`.
"""

from typing import Annotated, get_args

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.http.problems import Problem
from fundledger.fund.model.order_json import Order, StateName
from fundledger.fund.model.requests import Amount, BasisPoints, Calendar, MerchantId, OrderNo, Part
from fundledger.json_values import Balance, CurrencyCode, Instant, Uuid, about, encoded

NextCursor = Annotated[str | None, about("send this as `cursor` for the next page; null on the last page")]


class RefusedOrder(Problem, kw_only=True):
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
    product: Annotated[str, about(enum=["payment", "withdrawal"])]
    channel: Annotated[str | None, about("null: all channels")]
    basis_points: BasisPoints
    fixed: Part
    minimum: Part
    maximum: Part | None
    tiers: list[FeeTierShown]
    effective_at: Instant


class Merchant(msgspec.Struct):
    id: MerchantId
    name: str
    currency: CurrencyCode
    withdrawal_limit: Annotated[Part | None, about("per day (UTC); null: no limit")]
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
    balances: Annotated[dict[str, Balance], about("by account id; omitted in lists")] | UnsetType = UNSET


class Merchants(msgspec.Struct):
    merchants: Annotated[list[Merchant], about("oldest first")]
    next_cursor: NextCursor
    unverified: LeftOut | UnsetType = UNSET


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
