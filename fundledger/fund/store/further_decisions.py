"""Store of the fund service: decisions of reservations for transfers, won disputes, cleared orders and payments of
invoices. Pure, as `decisions.py`, which has the other decisions.
"""

from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.drafts import Draft, payment_of
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AMOUNT_MAX
from fundledger.fund.store.decisions import Changes, Locked, set_off
from fundledger.fund.store.mac_layouts import Progress


def transfer(order: Order, locked: Locked) -> Refusal | OrderFault | None:
    """Reserve the set-offs of a transfer. As in a withdrawal, the merchant also repays its whole debt. The receiving
    merchant repays its debt as far as the amount reaches.
    """
    assert order.counterparty is not None
    if order.merchant in locked.unverified_debts:
        return OrderFault(locked.unverified_debts[order.merchant], tampered=True)
    if order.merchant in locked.undecided:
        detail = f"an order that may change the debt of merchant {order.merchant} is in progress"
        return Refusal(Code.DEBT_IN_PROGRESS, detail)
    owed = locked.debts.get(order.merchant, 0)
    if order.amount + owed > AMOUNT_MAX:
        return Refusal(Code.DEBT_EXCEEDED, f"amount and the debt of {owed} exceed {AMOUNT_MAX}", "amount")
    order.set_off = owed
    if owed:
        locked.debts[order.merchant] = 0
    owed = locked.debts.get(order.counterparty, 0)
    order.counter_set_off = min(order.amount, owed)
    if order.counter_set_off:
        locked.debts[order.counterparty] = owed - order.counter_set_off
    return None


def win(draft: Draft, locked: Locked, changes: Changes) -> Refusal | OrderFault | None:
    """Reserve a won dispute from the amount of its chargeback, which the payer's bank returned. The payment can be
    refunded or charged back again. Copy the channel and currency of the chargeback into the order.
    """
    order = draft.order
    number = getattr(draft.request, "chargeback_order_no", "")
    original = locked.originals.get(payment_of(draft))
    if original is None:
        detail = f"merchant {order.merchant} has no {order.of_kind} {number}"
        return Refusal(Code.ORDER_NOT_FOUND, detail, "chargeback_order_no")
    ended = (State.LOST,) if original.kind is Kind.DISPUTE else (State.POSTED, State.PARKED)
    if original.state not in ended:
        detail = f"{original.kind} {number} is {original.state}"
        return Refusal(Code.CHARGEBACK_NOT_POSTED, detail, "chargeback_order_no")
    if original.reversed_by is not None:
        detail = f"{original.kind} {number} is being cleared by {original.reversed_by}"
        return Refusal(Code.CHARGEBACK_NOT_POSTED, detail, "chargeback_order_no")
    won = locked.won.get(original.id, 0)
    if won + order.amount > original.amount:
        detail = f"{original.amount - won} of the {original.amount} can come back"
        return Refusal(Code.WIN_EXCEEDS_CHARGEBACK, detail, "amount")
    payment = None if original.of_order is None else locked.payments.get(original.of_order)
    if payment is None:
        detail = f"the fund.payments row of payment {original.of_order} does not match its MAC, or is missing"
        return OrderFault(detail, tampered=True)
    order.channel, order.currency = original.channel, original.currency
    # The part that was taken from the settled amount comes back first.
    settled = original.amount - original.from_pending
    order.from_pending = max(0, won + order.amount - settled) - max(0, won - settled)
    give(payment, order)
    changes.payments[payment.order_id] = payment
    locked.won[original.id] = won + order.amount
    set_off(order, order.amount, locked)
    return None


def give(payment: Progress, order: Order) -> None:
    """Return the amount of a won dispute to its payment. The part that was taken from the pending amount counts as
    settled, because it is credited to the available balance.
    """
    payment.charged_back -= order.amount
    payment.charged_back_unsettled -= order.from_pending
    payment.settled += order.from_pending


def clear(draft: Draft, locked: Locked, changes: Changes) -> Refusal | None:
    """Reserve a parked order for its clearing: it can be neither released nor cleared again. Copy its amount, channel
    and currency into the order.
    """
    order = draft.order
    parked = locked.originals.get(payment_of(draft))
    if parked is None:
        return Refusal(Code.ORDER_NOT_FOUND, "the order to clear does not exist", "of_order_no")
    if parked.state is not State.PARKED:
        return Refusal(Code.ORDER_NOT_PARKED, f"the order is {parked.state}", "of_order_no")
    if parked.reversed_by is not None:
        return Refusal(Code.ORDER_NOT_PARKED, f"the order is being cleared by {parked.reversed_by}", "of_order_no")
    if locked.won.get(parked.id):
        # The merchant has this amount: another merchant, or the platform, would bear it a second time.
        detail = f"{locked.won[parked.id]} of the order came back as a won dispute; release the order instead"
        return Refusal(Code.ORDER_NOT_PARKED, detail, "of_order_no")
    if order.direction == "out" and parked.from_pending:
        # The merchant still has the pending part, and no other order would ever take it.
        detail = f"{parked.from_pending} of the order is pending money of its merchant; release the order instead"
        return Refusal(Code.ORDER_NOT_PARKED, detail, "of_order_no")
    if order.currency != parked.currency:
        return Refusal(Code.CURRENCY_MISMATCH, f"the currency of the order is {parked.currency}", "merchant")
    order.amount, order.channel = parked.amount, parked.channel
    if order.state is State.CREATED:
        # The approval reserves.
        return None
    if order.direction == "in" and order.against == "merchant":
        set_off(order, order.amount, locked)
    parked.reversed_by = order.id
    changes.reversed.append(parked)
    return None


def release_reserve(draft: Draft, locked: Locked, changes: Changes) -> Refusal | None:
    """Reserve a hold for its release, or an amount from the holds without a release day. Copy the amount of the hold
    into the order. The release repays the merchant's debt first.
    """
    order, reserve = draft.order, locked.in_reserve[draft.order.merchant]
    hold = None
    if order.of_order is not None:
        hold = locked.originals.get(order.of_order)
        if hold is None:
            number = getattr(draft.request, "hold_order_no", "")
            return Refusal(Code.ORDER_NOT_FOUND, f"merchant {order.merchant} has no hold {number}", "hold_order_no")
        if hold.state is not State.POSTED:
            return Refusal(Code.ORDER_NOT_POSTED, f"the hold is {hold.state}", "hold_order_no")
        if hold.reversed_by is not None:
            return Refusal(
                Code.RESERVE_HOLD_RELEASED, f"the hold is being released by {hold.reversed_by}", "hold_order_no"
            )
        order.amount = hold.amount
    if hold is None or hold.settle_on is None:
        if order.amount > reserve.by_amount:
            detail = f"{max(0, reserve.by_amount)} is held without a release day"
            return Refusal(Code.RESERVE_EXCEEDED, detail, "amount" if hold is None else "hold_order_no")
        # Another release may follow in this batch.
        reserve.by_amount -= order.amount
    if hold is not None:
        hold.reversed_by = order.id
        changes.reversed.append(hold)
    set_off(order, order.amount, locked)
    return None


def pay_invoice(draft: Draft, locked: Locked) -> Refusal | None:
    """Reserve a payment of an invoice of a channel: payments that are neither refused nor reversed never exceed it."""
    order, invoice = draft.order, locked.originals.get(payment_of(draft))
    if invoice is None or (invoice.channel, invoice.currency) != (order.channel, order.currency):
        detail = f"there is no such invoice of channel {order.channel} in {order.currency}"
        return Refusal(Code.ORDER_NOT_FOUND, detail, "invoice_order_no")
    unpaid = invoice.amount - locked.paid.get(invoice.id, 0)
    state = "reversed" if invoice.reversed_by is not None else invoice.state
    if state != State.POSTED:
        code = Code.ORDER_NOT_POSTED if invoice.reversed_by is None else Code.ORDER_ALREADY_REVERSED
        return Refusal(code, f"the invoice is {state}", "invoice_order_no")
    if order.amount > unpaid:
        return Refusal(Code.INVOICE_EXCEEDED, f"{unpaid} of the invoice's {invoice.amount} is unpaid", "amount")
    order.period = invoice.period
    if order.state is State.POSTING:
        # Another payment of the invoice may follow in this batch.
        locked.paid[invoice.id] = locked.paid.get(invoice.id, 0) + order.amount
    return None
