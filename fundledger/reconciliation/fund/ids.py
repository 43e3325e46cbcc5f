"""Reconciliation of the fund service: checks that each order id is derived from the kind, merchant and number of the
order.
"""

from collections.abc import Iterator

from fundledger.fund.model.ids import Ids
from fundledger.fund.model.order import FACTS, TAKE_ALL_ATTEMPTS_MAX, Kind, Order, order_id, voucher_id


class OrderIds:
    """The check of order ids. `ids` derives keyed ids; None: no order may have a keyed id.

    `former_until`: orders up to this seq may have a former (unkeyed) id; None: if `ids` is given, no order may have a
    former id.
    """

    def __init__(self, ids: Ids | None, former_until: int | None) -> None:
        self._ids = ids
        self._former_until = former_until

    def differences(self, order: Order) -> Iterator[tuple[str, str]]:
        """Yield `(expected id, actual id)` for each id in an order that is not derived as required."""
        names = order.kind, order.merchant, order.order_no
        attempts = [order.attempt if order.kind in FACTS else 0]
        if order.kind is Kind.DISPUTE:
            # The end of a dispute has attempts, too, which follow those of its first voucher.
            attempts = list(range(order.attempt + 1))
        if order.takes_all:
            # The same for a withdrawal of all.
            attempts = list(range(min(order.attempt, TAKE_ALL_ATTEMPTS_MAX) + 1))
        former = order.id == order_id(*names) and self._may_be_former(order)
        id_ = order_id(*names) if self._ids is None else self._ids.order(*names)
        if order.id != id_ and not former:
            yield f"the id of its names, {id_}", str(order.id)
        expected = []
        for attempt in attempts:
            if self._ids is not None:
                expected.append(self._ids.voucher(order.id, attempt=attempt))
            if former or self._ids is None:
                expected.append(voucher_id(order.id, attempt=attempt))
        if order.voucher_id not in expected:
            yield f"the voucher of its id, {expected[0]}", str(order.voucher_id)
        if order.end_voucher_id is not None and self._ids is not None:
            end = self._ids.voucher(order.id, "end", order.attempt)
            if order.end_voucher_id != end:
                yield f"the voucher of its end, {end}", str(order.end_voucher_id)

    def _may_be_former(self, order: Order) -> bool:
        return self._ids is None or (self._former_until is not None and order.seq <= self._former_until)
