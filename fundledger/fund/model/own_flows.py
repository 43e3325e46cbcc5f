"""Model of the fund service: the flows of the platform's own money, of suspense, of disputes and of money that no
payment moves. `flows.py` has the other flows. Pure.
"""

from typing import Final

from fundledger.fund.model import accounts
from fundledger.fund.model.moves import KindRules, Moves, after_fee, bank, channel, charge, credit, direction, fee
from fundledger.fund.model.order import Kind, Order


def _own_transfer(order: Order) -> Moves:
    return [(accounts.own_transit(order.currency), -order.amount), (_bank_of_counterparty(order), order.amount)]


def _own_funds(order: Order) -> Moves:
    if direction(order, "in", "out") == "in":
        return [(bank(order), -order.amount), (accounts.own_funds(order.currency), order.amount)]
    return [(accounts.own_funds(order.currency), -order.amount), (bank(order), order.amount)]


def _fee_sweep(order: Order) -> Moves:
    return [(accounts.own_funds(order.currency), -order.amount), (bank(order), order.amount)]


def _payable_payment(order: Order) -> Moves:
    if order.against == "tax":
        owed = accounts.tax_output(order.currency)
    else:
        assert order.against is None, (order.id, order.against)
        owed = accounts.payable(channel(order), order.currency)
    return [(owed, -order.amount), (bank(order), order.amount)]


def _channel_invoice(order: Order) -> Moves:
    return [
        (accounts.channel_cost(order.currency), -order.amount),
        (accounts.payable(channel(order), order.currency), order.amount),
    ]


def _suspense_clearing(order: Order) -> Moves:
    if direction(order, "more", "less") == "more":
        return [(accounts.suspense_over(order.currency), -order.amount), *_explained(order, order.amount)]
    return [*_explained(order, -order.amount), (accounts.suspense_short(order.currency), order.amount)]


def _parked_clearing(order: Order) -> Moves:
    parked = accounts.suspense_parked(order.currency)
    if direction(order, "in", "out") == "in":
        return [(parked, -order.amount), *_explained(order, order.amount)]
    return [*_explained(order, -order.amount), (parked, order.amount)]


def _explained(order: Order, amount: int) -> Moves:
    """Return the entry on the account that explains an amount in suspense."""
    match order.against:
        case "merchant":
            return credit(order, amount) if amount > 0 else [(accounts.available(order.merchant), amount)]
        case "income":
            account = accounts.other_income(order.currency)
        case "bank":
            account = bank(order)
        case "short":
            account = accounts.suspense_short(order.currency)
        case "loss":
            account = accounts.loss(order.currency)
        case _:
            assert order.against == "channel", (order.id, order.against)
            account = accounts.channel_cost(order.currency)
    return [(account, amount)]


def _top_up(order: Order) -> Moves:
    return [
        (bank(order), -order.amount),
        *credit(order, after_fee(order.amount, order.fee)),
        *fee(order),
    ]


def _transfer(order: Order) -> Moves:
    other = _counterparty(order)
    assert 0 <= order.counter_set_off <= order.amount, (order.id, order.counter_set_off)
    return [
        (accounts.available(order.merchant), -order.amount - order.set_off),
        (accounts.receivable(order.merchant), order.set_off),
        (accounts.available(other), order.amount - order.counter_set_off),
        (accounts.receivable(other), order.counter_set_off),
    ]


def _reserve_hold(order: Order) -> Moves:
    return [(accounts.available(order.merchant), -order.amount), (accounts.reserve(order.merchant), order.amount)]


def _reserve_release(order: Order) -> Moves:
    return [(accounts.reserve(order.merchant), -order.amount), *credit(order, order.amount)]


def _dispute(order: Order) -> Moves:
    return [
        (accounts.pending(order.merchant), -order.from_pending),
        *charge(order, order.amount - order.from_pending),
        (accounts.disputed(order.merchant), order.amount),
    ]


def _dispute_won(order: Order) -> Moves:
    return [(bank(order), -order.amount), *credit(order, order.amount)]


def _dispute_fee(order: Order) -> Moves:
    return [*charge(order, order.amount), (outside_of(order), order.amount)]


def outside_of(order: Order) -> str:
    """Return the account on which a fact moves money between the platform and a channel."""
    if order.against == "payable":
        return accounts.payable(channel(order), order.currency)
    return bank(order)


def end_of(order: Order, ending: str) -> Moves:
    """Return the moves that end a posted own transfer or dispute."""
    if order.kind is Kind.OWN_TRANSFER:
        arrived = bank(order) if ending == "paid" else _bank_of_counterparty(order)
        return [(arrived, -order.amount), (accounts.own_transit(order.currency), order.amount)]
    assert order.kind is Kind.DISPUTE, order.kind
    if ending == "lost":
        return [(accounts.disputed(order.merchant), -order.amount), (bank(order), order.amount)]
    return [
        (accounts.disputed(order.merchant), -order.amount),
        (accounts.pending(order.merchant), order.from_pending),
        (accounts.available(order.merchant), order.amount - order.from_pending - order.end_set_off),
        (accounts.receivable(order.merchant), order.end_set_off),
    ]


def _bank_of_counterparty(order: Order) -> str:
    return accounts.bank(_counterparty(order), order.currency)


def _counterparty(order: Order) -> str:
    assert order.counterparty is not None, order.id
    return order.counterparty


OWN_RULES: Final[dict[Kind, KindRules]] = {
    Kind.OWN_TRANSFER: KindRules("own_transfer", _own_transfer, of_platform=True),
    Kind.OWN_FUNDS: KindRules("own_funds", _own_funds, of_platform=True),
    Kind.FEE_SWEEP: KindRules("fee_sweep", _fee_sweep, of_platform=True),
    Kind.PAYABLE_PAYMENT: KindRules("payable_payment", _payable_payment, of_platform=True),
    Kind.CHANNEL_INVOICE: KindRules("channel_invoice", _channel_invoice, of_platform=True),
    Kind.SUSPENSE_CLEARING: KindRules("suspense_clearing", _suspense_clearing, of_platform=True),
    Kind.PARKED_CLEARING: KindRules("parked_clearing", _parked_clearing, of_platform=True),
    Kind.TOP_UP: KindRules("top_up", _top_up),
    Kind.TRANSFER: KindRules("transfer", _transfer),
    Kind.RESERVE_HOLD: KindRules("reserve_hold", _reserve_hold),
    Kind.RESERVE_RELEASE: KindRules("reserve_release", _reserve_release),
    Kind.DISPUTE_WON: KindRules("dispute_won", _dispute_won),
    Kind.DISPUTE_FEE: KindRules("dispute_fee", _dispute_fee),
    Kind.DISPUTE: KindRules("dispute", _dispute),
}
