"""Looks after orders whose outcome is not known: asks again, with the same vouchers, until it is. Never guesses."""

import logging
from typing import Final

from fundledger.fund.link import Away
from fundledger.fund.macs import Tampered
from fundledger.fund.order import Order, State
from fundledger.fund.orders import order_from
from fundledger.fund.posting import Posting
from fundledger.fund.reported import Reported
from fundledger.fund.statements import SQL

AT_ONCE: Final = 500
UNANSWERED_MAX: Final = 100
"""Calls of one turn: more are not for some orders' sake."""
_log = logging.getLogger(__name__)


class Recoverer:
    """`again_s`: how long until an order that was taken is due again, if it stays unknown. Safe in any number."""

    def __init__(self, posting: Posting, again_s: float) -> None:
        self._posting = posting
        self._pool = posting.pool
        self._again_s = again_s
        self._reported = Reported()

    async def recover_some(self) -> tuple[int, float]:
        """`(how many orders are known now, for how long the oldest one has been due, in seconds)`. Raises what asyncpg
        raises, and Away when the account service does not answer. Cancelling leaves the rest due.
        """
        lag = await self._pool.fetchrow(SQL["lag_of_orders"])
        assert lag is not None
        if not lag["waiting"]:
            return 0, 0.0
        rows = await self._pool.fetch(SQL["due_orders"], AT_ONCE, self._again_s)
        taken = [order for order in map(order_from, rows) if self._verifies(order)]
        posting = [order for order in taken if order.state is State.POSTING]
        if posting:
            await self._post(posting)
        for order in taken:
            if order.state is not State.POSTING and order.ending is not None:
                await self._end(order)
        known = sum(order.due_at is None for order in taken)
        return known, lag["lag_s"]

    def _verifies(self, order: Order) -> bool:
        """Whether money may move for an order. One that does not match its MAC stays as it was found."""
        try:
            self._posting.macs.check(order)
        except Tampered:
            return False
        return True

    async def _post(self, posting: list[Order]) -> None:
        """All at once; halves, where the service says that it does not know: one must not hold up the others."""
        waiting, unanswered = [posting], 0
        while waiting:
            some = waiting.pop()
            try:
                await self._posting.post(some)
            except Away as away:
                unanswered += 1
                if not away.said or unanswered == UNANSWERED_MAX or len(posting) == 1:
                    _log.warning("%d orders stay unknown: %s", sum(map(len, [some, *waiting])), away)
                    raise
                if len(some) > 1:
                    half = len(some) // 2
                    waiting += [some[half:], some[:half]]
                else:
                    self._report(some[0], away)

    async def _end(self, order: Order) -> None:
        try:
            await self._posting.end(order)
        except Away as away:
            if not away.said:
                raise
            self._report(order, away)

    def _report(self, order: Order, away: Away) -> None:
        if self._reported.is_new((order.id, order.state)):
            _log.error(
                "%s %s stays unknown: %s",
                order.kind,
                order.id,
                away,
                extra={"event": "order_unknown", "order": order.id},
            )
