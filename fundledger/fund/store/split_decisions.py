"""Store of the fund service: decisions of reservations of split orders. Pure.

Each function has the form of those in store/decisions.py.
"""

from fundledger.fund.model import split
from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.drafts import Draft, payment_of
from fundledger.fund.model.fees import part_of
from fundledger.fund.model.merchant import refusal_in
from fundledger.fund.model.order import Kind, Order, SplitPart
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store import split_parts
from fundledger.fund.store.decisions import Changes, Locked
from fundledger.fund.store.split_parts import Parts

_EXCEEDS = {
    Kind.SPLIT_REFUND: (Code.REFUND_EXCEEDS_PAYMENT, "refunded"),
    Kind.SPLIT_CHARGEBACK: (Code.CHARGEBACK_EXCEEDS_PAYMENT, "charged back"),
}


def set_off(order: Order, locked: Locked) -> None:
    """Reserve the set-off of each part of a split payment from the debt of its merchant. A debt that does not match its
    MAC is left as it is.
    """
    taken = {}
    for part in order.parts or ():
        owed = locked.debts.get(part.merchant, 0)
        taken[part.merchant] = min(part.amount - part.fee, owed)
        if taken[part.merchant]:
            locked.debts[part.merchant] = owed - taken[part.merchant]
    split.set_off(order, taken)


def refund(draft: Draft, locked: Locked, changes: Changes) -> Refusal | OrderFault | None:
    """Reserve a split refund or a split chargeback from the parts of its payment. A refund returns the fee of each part
    in proportion, and the tax in it, unless the part keeps its fee. A chargeback returns no fee. In its first attempt,
    no merchant owes: if a balance does not cover its part, the next attempt reads the balances.
    """
    order = draft.order
    found = _paid(draft, locked)
    if isinstance(found, Refusal):
        return found
    payment, parts = found
    division = _division(draft, payment, parts)
    if isinstance(division, Refusal):
        return division
    no = _unpermitted(order, division, locked)
    if no is not None:
        return no
    order.channel, order.currency = payment.channel, payment.currency
    order.parts = [_returned(part, parts, division[part.merchant], order) for part in _named(payment, division)]
    for name in ("amount", "fee", "tax"):
        setattr(order, name, sum(getattr(part, name) for part in order.parts))
    split_parts.take(parts, order)
    changes.parts[payment.id] = parts
    return None


def _unpermitted(order: Order, division: dict[str, int], locked: Locked) -> Refusal | OrderFault | None:
    """Return why the state of a merchant does not permit a split refund from its part, or a fault if the merchant does
    not match its MAC. A split chargeback is a fact.
    """
    for merchant in division if order.kind is Kind.SPLIT_REFUND else ():
        if merchant in locked.unverified_merchants:
            return OrderFault(locked.unverified_merchants[merchant], tampered=True)
        terms = locked.terms.get(merchant)
        no = None if terms is None else refusal_in(terms.state, merchant, order.kind, order.module)
        if no is not None:
            return no
    return None


def _paid(draft: Draft, locked: Locked) -> tuple[Order, Parts] | Refusal:
    """Return a split payment and its parts, or why nothing can come back of it."""
    payment = locked.originals.get(payment_of(draft))
    number = getattr(draft.request, "of_order_no", "")
    if payment is None:
        detail = f"{draft.order.merchant} has no split payment {number}"
        return Refusal(Code.PAYMENT_NOT_FOUND, detail, "of_order_no")
    parts = locked.parts.get(payment.id)
    if parts is None:
        return Refusal(Code.PAYMENT_NOT_POSTED, f"split payment {number} is {payment.state}", "of_order_no")
    if any(part.reversed for part in parts.values()):
        return Refusal(Code.ORDER_ALREADY_REVERSED, f"split payment {number} is reversed", "of_order_no")
    return payment, parts


def _division(draft: Draft, payment: Order, parts: Parts) -> dict[str, int] | Refusal:
    """Return the amount of each merchant, or a refusal if one exceeds what is left of its part."""
    code, what = _EXCEEDS[draft.order.kind]
    if draft.division is not None:
        for merchant, amount in draft.division.items():
            left = parts[merchant].returnable if merchant in parts else 0
            if amount > left:
                whose = f"of the part of merchant {merchant}"
                detail = f"{left} {whose} can be {what}" if merchant in parts else f"merchant {merchant} has no part"
                return Refusal(code, detail, "parts")
        return dict(draft.division)
    merchants = split.merchants_of(payment)
    left_of = [parts[merchant].returnable for merchant in merchants]
    if draft.order.amount > sum(left_of):
        return Refusal(code, f"{sum(left_of)} of the payment's {payment.amount} can be {what}", "amount")
    shares = split.divide(draft.order.amount, left_of)
    return {merchant: share for merchant, share in zip(merchants, shares, strict=True) if share}


def _named(payment: Order, division: dict[str, int]) -> list[SplitPart]:
    return [part for part in payment.parts or () if part.merchant in division]


def _returned(part: SplitPart, parts: Parts, amount: int, order: Order) -> SplitPart:
    """Return the part of a refund or chargeback for a part of its payment."""
    of, fee, tax = parts[part.merchant], 0, 0
    if order.kind is Kind.SPLIT_REFUND and not part.keeps_fee:
        fee_left = of.fee - of.fee_returned
        fee = part_of(fee_left, of.amount - of.refunded, amount)
        tax = part_of(of.tax - of.tax_returned, fee_left, fee)
    return SplitPart(part.merchant, amount, fee, tax, fee_version=part.fee_version)
