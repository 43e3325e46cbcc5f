"""Model of the fund service: the flows of split orders. `flows.py` has the other flows. Pure."""

from typing import Final

from fundledger.fund.model import accounts
from fundledger.fund.model.moves import KindRules, Moves, after_fee, bank, credit, fee, transit
from fundledger.fund.model.order import Kind, Order, SplitPart
from fundledger.fund.model.split import are_distinct


def _split_payment(order: Order) -> Moves:
    return [
        (bank(order), -order.amount),
        *[move for part in _parts(order) for move in credit(part, after_fee(part.amount, part.fee))],
        *fee(order),
    ]


def _split_refund(order: Order) -> Moves:
    return [
        *[(accounts.available(part.merchant), -after_fee(part.amount, part.fee)) for part in _parts(order)],
        *fee(order, -1),
        (transit(order), order.amount),
    ]


def _split_chargeback(order: Order) -> Moves:
    moves: Moves = []
    for part in _parts(order):
        moves.append((accounts.available(part.merchant), part.to_receivable - part.amount))
        moves.append((accounts.receivable(part.merchant), -part.to_receivable))
    return [*moves, (bank(order), order.amount)]


def bounced_refund(order: Order) -> Moves:
    """Return the moves that give a bounced split refund back to the merchants of its parts."""
    moves: Moves = [(transit(order), -order.amount), *fee(order)]
    for part in _parts(order):
        back = after_fee(part.amount, part.fee)
        assert 0 <= part.end_set_off <= back, (order.id, part)
        moves.append((accounts.available(part.merchant), back - part.end_set_off))
        moves.append((accounts.receivable(part.merchant), part.end_set_off))
    return moves


def _parts(order: Order) -> list[SplitPart]:
    """Return the parts of a split order. They sum to the amounts of the order."""
    parts = order.parts
    assert parts, order.id
    assert are_distinct(part.merchant for part in parts), (order.id, parts)
    assert min(part.amount for part in parts) > 0, (order.id, parts)
    for name in ("amount", "fee", "tax", "set_off", "to_receivable", "end_set_off"):
        assert min(getattr(part, name) for part in parts) >= 0, (order.id, name)
        assert sum(getattr(part, name) for part in parts) == getattr(order, name), (order.id, name)
    return parts


SPLIT_RULES: Final[dict[Kind, KindRules]] = {
    Kind.SPLIT_PAYMENT: KindRules("split_pay", _split_payment, of_platform=True),
    Kind.SPLIT_REFUND: KindRules("split_refund", _split_refund, of_platform=True),
    Kind.SPLIT_CHARGEBACK: KindRules("split_chargeback", _split_chargeback, of_platform=True),
}
