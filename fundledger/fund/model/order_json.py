"""Model of the fund service: the JSON of orders and of their events, the same in HTTP answers, event
feed and webhooks.
"""

from datetime import date
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.fund.model.flows import net_of, net_of_part
from fundledger.fund.model.order import Kind, SplitPart, State
from fundledger.fund.model.order import Order as StoredOrder
from fundledger.fund.model.requests import Amount, MerchantId, Month, OrderNo, Part
from fundledger.json_values import CurrencyCode, Instant, Uuid, about, encoded, time_text

StateName = Annotated[State, about(enum=[str(state) for state in State])]

Ending = Annotated[
    str,
    about("the reported end of the order; `state` follows when it is certain", enum=["paid", "bounced", "won", "lost"]),
]


class OrderPart(msgspec.Struct):
    """The part of a split order that belongs to one merchant. The parts sum to the amounts of the order."""

    merchant: MerchantId
    amount: Amount
    fee: Annotated[Part, about("the fee charged or returned")]
    net: Annotated[int, about("the change of the merchant's position by this part")]
    fee_version: Annotated[int, about("version of the merchant's fee rule; absent if no rule applied")] | UnsetType = (
        UNSET
    )
    tax: Annotated[Amount, about("the part of `fee` that is tax")] | UnsetType = UNSET
    set_off: Annotated[Amount, about("the part that repaid the merchant's debt")] | UnsetType = UNSET
    to_receivable: (
        Annotated[Amount, about("of a chargeback: the part that the merchant owes; of a reversal: the undone set-off")]
        | UnsetType
    ) = UNSET
    end_set_off: (
        Annotated[Amount, about("of a bounced refund: the part that repaid the merchant's debt")] | UnsetType
    ) = UNSET


class Order(msgspec.Struct):
    """An order in its current state. Members that do not apply to its kind are omitted, except `channel`."""

    id: Annotated[Uuid, about("derived from kind, merchant and number")]
    kind: Annotated[Kind, about(enum=[str(kind) for kind in Kind])]
    merchant: Annotated[MerchantId, about("`platform` if the order belongs to no merchant")]
    order_no: OrderNo
    state: StateName
    amount: Amount
    fee: Annotated[Part, about("the fee charged or returned")]
    net: Annotated[
        int,
        about(
            "the change of the merchant's position, available + pending - receivable, by the order's voucher: positive "
            "if the position increases; the same in each state"
        ),
    ]
    currency: CurrencyCode
    voucher_id: Annotated[Uuid, about("id of the order's voucher in the account service")]
    channel: str | None
    created_at: Instant
    posted_at: Instant | UnsetType = UNSET
    channel_ref: str | UnsetType = UNSET
    settle: Annotated[str, about(enum=["now", "later"])] | UnsetType = UNSET
    direction: Annotated[str, about(enum=["credit", "debit", "more", "less", "in", "out"])] | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    approved_by: Annotated[str, about("the identity of the approver, or IDENTITY/NOTE")] | UnsetType = UNSET
    ending: Ending | UnsetType = UNSET
    from_pending: (
        Annotated[
            Amount,
            about(
                "of a refund, chargeback or dispute: the part taken from the pending balance; of a won dispute: the "
                "part of the amount that was taken from there"
            ),
        ]
        | UnsetType
    ) = UNSET
    to_receivable: (
        Annotated[
            Amount,
            about(
                "of a chargeback, a dispute or its fee: the part that the balance did not cover and the merchant owes; "
                "of a reversal: the repayment that it undoes"
            ),
        ]
        | UnsetType
    ) = UNSET
    set_off: Annotated[Amount, about("the part that repaid the merchant's debt")] | UnsetType = UNSET
    parked_voucher_id: (
        Annotated[Uuid, about("the voucher that parked the order; `voucher_id` releases it")] | UnsetType
    ) = UNSET
    end_set_off: (
        Annotated[
            Amount,
            about(
                "of a bounced withdrawal or refund, or a won dispute: the returned part that repaid the merchant's debt"
            ),
        ]
        | UnsetType
    ) = UNSET
    of_order: Annotated[Uuid, about("the order that this order refers to")] | UnsetType = UNSET
    reversed_by: (
        Annotated[
            Uuid,
            about("the order that reversed this order, cleared it while it was parked, or released this reserve hold"),
        ]
        | UnsetType
    ) = UNSET
    problem: Annotated[msgspec.Raw, encoded("OrderProblem", "why the order is in its state")] | UnsetType = UNSET
    fee_version: (
        Annotated[int, about("version of the fee rule by which the fee was charged; absent if no rule applied")]
        | UnsetType
    ) = UNSET
    fee_waived: (
        Annotated[Amount, about("of a refund or chargeback: the fee of the pending part, which will not be charged")]
        | UnsetType
    ) = UNSET
    returned: (
        Annotated[Amount, about("of a withdrawal: the part that the payee's bank returned after it was paid")]
        | UnsetType
    ) = UNSET
    against: (
        Annotated[
            str,
            about(
                "the account that the request names",
                enum=["over", "short", "merchant", "income", "bank", "loss", "channel", "payable", "tax"],
            ),
        ]
        | UnsetType
    ) = UNSET
    counterparty: (
        Annotated[str, about("the channel that own money leaves; of a transfer: the merchant that receives the amount")]
        | UnsetType
    ) = UNSET
    counter_ref: Annotated[str, about("the reference of own money at the channel that it leaves")] | UnsetType = UNSET
    counter_set_off: (
        Annotated[Amount, about("of a transfer: the part that repaid the debt of the receiving merchant")] | UnsetType
    ) = UNSET
    of_kind: (
        Annotated[Kind, about("the kind of the order `of_order`", enum=[str(kind) for kind in Kind])] | UnsetType
    ) = UNSET
    tax: Annotated[Amount, about("the part of `fee` that is tax")] | UnsetType = UNSET
    parts: Annotated[list[OrderPart], about("of a split order: its parts, each of another merchant")] | UnsetType = (
        UNSET
    )
    invoice_no: Annotated[str, about("of an invoice of a channel: its number")] | UnsetType = UNSET
    period: Annotated[Month, about("of an invoice of a channel, or of its payment: the month")] | UnsetType = UNSET
    settle_on: Annotated[date, about("of a payment that is settled later: the day on which it is due")] | UnsetType = (
        UNSET
    )
    takes_all: (
        Annotated[bool, about("of a withdrawal: its amount was decided from the available balance")] | UnsetType
    ) = UNSET
    payee: Annotated[Uuid, about("of a withdrawal: the payee to which it is paid out")] | UnsetType = UNSET
    release_on: (
        Annotated[date, about("of a reserve hold: the day on which it is released, unless it is released earlier")]
        | UnsetType
    ) = UNSET


class Event(msgspec.Struct):
    """A state that an order entered."""

    seq: Annotated[int, about("position of the event in the feed; with gaps", minimum=1)]
    id: Annotated[str, about("the same in each delivery; use it to detect duplicates")]
    type: Annotated[str, about("`KIND.STATE`; `order.unverified` if the order does not match its MAC")]
    merchant: MerchantId
    at: Instant
    order: Annotated[Order, about("the order as it was then; absent if it is unverified")] | UnsetType = UNSET
    detail: Annotated[msgspec.Raw, about("details of the change")] | UnsetType = UNSET
    order_id: Annotated[Uuid, about("present if the order is unverified")] | UnsetType = UNSET


def published(order: StoredOrder) -> Order:
    """Return the JSON struct of an order, which answers and events contain."""
    shown = _published(order)
    if order.parts is not None:
        shown.parts = [_part(order, part) for part in order.parts]
    if order.kind is Kind.CHANNEL_INVOICE and order.channel_ref is not None:
        # The number of an invoice is stored as a reference of the channel, because it counts once, too.
        shown.channel_ref, shown.invoice_no = UNSET, order.channel_ref
    return shown


def _part(order: StoredOrder, part: SplitPart) -> OrderPart:
    return OrderPart(
        part.merchant,
        part.amount,
        part.fee,
        net_of_part(order, part),
        UNSET if part.fee_version is None else part.fee_version,
        part.tax or UNSET,
        part.set_off or UNSET,
        part.to_receivable or UNSET,
        part.end_set_off or UNSET,
    )


def _published(order: StoredOrder) -> Order:
    is_hold = order.kind is Kind.RESERVE_HOLD
    return Order(
        order.id,
        order.kind,
        order.merchant,
        order.order_no,
        order.state,
        order.amount,
        order.fee,
        net_of(order),
        order.currency,
        order.voucher_id,
        order.channel,
        time_text(order.created_at),
        UNSET if order.posted_at is None else time_text(order.posted_at),
        UNSET if order.channel_ref is None else order.channel_ref,
        UNSET if order.settle is None else order.settle,
        UNSET if order.direction is None else order.direction,
        UNSET if order.reason is None else order.reason,
        UNSET if order.approved_by is None else order.approved_by,
        UNSET if order.ending is None else order.ending,
        order.from_pending or UNSET,
        order.to_receivable or UNSET,
        order.set_off or UNSET,
        UNSET if order.parked_voucher_id is None else order.parked_voucher_id,
        order.end_set_off or UNSET,
        UNSET if order.of_order is None else order.of_order,
        UNSET if order.reversed_by is None else order.reversed_by,
        UNSET if order.problem is None else msgspec.Raw(order.problem),
        UNSET if order.fee_version is None else order.fee_version,
        order.fee_waived or UNSET,
        order.returned or UNSET,
        UNSET if order.against is None else order.against,
        UNSET if order.counterparty is None else order.counterparty,
        UNSET if order.counter_ref is None else order.counter_ref,
        order.counter_set_off or UNSET,
        UNSET if order.of_kind is None else Kind(order.of_kind),
        order.tax or UNSET,
        UNSET,
        UNSET,
        UNSET if order.period is None else order.period,
        UNSET if order.settle_on is None or is_hold else order.settle_on,
        order.takes_all or UNSET,
        UNSET if order.payee is None else order.payee,
        UNSET if order.settle_on is None or not is_hold else order.settle_on,
    )
