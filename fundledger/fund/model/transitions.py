"""Model of the fund service: the transitions of order states, in the only table that code reads. Pure.

The fund service and the reconciliation use the table. The trigger `orders_transition` enforces the same transitions in
the database: migration 0020 has a copy of the table, and a test compares the copy with the table.
"""

from datetime import timedelta
from typing import Final

from fundledger.fund.model.order import FACTS, SENDING, Kind, Order, State

_EVERY: Final = tuple(Kind)
DUAL_CONTROL: Final = (
    *(Kind.ADJUSTMENT, Kind.WRITE_OFF, Kind.BANK_DIFFERENCE, Kind.REVERSAL),
    *(Kind.OWN_TRANSFER, Kind.OWN_FUNDS, Kind.FEE_SWEEP, Kind.PAYABLE_PAYMENT),
    *(Kind.SUSPENSE_CLEARING, Kind.PARKED_CLEARING),
)
"""The kinds of orders that need two identities: that of the requester, and that of the approver."""
FIRST: Final = {kind: State.CREATED if kind in DUAL_CONTROL else State.POSTING for kind in Kind}
"""The state in which an order is inserted, by its kind."""
TRANSITIONS: Final[frozenset[tuple[str, str, str]]] = frozenset(
    (kind, before, after)
    for kinds, before, following in (
        (DUAL_CONTROL, State.CREATED, {State.POSTING, State.REJECTED, State.EXPIRED}),
        (_EVERY, State.POSTING, {State.POSTED, State.REFUSED, State.STUCK}),
        (tuple(FACTS), State.POSTING, {State.PARKED}),
        (tuple(FACTS), State.PARKED, {State.POSTING, State.CLEARED}),
        (tuple(FACTS), State.CLEARED, {State.PARKED}),
        (_EVERY, State.STUCK, {State.POSTING}),
        (SENDING, State.POSTED, {State.SENT, State.PAID, State.BOUNCED, State.STUCK}),
        (SENDING, State.SENT, {State.PAID, State.BOUNCED, State.UNKNOWN, State.STUCK}),
        (SENDING, State.UNKNOWN, {State.PAID, State.BOUNCED, State.STUCK}),
        (SENDING, State.STUCK, {State.POSTED, State.SENT, State.UNKNOWN}),
        ((Kind.OWN_TRANSFER,), State.POSTED, {State.PAID, State.BOUNCED, State.STUCK}),
        ((Kind.DISPUTE,), State.POSTED, {State.WON, State.LOST, State.STUCK}),
        ((Kind.OWN_TRANSFER, Kind.DISPUTE), State.STUCK, {State.POSTED}),
    )
    for kind in kinds
    for after in following
)
"""Transitions as `(kind, state, next state)`. A retry returns a stuck order to its state before `stuck`."""
POSTED: Final = frozenset(
    {State.POSTED, State.SENT, State.PAID, State.BOUNCED, State.UNKNOWN, State.WON, State.LOST},
)
"""States in which the voucher of an order is posted. The voucher of a stuck order may be posted, too."""
ENDED: Final = frozenset({State.PAID, State.BOUNCED, State.WON, State.LOST})
"""States in which the end of an order is posted."""
APPROVE_WITHIN: Final = timedelta(days=7)
"""The time within which an order under dual control has to be approved. After that it expires."""
UNAPPROVED: Final = frozenset({State.CREATED, State.REJECTED, State.EXPIRED})
"""States of an order that is not approved. Such an order has no voucher, and reserves nothing."""
UNRESERVED: Final = UNAPPROVED | {State.REFUSED}
"""States in which an order reserves nothing. A bounced order reserves nothing either, but has vouchers."""
RELEASED: Final = frozenset({State.BOUNCED, State.WON})
"""Ends that release what the order reserved."""
PROBLEMATIC: Final = frozenset({State.REFUSED, State.STUCK, State.REJECTED, State.EXPIRED})
"""States in which an order has a problem."""


def first_of(order: Order) -> State:
    """Return the state in which an order was inserted. An order may be older than the dual control of its kind: then it
    was posted without an approval.
    """
    if order.approved_by is None and order.state not in UNAPPROVED:
        return State.POSTING
    return FIRST[order.kind]


def may_become(kind: str, before: str, after: str) -> bool:
    """Return whether an order of this kind may go from state `before` to state `after`. An unknown kind or state may
    not.
    """
    return (kind, before, after) in TRANSITIONS


def is_posted(order: Order) -> bool:
    """Return whether the voucher of an order is posted, according to the state of the order."""
    return order.state in POSTED or (order.state is State.STUCK and order.stuck_from != State.POSTING)
