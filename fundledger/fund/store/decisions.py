"""Store of the fund service: decisions of reservations, over rows that `reservations.lock` has locked. Pure.

Each function decides about one draft. It sets the reserved amounts in the order of the draft, and changes the sums in
memory. It returns a refusal or a fault, or None if the reservation succeeded.
"""

from typing import Any
from uuid import UUID

import msgspec

from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.drafts import Draft, payment_of
from fundledger.fund.model.fees import part_of
from fundledger.fund.model.merchant import Merchant, refusal_in
from fundledger.fund.model.order import RECEIPTS, Kind, Order, State
from fundledger.fund.model.payee import Payee
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import PayoutReturn
from fundledger.fund.store import debts
from fundledger.fund.store.mac_layouts import Progress
from fundledger.fund.store.split_parts import Parts

Receipt = tuple[str, str, str]
"""A channel, its reference of a movement of money, and the direction of the movement: `in`, `out` or `invoice`."""


class Terms(msgspec.Struct, frozen=True):
    """The state and the daily withdrawal limit of a merchant."""

    state: str
    withdrawal_limit: int | None


class Reserve(msgspec.Struct):
    """The reserve of a merchant. `by_amount`: the posted holds without a release day that no order releases by name,
    less the releases of amounts that are not refused, in minor units.
    """

    by_amount: int


class Locked(msgspec.Struct):
    """The rows that a batch has locked, as read under the locks.

    `settling`: ids of payments in a settlement without a known outcome. `undecided`: merchants with an order whose
    outcome may still change their debt. `debts`: what merchants owe, less the set-offs that are reserved. `booked`: the
    row of the order that has a receipt, by receipt. `settled_parts`: the settled parts of settlements that are
    reversed, as (payment, amount, fee, tax). `won`: what won disputes brought back of chargebacks and lost disputes.

    `unverified`: error texts by order id, for orders that have a row with a wrong MAC. `unverified_merchants` and
    `unverified_debts`: error texts by merchant id, for merchants whose row or debt has a wrong MAC. `terms`: the state
    and the daily limit of merchants, by id. For refunds, the rows are read without a lock.

    `parts`: the parts of split payments, by id of the payment. `paid`: the paid amounts of invoices of channels, by id
    of the invoice; an invoice that is missing is unpaid.

    `payees`: the payees that withdrawals name, by id; `unverified` also has payees with a wrong MAC. `with_payees`: the
    merchants of withdrawals without payee that have a payee. These rows are read, and not locked.

    `in_reserve`: the reserves of merchants of releases, by id; `by_amount` falls with each release of the batch.
    """

    payments: dict[UUID, Progress]
    originals: dict[UUID, Order]
    settling: set[UUID]
    undecided: set[str]
    debts: dict[str, int]
    booked: dict[Receipt, Any]
    unverified: dict[UUID, str]
    unverified_merchants: dict[str, str]
    unverified_debts: dict[str, str]
    settled_parts: dict[UUID, list[tuple[UUID, int, int, int]]] = {}
    won: dict[UUID, int] = {}
    parts: dict[UUID, Parts] = {}
    paid: dict[UUID, int] = {}
    terms: dict[str, Terms] = {}
    payees: dict[UUID, Payee] = {}
    with_payees: set[str] = set()
    in_reserve: dict[str, Reserve] = {}


class Changes(msgspec.Struct):
    """The rows that a batch changes. `returned`: withdrawals by id, with their new returned amounts."""

    payments: dict[UUID, Progress] = {}
    reversed: list[Order] = []
    returned: dict[UUID, Order] = {}
    parts: dict[UUID, Parts] = {}


def receipt_of(order: Order, locked: Locked) -> Receipt | None:
    """Return the receipt of an order, or None if it has none. A chargeback has the channel of its payment, a payout
    return that of its withdrawal.
    """
    payment = None if order.of_order is None else locked.originals.get(order.of_order)
    channel = order.channel if payment is None else payment.channel
    direction = RECEIPTS.get(order.kind)
    if channel is None or order.channel_ref is None or direction is None:
        return None
    return channel, order.channel_ref, direction


def receipts_of(order: Order, locked: Locked) -> list[Receipt]:
    """Return the receipts of an order: that of its channel, and that of the channel that own money leaves."""
    receipt = receipt_of(order, locked)
    found = [] if receipt is None else [receipt]
    if order.counterparty is not None and order.counter_ref is not None:
        found.append((order.counterparty, order.counter_ref, "out"))
    return found


def is_booked(order: Order, locked: Locked) -> Refusal | None:
    """Return a refusal if another order has a receipt of this order. An order that is approved has its receipts
    already.
    """
    for receipt in receipts_of(order, locked):
        there = locked.booked.get(receipt)
        if there is not None and there["id"] != order.id:
            return receipt_booked(receipt, there)
    return None


def receipt_booked(receipt: Receipt, there: Any) -> Refusal:
    """Return the refusal of a receipt. `there`: the kind, number, merchant and id of the order that has the receipt."""
    channel, ref, direction = receipt
    first = f"{there['kind']} {there['order_no']} of {there['merchant']} ({there['id']})"
    field = "invoice_no" if direction == RECEIPTS[Kind.CHANNEL_INVOICE] else "channel_ref"
    return Refusal(Code.RECEIPT_ALREADY_BOOKED, f"{ref} of channel {channel} is already booked by {first}", field)


def set_off(order: Order, credit: int, locked: Locked) -> None:
    """Reserve the set-off of a credit: as much of the merchant's debt as the credit can repay. A debt that does not
    match its MAC is left as it is, because a credit must not be refused for it.
    """
    owed = locked.debts.get(order.merchant, 0)
    order.set_off = min(credit, owed)
    if order.set_off:
        locked.debts[order.merchant] = owed - order.set_off


def repay(order: Order, locked: Locked) -> Refusal | OrderFault | None:
    """Reserve a recovery or a write-off from the merchant's debt."""
    if order.merchant in locked.unverified_debts:
        return OrderFault(locked.unverified_debts[order.merchant], tampered=True)
    owed = locked.debts.get(order.merchant, 0)
    if order.amount > owed:
        return Refusal(Code.DEBT_EXCEEDED, f"merchant {order.merchant} owes {owed}", "amount")
    if order.state is State.CREATED:
        # The approval reserves.
        return None
    locked.debts[order.merchant] = owed - order.amount
    return None


def take(progress: Progress, order: Order, sign: int = 1) -> None:
    """Reserve the amounts of a refund, a chargeback or a dispute on its payment. With `sign` -1, release the
    amounts.
    """
    progress.fee_waived += sign * order.fee_waived
    if order.kind is not Kind.REFUND:
        progress.charged_back += sign * order.amount
        progress.charged_back_unsettled += sign * order.from_pending
        return
    progress.refunded += sign * order.amount
    progress.refunded_unsettled += sign * order.from_pending
    progress.fee_returned += sign * order.fee
    progress.tax_returned += sign * order.tax


def paid(draft: Draft, locked: Locked) -> Progress | Refusal:
    """Return the progress of the payment from which an order reserves. Copy the channel and currency of the payment
    into the order.
    """
    order = draft.order
    payment = locked.originals.get(payment_of(draft))
    number = getattr(draft.request, "payment_order_no", "")
    if payment is None:
        detail = f"merchant {order.merchant} has no payment {number}"
        return Refusal(Code.PAYMENT_NOT_FOUND, detail, "payment_order_no")
    progress = locked.payments.get(payment.id)
    if progress is None:
        detail = f"payment {number} is {payment.state}"
        return Refusal(Code.PAYMENT_NOT_POSTED, detail, "payment_order_no")
    if progress.reversed:
        return Refusal(Code.ORDER_ALREADY_REVERSED, f"payment {number} is reversed", "payment_order_no")
    order.channel, order.currency = payment.channel, payment.currency
    return progress


def keeps_fee(merchant: Merchant | None, version: int | None) -> bool | OrderFault:
    """Return whether a fee that was charged by this version of a fee rule is kept when the payment is refunded. Return
    a fault if the worker has not loaded the rule.
    """
    if version is None:
        return False
    for rule in () if merchant is None else merchant.fee_rules:
        if rule.version == version:
            return rule.returned == "none"
    return OrderFault(f"version {version} of the fee rules is not loaded; send this request again")


def refund(draft: Draft, locked: Locked, changes: Changes) -> Refusal | OrderFault | None:
    """Reserve a refund, first from the pending amount of the payment, then from the settled amount. The fee of the
    pending part is waived, and the fee of the settled part is returned, unless the fee rule keeps the fee.
    """
    payment = paid(draft, locked)
    if isinstance(payment, Refusal):
        return payment
    order = draft.order
    if payment.order_id in locked.settling:
        # During a settlement it is unknown whether the fee was charged. Only a charged fee may be returned.
        detail = "a settlement of the payment is in progress; retry later"
        return Refusal(Code.PAYMENT_BEING_SETTLED, detail, "payment_order_no")
    if order.amount > payment.returnable:
        detail = f"{payment.returnable} of the payment's {payment.amount} can be refunded"
        return Refusal(Code.REFUND_EXCEEDS_PAYMENT, detail, "amount")
    keeps = keeps_fee(draft.merchant, locked.originals[payment.order_id].fee_version)
    if isinstance(keeps, OrderFault):
        return keeps
    settled_left = payment.settled - (payment.refunded - payment.refunded_unsettled)
    order.fee = order.tax = 0
    settled = order.amount - take_pending(payment, order, keeps=keeps)
    if settled and not keeps:
        fee_left = payment.fee_settled - payment.fee_returned
        order.fee = part_of(fee_left, settled_left, settled)
        order.tax = part_of(payment.tax_settled - payment.tax_returned, fee_left, order.fee)
    take(payment, order)
    changes.payments[payment.order_id] = payment
    return None


def take_pending(payment: Progress, order: Order, *, keeps: bool = False) -> int:
    """Set the part of a refund or chargeback that the pending amount of its payment covers, and the fee that is waived
    for this part. Return the part. If the fee rule keeps the fee, a refund waives nothing: a later settlement charges
    the fee. A chargeback then waives its share of what would be pending without the refunds.
    """
    order.from_pending, order.fee_waived = min(order.amount, payment.unsettled), 0
    if order.from_pending and not (keeps and order.kind is Kind.REFUND):
        pending = payment.unsettled + (payment.refunded_unsettled if keeps else 0)
        fee_left = payment.fee - payment.fee_settled - payment.fee_waived
        order.fee_waived = part_of(fee_left, pending, order.from_pending)
    return order.from_pending


def charge_back(draft: Draft, locked: Locked, changes: Changes) -> Refusal | OrderFault | None:
    """Reserve a chargeback or a dispute, first from the pending amount of the payment. Set the part that the merchant
    owes: what exceeds the available balance `draft.debitable` of the rest. A settlement in progress counts as posted.
    If it is refused, a later settlement of the payment repays the debt.
    """
    payment = paid(draft, locked)
    if isinstance(payment, Refusal):
        return payment
    order = draft.order
    if order.amount > payment.returnable:
        detail = f"{payment.returnable} of the payment's {payment.amount} can be charged back or disputed"
        return Refusal(Code.CHARGEBACK_EXCEEDS_PAYMENT, detail, "amount")
    keeps = keeps_fee(draft.merchant, locked.originals[payment.order_id].fee_version)
    if isinstance(keeps, OrderFault):
        return keeps
    rest = order.amount - take_pending(payment, order, keeps=keeps)
    order.to_receivable = rest - min(draft.debitable, rest)
    take(payment, order)
    changes.payments[payment.order_id] = payment
    return None


def reverse(draft: Draft, locked: Locked, changes: Changes) -> Refusal | OrderFault | None:
    order = draft.order
    original = locked.originals.get(payment_of(draft))
    if original is None:
        return Refusal(Code.ORDER_NOT_FOUND, "the order to reverse does not exist", "of_order_no")
    if original.state != State.POSTED:
        return Refusal(Code.ORDER_NOT_REVERSIBLE, f"the order is {original.state}", "of_order_no")
    if original.reversed_by is not None:
        return Refusal(Code.ORDER_ALREADY_REVERSED, "the order is already reversed", "of_order_no")
    no = irreversible(original, locked)
    if no is not None:
        return no
    if original.parked_voucher_id is not None:
        # The reversal of the voucher that released the order would leave the voucher that parked it.
        instead = "; refund it instead" if original.kind is Kind.PAYMENT else ""
        return Refusal(Code.ORDER_NOT_REVERSIBLE, f"the order was parked{instead}", "of_order_no")
    payment = locked.payments.get(original.id)
    if payment is not None:
        if payment.reversed:
            # The account service would refuse the reversal. Then the release of its reservation would clear
            # `payment.reversed`.
            return Refusal(Code.ORDER_ALREADY_REVERSED, "the payment is already reversed", "of_order_no")
        if payment.refunded or payment.charged_back:
            detail = "the payment is partly refunded or charged back; refund the rest instead"
            return Refusal(Code.ORDER_NOT_REVERSIBLE, detail, "of_order_no")
        if original.settle == "later" and payment.settled:
            return Refusal(Code.ORDER_NOT_REVERSIBLE, "the payment is settled; refund it instead", "of_order_no")
    parts = locked.parts.get(original.id, {})
    if any(part.refunded or part.charged_back for part in parts.values()):
        detail = "the payment is partly refunded or charged back; refund the rest instead"
        return Refusal(Code.ORDER_NOT_REVERSIBLE, detail, "of_order_no")
    if locked.paid.get(original.id):
        detail = f"{locked.paid[original.id]} of the invoice is paid; reverse its payments first"
        return Refusal(Code.ORDER_NOT_REVERSIBLE, detail, "of_order_no")
    order.amount, order.fee, order.currency = original.amount, original.fee, original.currency
    order.channel, order.settle, order.direction = original.channel, original.settle, original.direction
    order.against, order.of_voucher = original.against, original.voucher_id
    order.tax, order.period = original.tax, original.period
    # The voucher of the reversal undoes the set-off, so the merchant owes this part again.
    order.to_receivable = debts.repaid(original)
    if original.parts is not None:
        order.parts = [msgspec.structs.replace(part, set_off=0, to_receivable=part.set_off) for part in original.parts]
    if order.state is State.CREATED:
        # The approval reserves.
        return None
    if payment is not None:
        payment.reversed = True
        changes.payments[payment.order_id] = payment
    if parts:
        for part in parts.values():
            part.reversed = True
        changes.parts[original.id] = parts
    original.reversed_by = order.id
    changes.reversed.append(original)
    return None


def irreversible(original: Order, locked: Locked) -> Refusal | OrderFault | None:
    """Return why an order of a kind that is not a payment cannot be reversed, or None if it can."""
    if original.kind in (Kind.DISPUTE_FEE, Kind.SPLIT_CHARGEBACK) and original.to_receivable:
        detail = "a part of it became a debt of the merchant; adjust or write off instead"
        return Refusal(Code.ORDER_NOT_REVERSIBLE, detail, "of_order_no")
    if original.kind is not Kind.SETTLEMENT:
        return None
    for payment, amount, fee, tax in locked.settled_parts.get(original.id, ()):
        progress = locked.payments.get(payment)
        if progress is None:
            return OrderFault(f"the fund.payments row of payment {payment} does not match its MAC", tampered=True)
        refunded = progress.refunded - progress.refunded_unsettled
        charged_back = progress.charged_back - progress.charged_back_unsettled
        is_taken = progress.settled - amount < refunded + charged_back
        left = progress.settled - amount - refunded
        fee_left = progress.fee_settled - fee - progress.fee_returned
        tax_left = progress.tax_settled - tax - progress.tax_returned
        # A later refund returns a part of what is left: of the tax with the fee, and of the fee with the amount.
        if is_taken or not 0 <= tax_left <= fee_left <= left:
            detail = "a settled payment is partly refunded or charged back; refund the rest instead"
            return Refusal(Code.ORDER_NOT_REVERSIBLE, detail, "of_order_no")
    return None


def in_state(order: Order, locked: Locked) -> Refusal | None:
    """Return a refusal if the state of the merchant does not permit the order."""
    terms = locked.terms.get(order.merchant)
    return None if terms is None else refusal_in(terms.state, order.merchant, order.kind, order.module)


def return_payout(draft: Draft, locked: Locked, changes: Changes) -> Refusal | None:
    """Reserve a payout return from the amount of its withdrawal. Copy the channel and currency of the withdrawal into
    the order. With `fee` `returned`, a return of a part of the withdrawal returns the same part of its fee, and the tax
    in it, rounded down. So the returned fees never exceed the fee of the withdrawal, whatever is returned and reversed.
    """
    order = draft.order
    assert isinstance(draft.request, PayoutReturn)
    number = draft.request.withdrawal_order_no
    withdrawal = locked.originals.get(payment_of(draft))
    if withdrawal is None:
        detail = f"merchant {order.merchant} has no withdrawal {number}"
        return Refusal(Code.WITHDRAWAL_NOT_FOUND, detail, "withdrawal_order_no")
    if withdrawal.state is not State.PAID:
        detail = f"withdrawal {number} is {withdrawal.state}"
        return Refusal(Code.WITHDRAWAL_NOT_PAID, detail, "withdrawal_order_no")
    left = withdrawal.amount - withdrawal.returned
    if order.amount > left:
        detail = f"{left} of the withdrawal's {withdrawal.amount} can be returned"
        return Refusal(Code.RETURN_EXCEEDS_WITHDRAWAL, detail, "amount")
    order.channel, order.currency = withdrawal.channel, withdrawal.currency
    order.fee, order.tax, order.fee_version = 0, 0, None
    if draft.request.fee == "returned":
        order.fee = part_of(withdrawal.fee, withdrawal.amount, order.amount)
        order.tax = part_of(withdrawal.tax, withdrawal.fee, order.fee)
        order.fee_version = withdrawal.fee_version
    set_off(order, order.amount + order.fee, locked)
    withdrawal.returned += order.amount
    changes.returned[withdrawal.id] = withdrawal
    return None


def settle_part(payment: Progress, wanted: int) -> tuple[int, int, int]:
    """Settle the pending amount of a payment, but at most `wanted`. Return `(settled amount, fee of it, tax in it)`. If
    refunds have kept the fee, more of it may be left than the amount can bear.
    """
    amount = min(payment.unsettled, wanted)
    fee = min(amount, part_of(payment.fee - payment.fee_settled - payment.fee_waived, payment.unsettled, amount))
    # The remaining tax belongs to the remaining fee, of which a part may be waived: its tax is never charged.
    tax = part_of(payment.tax - payment.tax_settled, payment.fee - payment.fee_settled, fee)
    payment.settled += amount
    payment.fee_settled += fee
    payment.tax_settled += tax
    return amount, fee, tax
