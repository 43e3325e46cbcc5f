"""Which flows of money exist: from an order to the entries of its voucher. Pure; what each looks like is shown line by
line in tests/fund/test_flows.py.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from fundledger.fund import accounts
from fundledger.fund.order import Kind, Order

Side = Literal["debit", "credit"]
Ending = Literal["paid", "bounced"]
Moves = list[tuple[str, int]]
"""Account ids, and by how much each is credited; a debit is negative."""

VOUCHER_TYPES: Final = {
    Kind.PAYMENT: "pay",
    Kind.REFUND: "refund",
    Kind.SETTLEMENT: "settle",
    Kind.WITHDRAWAL: "withdraw",
    Kind.CHARGEBACK: "chargeback",
    Kind.RECOVERY: "recovery",
    Kind.WRITE_OFF: "write_off",
    Kind.ADJUSTMENT: "adjustment",
    Kind.CHANNEL_COST: "channel_cost",
    Kind.BANK_DIFFERENCE: "bank_difference",
    Kind.REVERSAL: "reversal",
}
END_VOUCHER_TYPES: Final[dict[Ending, str]] = {"paid": "withdraw_paid", "bounced": "withdraw_bounced"}


class Entry(NamedTuple):
    """`amount` > 0, in minor units."""

    account: str
    side: Side
    amount: int


def voucher_type(kind: Kind) -> str:
    return VOUCHER_TYPES[Kind(kind)]


def end_voucher_type(ending: Ending) -> str:
    return END_VOUCHER_TYPES[ending]


def entries_of(order: Order) -> list[Entry]:
    """What posting the order moves: debits first, each account once, debits = credits. Of a reversal nothing: its
    voucher is the account service's, made from the one that it reverses.
    """
    return _entries(_FLOWS[Kind(order.kind)](order))


def end_entries_of(order: Order, ending: Ending) -> list[Entry]:
    """What the end of a withdrawal moves, which was posted before."""
    assert order.kind is Kind.WITHDRAWAL, order.kind
    transit = accounts.payout_transit(_channel(order), order.currency)
    if ending == "paid":
        return _entries([(transit, -order.amount), (_bank(order), order.amount)])
    return _entries(
        [
            (transit, -order.amount),
            (accounts.fee_income(order.currency), -order.fee),
            (accounts.available(order.merchant), order.amount + order.fee),
        ]
    )


def _payment(order: Order) -> Moves:
    if order.settle == "later":
        return [(_bank(order), -order.amount), (accounts.pending(order.merchant), order.amount)]
    return [
        (_bank(order), -order.amount),
        (accounts.available(order.merchant), _after_fee(order.amount, order.fee)),
        (accounts.fee_income(order.currency), order.fee),
    ]


def _refund(order: Order) -> Moves:
    return [
        (accounts.pending(order.merchant), -order.from_pending),
        (accounts.available(order.merchant), -_after_fee(order.amount - order.from_pending, order.fee)),
        (accounts.fee_income(order.currency), -order.fee),
        (_bank(order), order.amount),
    ]


def _settlement(order: Order) -> Moves:
    return [
        (accounts.pending(order.merchant), -order.amount),
        (accounts.available(order.merchant), _after_fee(order.amount, order.fee)),
        (accounts.fee_income(order.currency), order.fee),
    ]


def _withdrawal(order: Order) -> Moves:
    return [
        (accounts.available(order.merchant), -order.amount - order.fee),
        (accounts.payout_transit(_channel(order), order.currency), order.amount),
        (accounts.fee_income(order.currency), order.fee),
    ]


def _chargeback(order: Order) -> Moves:
    return [
        (accounts.available(order.merchant), order.to_receivable - order.amount),
        (accounts.receivable(order.merchant), -order.to_receivable),
        (_bank(order), order.amount),
    ]


def _recovery(order: Order) -> Moves:
    return [
        (accounts.available(order.merchant), -order.amount),
        (accounts.receivable(order.merchant), order.amount),
    ]


def _write_off(order: Order) -> Moves:
    return [(accounts.loss(order.currency), -order.amount), (accounts.receivable(order.merchant), order.amount)]


def _adjustment(order: Order) -> Moves:
    if _direction(order, "credit", "debit") == "credit":
        return [
            (accounts.suspense_short(order.currency), -order.amount),
            (accounts.available(order.merchant), order.amount),
        ]
    return [(accounts.available(order.merchant), -order.amount), (accounts.suspense_over(order.currency), order.amount)]


def _channel_cost(order: Order) -> Moves:
    return [(accounts.channel_cost(order.currency), -order.amount), (_bank(order), order.amount)]


def _bank_difference(order: Order) -> Moves:
    if _direction(order, "more", "less") == "more":
        return [(_bank(order), -order.amount), (accounts.suspense_over(order.currency), order.amount)]
    return [(accounts.suspense_short(order.currency), -order.amount), (_bank(order), order.amount)]


def _reversal(_: Order) -> Moves:
    return []


_FLOWS: Final[dict[Kind, Callable[[Order], Moves]]] = {
    Kind.PAYMENT: _payment,
    Kind.REFUND: _refund,
    Kind.SETTLEMENT: _settlement,
    Kind.WITHDRAWAL: _withdrawal,
    Kind.CHARGEBACK: _chargeback,
    Kind.RECOVERY: _recovery,
    Kind.WRITE_OFF: _write_off,
    Kind.ADJUSTMENT: _adjustment,
    Kind.CHANNEL_COST: _channel_cost,
    Kind.BANK_DIFFERENCE: _bank_difference,
    Kind.REVERSAL: _reversal,
}


def _bank(order: Order) -> str:
    return accounts.bank(_channel(order), order.currency)


def _channel(order: Order) -> str:
    assert order.channel is not None, order.id
    return order.channel


def _direction(order: Order, *known: str) -> str:
    assert order.direction in known, (order.id, order.direction)
    return order.direction


def _after_fee(amount: int, fee: int) -> int:
    assert 0 <= fee <= amount, (amount, fee)
    return amount - fee


def _entries(moves: Moves) -> list[Entry]:
    credited: dict[str, int] = {}
    for account, amount in moves:
        credited[account] = credited.get(account, 0) + amount
    assert sum(credited.values()) == 0, moves
    debits = [Entry(account, "debit", -amount) for account, amount in credited.items() if amount < 0]
    return debits + [Entry(account, "credit", amount) for account, amount in credited.items() if amount > 0]
