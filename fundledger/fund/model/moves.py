"""Model of the fund service: what the flows of all kinds of orders share. Pure."""

from collections.abc import Callable
from typing import NamedTuple

from fundledger.fund.model import accounts
from fundledger.fund.model.order import REFUNDS, Order, SplitPart

Moves = list[tuple[str, int]]
"""Pairs of an account id and an amount. The amount is positive for a credit and negative for a debit."""


class KindRules(NamedTuple):
    """The rules of one kind of order. `of_platform`: an order of this kind may belong to the platform."""

    voucher_type: str
    flow: Callable[[Order], Moves]
    of_platform: bool = False


def credit(order: Order | SplitPart, amount: int) -> Moves:
    """Return the entries that credit a merchant. The set-off repays its debt, the rest becomes available."""
    assert 0 <= order.set_off <= amount, (order, amount)
    return [
        (accounts.available(order.merchant), amount - order.set_off),
        (accounts.receivable(order.merchant), order.set_off),
    ]


def charge(order: Order, amount: int) -> Moves:
    """Return the entries that charge a merchant. The part that the available balance does not cover becomes a debt."""
    assert 0 <= order.to_receivable <= amount, (order.id, order.to_receivable, amount)
    return [
        (accounts.available(order.merchant), order.to_receivable - amount),
        (accounts.receivable(order.merchant), -order.to_receivable),
    ]


def fee(order: Order, sign: int = 1) -> Moves:
    """Return the entries of a fee that is charged, or with `sign` -1 returned. Its tax is owed to the tax authority."""
    income = accounts.fee_income(order.currency), sign * (order.fee - order.tax)
    if not order.tax:
        return [income]
    assert 0 < order.tax <= order.fee, (order.id, order.tax, order.fee)
    return [income, (accounts.tax_output(order.currency), sign * order.tax)]


def transit(order: Order) -> str:
    """Return the account that holds the money of an order until it ends."""
    named = accounts.refund_transit if order.kind in REFUNDS else accounts.payout_transit
    return named(channel(order), order.currency)


def bank(order: Order) -> str:
    return accounts.bank(channel(order), order.currency)


def channel(order: Order) -> str:
    assert order.channel is not None, order.id
    return order.channel


def direction(order: Order, *known: str) -> str:
    assert order.direction in known, (order.id, order.direction)
    return order.direction


def after_fee(amount: int, fee: int) -> int:
    assert 0 <= fee <= amount, (amount, fee)
    return amount - fee
