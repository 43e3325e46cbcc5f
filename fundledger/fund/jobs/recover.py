"""Background job of the fund service, the recoverer: it takes orders without a known outcome, and repeats the request
to post their vouchers until the outcome is known.
"""

import logging
from typing import Final

import asyncpg

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.model.order import Order, State
from fundledger.fund.poster import Posting
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.orders import order_from
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.reported import Reported

AT_ONCE: Final = 500
UNANSWERED_MAX: Final = 100
"""A run ends after this number of unanswered calls. So many failures are not caused by single orders."""
_log = logging.getLogger(__name__)


class Recoverer:
    """The recoverer. `again_s`: seconds until an order whose outcome is still unknown is due again. Several processes
    may run the job concurrently.
    """

    def __init__(self, posting: Posting, again_s: float) -> None:
        self._posting = posting
        self._pool = posting.pool
        self._again_s = again_s
        self._reported = Reported()

    async def recover_some(self) -> tuple[int, float]:
        """Run once. Return `(number of orders whose outcome has become known, age of the oldest order without a known
        outcome in seconds)`. Raises what asyncpg raises, and GatewayFault if the account service does not answer. After
        a cancellation the remaining orders are due again later.
        """
        lag = await self._pool.fetchrow(SQL["lag_of_orders"])
        assert lag is not None
        if not lag["waiting"]:
            return 0, lag["lag_s"]
        rows = await self._pool.fetch(SQL["due_orders"], AT_ONCE, self._again_s)
        taken = [order for order in map(order_from, rows) if self._verifies(order)]
        posting = [order for order in taken if order.state is State.POSTING]
        if posting:
            await self._post(posting)
        for order in taken:
            if order.state is not State.POSTING and order.ending is not None:
                try:
                    await self._end(order)
                except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                    # The fund database rejects the outcome of this order. The order must not delay the others.
                    self._report(order, error)
        known = sum(order.due_at is None for order in taken)
        return known, lag["lag_s"]

    def _verifies(self, order: Order) -> bool:
        """Return whether an order matches its MAC. An order that does not match is reported. It is not changed, and its
        voucher is not posted.
        """
        try:
            self._posting.macs.check(order)
        except Tampered:
            return False
        return True

    async def _post(self, posting: list[Order]) -> None:
        """Post orders in one call. After the answer `outcome-unknown`, split the batch, so that one order does not
        delay the others.
        """
        waiting, unanswered = [posting], 0
        while waiting:
            some = waiting.pop()
            try:
                await self._posting.post(some)
            except GatewayFault as fault:
                unanswered += 1
                if not fault.is_answer or unanswered == UNANSWERED_MAX:
                    _log.warning(
                        "the outcome of %d orders stays unknown: %s",
                        *(sum(map(len, [some, *waiting])), fault),
                        extra={"event": "recovery_failed"},
                    )
                    raise
                some = [order for order in some if order.state is State.POSTING]
                if len(some) > 1:
                    half = len(some) // 2
                    waiting += [some[half:], some[:half]]
                else:
                    self._report(some[0], fault)

    async def _end(self, order: Order) -> None:
        try:
            await self._posting.end(order)
        except GatewayFault as fault:
            if not fault.is_answer:
                raise
            self._report(order, fault)

    def _report(self, order: Order, fault: Exception) -> None:
        if self._reported.is_new((order.id, order.state)):
            _log.error(
                "the outcome of %s %s stays unknown: %s",
                order.kind,
                order.id,
                fault,
                extra={"event": "order_unknown", "order": order.id},
            )
