"""Model of the fund service: drafts, the orders for requests before they are stored. Pure: no clock and no database."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from fundledger.fund.model import merchant_requests, own_requests, requests, split_requests
from fundledger.fund.model.fees import charge_of, choose
from fundledger.fund.model.flows import RULES
from fundledger.fund.model.ids import Ids
from fundledger.fund.model.merchant import Merchant
from fundledger.fund.model.order import (
    PLATFORM,
    RECEIPTS,
    REFUND_FORMAT,
    REFUNDS,
    VOUCHER_FORMAT,
    Kind,
    Order,
    SplitPart,
    State,
)
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Request
from fundledger.fund.model.settlement import SettlementDates
from fundledger.fund.model.transitions import FIRST

_NO_PARTIES: Final[Mapping[str, Merchant]] = {}


class Draft(msgspec.Struct):
    """An order before it is inserted, or before it is approved. Reserved amounts are set later, in
    store/reservations.py. `request`: None if the order exists.

    `debitable`: for a kind of `CHARGING` or a withdrawal of all, the amount that it can debit to the merchant's
    available balance. `reserves`: a plain insert of the order is not possible, because its merchant owes or its
    reference of the channel exists. `division`: for a split refund or chargeback, the amount of each merchant, None for
    a division in proportion.

    `former`: the former (unkeyed) id of the order, see `fund.model.ids`. `former_of`: the former id of the order to
    which this order refers. Both are None if the database has no orders with former ids.
    """

    order: Order
    request: Request | None
    merchant: Merchant | None = None
    former: UUID | None = None
    former_of: UUID | None = None
    debitable: int = 0
    reserves: bool = False
    division: Mapping[str, int] | None = None

    def find(self, there: Mapping[UUID, Order]) -> Order | None:
        """Return the order of `there` that has the id or the former id of this draft, or None if no order has one of
        them.
        """
        return there.get(self.order.id) or (None if self.former is None else there.get(self.former))


def who(module: str, person: str | None) -> str:
    """Return the text that an order stores for its requester: IDENTITY or IDENTITY/PERSON. The person is a note."""
    return module if person is None else f"{module}/{person}"


def draft_of(
    request: Request,
    merchant: Merchant | None,
    module: str,
    at: datetime,
    due_s: float,
    ids: Ids,
    dates: SettlementDates | None = None,
    parties: Mapping[str, Merchant] = _NO_PARTIES,
) -> "Draft | Refusal":
    """Return the draft of a request that `module` sent at the time `at`, or a refusal: MERCHANT_NOT_FOUND,
    CURRENCY_MISMATCH or WITHDRAWAL_LIMIT_EXCEEDED. `due_s`: seconds until the recoverer takes the order. `dates`: the
    due days of payments that are settled later; None: they get none. The reservation decides the amount of a withdrawal
    of all.

    `merchant`: the merchant of the order. None if the merchant does not exist, or if the order belongs to the platform.
    `parties`: the merchants of the parts of a split payment, as far as they exist.
    """
    kind = request.kind
    whose = request.whose
    if merchant is None and whose != PLATFORM:
        return Refusal(Code.MERCHANT_NOT_FOUND, f"there is no merchant {whose}", "merchant")
    rules = RULES[kind]
    if whose == PLATFORM and not rules.of_platform:
        return Refusal(Code.MERCHANT_NOT_FOUND, "the platform is not a merchant", "merchant")
    currency = getattr(request, "currency", None) or (merchant.currency if merchant is not None else "")
    if merchant is not None and currency != merchant.currency:
        detail = f"the currency of merchant {merchant.id} is {merchant.currency}"
        return Refusal(Code.CURRENCY_MISMATCH, detail, "currency")
    no = _refused_part(request, parties)
    if no is not None:
        return no
    id_, first = ids.order(kind, whose, request.order_no), FIRST[kind]
    order = Order(
        id=id_,
        kind=kind,
        merchant=whose,
        order_no=request.order_no,
        state=first,
        amount=getattr(request, "amount", None) or 0,
        fee=0,
        currency=currency,
        digest=request.digest(),
        voucher_id=ids.voucher(id_),
        module=module,
        created_at=at,
        ticket=request.ticket,
        # The recoverer must not take an order that waits for approval.
        due_at=None if first is State.CREATED else at + timedelta(seconds=due_s),
        voucher_format=REFUND_FORMAT if kind in REFUNDS else VOUCHER_FORMAT,
    )
    about = None
    match request:
        case requests.Payment():
            order.channel, order.channel_ref, order.settle = request.channel, request.channel_ref, request.settle
            _charge(order, merchant, "payment")
            if order.settle == "later" and dates is not None and merchant is not None:
                order.settle_on = dates.due(merchant, at)
        case requests.Withdrawal():
            order.channel, order.takes_all, order.payee = request.channel, request.all, request.payee
            _charge(order, merchant, "withdrawal")
            if order.amount + order.fee > requests.AMOUNT_MAX:
                detail = f"amount and fee of {order.fee} exceed {requests.AMOUNT_MAX}"
                return Refusal(Code.WITHDRAWAL_LIMIT_EXCEEDED, detail, "amount")
        case requests.Refund():
            about = Kind.PAYMENT, whose, request.payment_order_no
        case requests.PayoutReturn():
            about = Kind.WITHDRAWAL, whose, request.withdrawal_order_no
            order.channel_ref = request.channel_ref
        case requests.Chargeback():
            about = Kind.PAYMENT, whose, request.payment_order_no
            order.channel_ref = request.channel_ref
        case requests.Reversal():
            about, order.reason = (Kind(request.of_kind), whose, request.of_order_no), request.reason
            order.of_kind = request.of_kind
        case requests.Adjustment():
            order.direction, order.reason, order.against = request.direction, request.reason, request.against
            order.module = who(module, request.person)
        case requests.BankDifference():
            order.channel, order.direction, order.reason = request.channel, request.direction, request.reason
        case split_requests.SplitPayment():
            _split(order, request, parties)
        case _:
            about = further_terms(order, request, merchant)
    draft = Draft(
        order, request, merchant, ids.former_order(kind, whose, request.order_no), division=_division(request)
    )
    if about is not None:
        order.of_order, draft.former_of = ids.order(*about), ids.former_order(*about)
    return draft


def further_terms(order: Order, request: Request, merchant: Merchant | None) -> tuple[Kind, str, str] | None:
    """Set the terms of an order that only requests of `own_requests`, `merchant_requests` and `split_requests` have.
    Return the kind, merchant and number of the order to which it refers, or None.
    """
    match request:
        case requests.WriteOff():
            order.reason = request.reason
        case requests.ChannelCost():
            order.channel = request.channel
        case split_requests.SplitRefund():
            return Kind.SPLIT_PAYMENT, order.merchant, request.of_order_no
        case split_requests.SplitChargeback():
            order.channel_ref = request.channel_ref
            return Kind.SPLIT_PAYMENT, order.merchant, request.of_order_no
        case own_requests.OwnTransfer():
            order.channel = request.channel
            order.counterparty, order.counter_ref = request.from_channel, request.from_ref
        case own_requests.OwnFunds():
            order.channel, order.direction, order.reason = request.channel, request.direction, request.reason
            if request.direction == "in":
                order.channel_ref = request.channel_ref
            else:
                order.counterparty, order.counter_ref = request.channel, request.channel_ref
        case own_requests.FeeSweep():
            order.channel, order.channel_ref, order.reason = request.channel, request.channel_ref, request.reason
        case own_requests.PayablePayment():
            order.channel, order.channel_ref, order.reason = request.channel, request.channel_ref, request.reason
            order.against = None if request.against == "channel" else request.against
            if request.invoice_order_no is not None:
                return Kind.CHANNEL_INVOICE, order.merchant, request.invoice_order_no
        case own_requests.ChannelInvoice():
            order.channel, order.channel_ref, order.period = request.channel, request.invoice_no, request.period
        case own_requests.SuspenseClearing():
            order.channel, order.direction, order.reason = request.channel, request.direction, request.reason
            order.against = request.against
        case own_requests.ParkedClearing():
            order.of_kind, order.against, order.reason = request.of_kind, request.against, request.reason
            order.direction = RECEIPTS[Kind(request.of_kind)]
            return Kind(request.of_kind), request.of_merchant, request.of_order_no
        case merchant_requests.TopUp():
            order.channel, order.channel_ref = request.channel, request.channel_ref
            _charge(order, merchant, "top_up")
        case merchant_requests.Transfer():
            order.counterparty, order.reason = request.to_merchant, request.reason
        case merchant_requests.ReserveHold():
            order.reason, order.settle_on = request.reason, request.release_on
        case merchant_requests.ReserveRelease():
            order.reason = request.reason
            if request.hold_order_no is not None:
                return Kind.RESERVE_HOLD, order.merchant, request.hold_order_no
        case merchant_requests.Dispute():
            order.reason = request.reason
            return Kind.PAYMENT, order.merchant, request.payment_order_no
        case merchant_requests.DisputeWon():
            order.of_kind, order.channel_ref = request.of_kind, request.channel_ref
            return Kind(request.of_kind), order.merchant, request.chargeback_order_no
        case merchant_requests.DisputeFee():
            order.channel, order.channel_ref, order.reason = request.channel, request.channel_ref, request.reason
            order.against = None if request.against == "bank" else request.against
    return None


def _charge(order: Order, merchant: Merchant | None, product: str) -> None:
    assert merchant is not None
    rule = choose(merchant.fee_rules, merchant.id, product, order.channel, order.created_at, merchant.currency)
    order.fee, order.tax = charge_of(rule, order.amount)
    order.fee_version = None if rule is None else rule.version


def _division(request: Request) -> dict[str, int] | None:
    """Return the amount of each merchant that a split refund or chargeback names."""
    parts = request.parts if isinstance(request, split_requests.SplitRefund | split_requests.SplitChargeback) else None
    return None if parts is None else {part.merchant: part.amount for part in parts}


def _refused_part(request: Request, parties: Mapping[str, Merchant]) -> Refusal | None:
    """Return a refusal if a merchant of a split payment does not exist, or has another currency."""
    if not isinstance(request, split_requests.SplitPayment):
        return None
    for part in request.parts:
        merchant = parties.get(part.merchant)
        if merchant is None:
            return Refusal(Code.MERCHANT_NOT_FOUND, f"there is no merchant {part.merchant}", "parts")
        if merchant.currency != request.currency:
            detail = f"the currency of merchant {merchant.id} is {merchant.currency}"
            return Refusal(Code.CURRENCY_MISMATCH, detail, "parts")
    return None


def _split(order: Order, request: split_requests.SplitPayment, parties: Mapping[str, Merchant]) -> None:
    """Set the channel and the parts of a split payment. Each part has the fee of its merchant's own rule, or the
    requested commission, to which the rule adds its terms: the tax, and whether refunds return the fee.
    """
    order.channel, order.channel_ref, order.parts = request.channel, request.channel_ref, []
    for part in request.parts:
        merchant = parties[part.merchant]
        rule = choose(merchant.fee_rules, merchant.id, "payment", order.channel, order.created_at, order.currency)
        fee, tax = charge_of(rule, part.amount, part.commission)
        version, keeps_fee = (None, False) if rule is None else (rule.version, rule.returned == "none")
        order.parts.append(SplitPart(part.merchant, part.amount, fee, tax, fee_version=version, keeps_fee=keeps_fee))
    order.fee, order.tax = sum(part.fee for part in order.parts), sum(part.tax for part in order.parts)


def payment_of(draft: Draft) -> UUID:
    """Return the id of the order to which the order of a draft refers, in most cases a payment."""
    assert draft.order.of_order is not None
    return draft.order.of_order
