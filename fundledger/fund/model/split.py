"""Model of the fund service: split orders, whose parts belong to several merchants. Functions divide an amount among
parts, and return the part of one merchant. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from fundledger.fund.model.order import Order, SplitPart


def divide(amount: int, among: Sequence[int]) -> list[int]:
    """Divide an amount in proportion to the weights `among`, by largest remainder. `shares[i]` belongs to `among[i]`.

    Each share is rounded down first. The units that are left go to the shares with the largest remainders, one unit
    each; of equal remainders, the earlier share comes first. So the shares sum to the amount, each differs from its
    exact value by less than one, and if the amount is at most the sum of the weights, no share exceeds its weight.
    """
    total = sum(among)
    assert amount >= 0, amount
    assert total > 0, among
    assert min(among) >= 0, among
    shares = [amount * weight // total for weight in among]
    by_remainder = sorted(range(len(among)), key=lambda i: (-(amount * among[i] % total), i))
    for i in by_remainder[: amount - sum(shares)]:
        shares[i] += 1
    return shares


def merchants_of(order: Order) -> list[str]:
    """Return the merchants whose accounts an order may move. The merchant that owns a split order is one of them only
    if it has a part.
    """
    return [order.merchant] if order.parts is None else [part.merchant for part in order.parts]


def of_merchant(order: Order, merchant: str) -> Order | None:
    """Return an order as it concerns one merchant: a split order with the part of this merchant only, any other order
    unchanged. Return None if a split order has no part of this merchant.
    """
    if order.parts is None:
        return order
    for part in order.parts:
        if part.merchant == merchant:
            return with_parts(msgspec.structs.replace(order, fee_version=part.fee_version), [part])
    return None


def without_debts_of_others(order: Order, merchant: str) -> Order:
    """Return a split order as its owner `merchant` sees it: without what the parts of others owe and repay."""
    none = {"set_off": 0, "to_receivable": 0, "end_set_off": 0}
    parts = [part if part.merchant == merchant else msgspec.structs.replace(part, **none) for part in order.parts or ()]
    return with_parts(order, parts)


def with_parts(order: Order, parts: list[SplitPart]) -> Order:
    """Return a copy of a split order with these parts, and with their sums as its amounts."""
    sums = {name: sum(getattr(part, name) for part in parts) for name in _SUMMED}
    return msgspec.structs.replace(order, parts=parts, **sums)


def set_off(order: Order, set_offs: Mapping[str, int]) -> None:
    """Set the set-off of an order, and those of its parts, by merchant. A merchant that is not named has none."""
    if order.parts is not None:
        order.parts = [msgspec.structs.replace(part, set_off=set_offs.get(part.merchant, 0)) for part in order.parts]
    order.set_off = sum(set_offs.get(merchant, 0) for merchant in merchants_of(order))


def end_set_off(order: Order, set_offs: Mapping[str, int]) -> None:
    """Set the set-off of the end of an order, and those of its parts, as `set_off`."""
    if order.parts is not None:
        order.parts = [
            msgspec.structs.replace(part, end_set_off=set_offs.get(part.merchant, 0)) for part in order.parts
        ]
    order.end_set_off = sum(set_offs.get(merchant, 0) for merchant in merchants_of(order))


def owe(order: Order, covered: Mapping[str, int]) -> None:
    """Set the part of a chargeback that each merchant owes: what exceeds the amount `covered` by its balance."""
    assert order.parts is not None, order.id
    order.parts = [
        msgspec.structs.replace(part, to_receivable=part.amount - min(covered.get(part.merchant, 0), part.amount))
        for part in order.parts
    ]
    order.to_receivable = sum(part.to_receivable for part in order.parts)


def clear(order: Order) -> None:
    """Clear set-offs and debts of an order and of its parts, because the order is parked."""
    order.set_off = order.to_receivable = 0
    if order.parts is not None:
        order.parts = [msgspec.structs.replace(part, set_off=0, to_receivable=0) for part in order.parts]


def are_distinct(merchants: Iterable[str]) -> bool:
    found = list(merchants)
    return len(found) == len(set(found))


_SUMMED = ("amount", "fee", "tax", "set_off", "to_receivable", "end_set_off")
