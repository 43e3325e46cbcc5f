"""Model of the fund service: money flows. `RULES` has the rules of each kind of order. Functions return the entries of
the vouchers of an order. Pure. tests/fund/test_flows.py lists the entries of each flow.
"""

from typing import Any, Final, Literal, NamedTuple

import msgspec

from fundledger.fund.model import accounts
from fundledger.fund.model.moves import KindRules, Moves
from fundledger.fund.model.moves import after_fee as _after_fee
from fundledger.fund.model.moves import bank as _bank
from fundledger.fund.model.moves import credit as _credit
from fundledger.fund.model.moves import direction as _direction
from fundledger.fund.model.moves import fee as _fee
from fundledger.fund.model.moves import transit as _transit
from fundledger.fund.model.order import PLATFORM, SENDING, Kind, Order, SplitPart, has_end
from fundledger.fund.model.own_flows import OWN_RULES, end_of, outside_of
from fundledger.fund.model.split import merchants_of
from fundledger.fund.model.split_flows import SPLIT_RULES, bounced_refund

Side = Literal["debit", "credit"]
Ending = Literal["paid", "bounced", "won", "lost"]

PARK: Final = "park"
"""The type of a voucher that parks an order."""
END_VOUCHER_TYPES: Final[dict[tuple[Kind, Ending], str]] = {
    (Kind.WITHDRAWAL, "paid"): "withdraw_paid",
    (Kind.WITHDRAWAL, "bounced"): "withdraw_bounced",
    (Kind.REFUND, "paid"): "refund_paid",
    (Kind.REFUND, "bounced"): "refund_bounced",
    (Kind.SPLIT_REFUND, "paid"): "split_refund_paid",
    (Kind.SPLIT_REFUND, "bounced"): "split_refund_bounced",
    (Kind.OWN_TRANSFER, "paid"): "own_transfer_paid",
    (Kind.OWN_TRANSFER, "bounced"): "own_transfer_bounced",
    (Kind.DISPUTE, "won"): "dispute_released",
    (Kind.DISPUTE, "lost"): "dispute_lost",
}
"""The type of the voucher that ends an order, by kind and end. A kind has no other ends."""


class Entry(NamedTuple):
    """An entry of a voucher. `amount` is greater than 0, in minor units."""

    account: str
    side: Side
    amount: int


def voucher_type(order: Order) -> str:
    """Return the type of the voucher that posts, parks or releases an order."""
    return PARK if order.parking == "park" else RULES[Kind(order.kind)].voucher_type


def end_voucher_type(kind: Kind, ending: Ending) -> str:
    return END_VOUCHER_TYPES[kind, ending]


def entries_of(order: Order) -> list[Entry]:
    """Return the entries that post, park or release an order. Debits come first, each account occurs once, and debits
    equal credits. A reversal has no entries: the account service derives its voucher from the reversed voucher.
    """
    moves = RULES[Kind(order.kind)].flow(order)
    if order.parking is None:
        return _entries(moves)
    outside, parked = outside_of(order), accounts.suspense_parked(order.currency)
    if order.parking == "park":
        moved = sum(amount for account, amount in moves if account == outside)
        return _entries([(outside, moved), (parked, -moved)])
    return _entries([(parked if account == outside else account, amount) for account, amount in moves])


def parked_entries_of(order: Order) -> list[Entry]:
    """Return the entries of the voucher that parked an order, whatever its current step is."""
    return entries_of(msgspec.structs.replace(order, parking="park"))


def end_entries_of(order: Order, ending: Ending) -> list[Entry]:
    """Return the entries that end a posted order. The entries of `bounced` are the opposite of those that posted it,
    but a part of the credit to the available balance may repay the merchant's debt.
    """
    assert has_end(order), (order.kind, order.voucher_format)
    if order.kind not in SENDING:
        return _entries(end_of(order, ending))
    transit = _transit(order)
    if ending == "paid":
        return _entries([(transit, -order.amount), (_bank(order), order.amount)])
    if order.parts is not None:
        return _entries(bounced_refund(order))
    credit = bounced_credits(order)[order.merchant]
    return _entries(
        [
            (transit, -order.amount),
            *_fee(order, -1 if order.kind is Kind.WITHDRAWAL else 1),
            (accounts.pending(order.merchant), order.from_pending),
            (accounts.available(order.merchant), credit - order.end_set_off),
            (accounts.receivable(order.merchant), order.end_set_off),
        ]
    )


def bounced_credits(order: Order) -> dict[str, int]:
    """Return the amounts that return to available balances if an order bounces or is won, by merchant, with the parts
    that repay debts. Empty if nothing returns to a merchant.
    """
    if order.parts is not None:
        return {part.merchant: _after_fee(part.amount, part.fee) for part in order.parts}
    match order.kind:
        case Kind.WITHDRAWAL:
            return {order.merchant: order.amount + order.fee}
        case Kind.REFUND:
            return {order.merchant: _after_fee(order.amount - order.from_pending, order.fee)}
        case Kind.DISPUTE:
            return {order.merchant: order.amount - order.from_pending}
    return {}


def net_of(order: Order) -> int:
    """Return the amount by which the voucher of an order changes the merchant's accounts as a whole: available plus
    pending minus receivable. Positive if the merchant gets more. The end of the order is not included. For a split
    order, it is the sum over the merchants of all parts.
    """
    if order.kind is Kind.REVERSAL:
        return -_change(msgspec.structs.replace(order, kind=reversed_kind(order)))
    return _change(order)


def net_of_part(order: Order, part: SplitPart) -> int:
    """Return the part of `net_of` of a split order that concerns the merchant of one of its parts."""
    is_reversal = order.kind is Kind.REVERSAL
    kind = reversed_kind(order) if is_reversal else order.kind
    net = part.amount - part.fee if kind is Kind.SPLIT_PAYMENT else part.fee - part.amount
    return -net if is_reversal else net


def moved(order: Order, ending: Ending | None = None) -> dict[str, int]:
    """Return the amounts that a voucher of an order moves, by account. Credits are positive, debits are negative.

    `ending`: None for the voucher that posts the order, otherwise the end of the order. The order has the channel that
    its flow needs.
    """
    if order.kind is Kind.REVERSAL:
        original: dict[str, Any] = {"kind": reversed_kind(order), "set_off": order.to_receivable, "to_receivable": 0}
        if order.parts is not None:
            original["parts"] = [
                msgspec.structs.replace(part, set_off=part.to_receivable, to_receivable=0) for part in order.parts
            ]
        reversed_ = moved(msgspec.structs.replace(order, **original))
        return {account: -amount for account, amount in reversed_.items()}
    entries = entries_of(order) if ending is None else end_entries_of(order, ending)
    return {entry.account: entry.amount if entry.side == "credit" else -entry.amount for entry in entries}


def _change(order: Order) -> int:
    if order.channel is None:
        # The flow needs a channel to name the bank account. The merchant's accounts do not depend on it.
        order = msgspec.structs.replace(order, channel="")
    own: list[str] = []
    for merchant in merchants_of(order):
        own += accounts.available(merchant), accounts.pending(merchant), accounts.receivable(merchant)
    # A debit of the receivable account is a debt of the merchant, so all three accounts count with the same sign.
    return sum([amount for account, amount in RULES[Kind(order.kind)].flow(order) if account in own])


def reversed_kind(order: Order) -> Kind:
    """Return the kind of the order that a reversal reverses. The reversal has copies of the members of that order. A
    reversal of an earlier version does not name the kind.
    """
    if order.of_kind is not None:
        return Kind(order.of_kind)
    if order.settle is not None:
        return Kind.PAYMENT
    if order.direction is None:
        return Kind.CHANNEL_COST if order.merchant == PLATFORM else Kind.PAYOUT_RETURN
    return Kind.ADJUSTMENT if order.direction in ("credit", "debit") else Kind.BANK_DIFFERENCE


def _payment(order: Order) -> Moves:
    if order.settle == "later":
        return [(_bank(order), -order.amount), (accounts.pending(order.merchant), order.amount)]
    return [
        (_bank(order), -order.amount),
        *_credit(order, _after_fee(order.amount, order.fee)),
        *_fee(order),
    ]


def _refund(order: Order) -> Moves:
    return [
        (accounts.pending(order.merchant), -order.from_pending),
        (accounts.available(order.merchant), -_after_fee(order.amount - order.from_pending, order.fee)),
        *_fee(order, -1),
        (_transit(order) if has_end(order) else _bank(order), order.amount),
    ]


def _settlement(order: Order) -> Moves:
    return [
        (accounts.pending(order.merchant), -order.amount),
        *_credit(order, _after_fee(order.amount, order.fee)),
        *_fee(order),
    ]


def _withdrawal(order: Order) -> Moves:
    return [
        (accounts.available(order.merchant), -order.amount - order.fee - order.set_off),
        (_transit(order), order.amount),
        *_fee(order),
        (accounts.receivable(order.merchant), order.set_off),
    ]


def _payout_return(order: Order) -> Moves:
    return [
        (_bank(order), -order.amount),
        *_credit(order, order.amount + order.fee),
        *_fee(order, -1),
    ]


def _chargeback(order: Order) -> Moves:
    return [
        (accounts.pending(order.merchant), -order.from_pending),
        (accounts.available(order.merchant), order.from_pending + order.to_receivable - order.amount),
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
    is_credit = _direction(order, "credit", "debit") == "credit"
    against = order.against or ("short" if is_credit else "over")
    assert against in ("over", "short"), (order.id, order.against)
    suspense = accounts.suspense_over if against == "over" else accounts.suspense_short
    if is_credit:
        return [(suspense(order.currency), -order.amount), *_credit(order, order.amount)]
    return [(accounts.available(order.merchant), -order.amount), (suspense(order.currency), order.amount)]


def _channel_cost(order: Order) -> Moves:
    return [(accounts.channel_cost(order.currency), -order.amount), (_bank(order), order.amount)]


def _bank_difference(order: Order) -> Moves:
    if _direction(order, "more", "less") == "more":
        return [(_bank(order), -order.amount), (accounts.suspense_over(order.currency), order.amount)]
    return [(accounts.suspense_short(order.currency), -order.amount), (_bank(order), order.amount)]


def _reversal(_: Order) -> Moves:
    return []


RULES: Final[dict[Kind, KindRules]] = {
    Kind.PAYMENT: KindRules("pay", _payment),
    Kind.REFUND: KindRules("refund", _refund),
    Kind.SETTLEMENT: KindRules("settle", _settlement),
    Kind.WITHDRAWAL: KindRules("withdraw", _withdrawal),
    Kind.PAYOUT_RETURN: KindRules("payout_return", _payout_return),
    Kind.CHARGEBACK: KindRules("chargeback", _chargeback),
    Kind.RECOVERY: KindRules("recovery", _recovery),
    Kind.WRITE_OFF: KindRules("write_off", _write_off),
    Kind.ADJUSTMENT: KindRules("adjustment", _adjustment),
    Kind.CHANNEL_COST: KindRules("channel_cost", _channel_cost, of_platform=True),
    Kind.BANK_DIFFERENCE: KindRules("bank_difference", _bank_difference, of_platform=True),
    Kind.REVERSAL: KindRules("reversal", _reversal, of_platform=True),
    **OWN_RULES,
    **SPLIT_RULES,
}


def _entries(moves: Moves) -> list[Entry]:
    credited: dict[str, int] = {}
    for account, amount in moves:
        credited[account] = credited.get(account, 0) + amount
    assert sum(credited.values()) == 0, moves
    debits = [Entry(account, "debit", -amount) for account, amount in credited.items() if amount < 0]
    return debits + [Entry(account, "credit", amount) for account, amount in credited.items() if amount > 0]
