"""Poster of the fund service, part: post the second voucher of an order that ends, and record the end.

Concurrent and repeated calls for one order are safe, as in `poster`.
"""

import logging
from datetime import UTC, datetime
from typing import Final

import asyncpg
import msgspec

from fundledger.fund.account_gateway import NO_FLOW, AccountGateway, GatewayFault, end_voucher_of, no_voucher
from fundledger.fund.jobs.stuck import mark_stuck
from fundledger.fund.model.ids import Ids
from fundledger.fund.model.order import TAKE_ALL_ATTEMPTS_MAX, Order, State
from fundledger.fund.model.transitions import RELEASED
from fundledger.fund.stats import Counted
from fundledger.fund.store import ends, undone
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.reported import Reported

END_AGAIN_S: Final = 30.0
END_AGAIN_MAX_S: Final = 3600.0
END_ATTEMPTS_MAX: Final = 200
"""The maximum number of attempts to post the end of an order without an operator: after about 8 days."""
DATABASE_FAULTS: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_log = logging.getLogger(__name__)


class Ending:
    """The base class of the poster. `pool`, `ids` and `macs` belong to the fund database."""

    def __init__(self, pool: Pool, gateway: AccountGateway, ids: Ids, macs: OrderMacs) -> None:
        self.pool = pool
        self.gateway = gateway
        self.ids = ids
        self.macs = macs
        self.counted = Counted()
        self._reported = Reported()

    async def _end_again(self, order: Order, problem: bytes) -> None:
        """Start another attempt to post the end of an order. The previous attempt was refused, for example because the
        merchant is frozen. Until an attempt is posted, the money stays in transit. The previous voucher id is
        permanently refused, so the end cannot be posted twice. After END_ATTEMPTS_MAX attempts, the order is stuck: a
        request to retry makes another attempt.
        """
        end = self.ids.voucher(order.id, "end", order.attempt + 1)
        new = msgspec.structs.replace(order, attempt=order.attempt + 1, end_voucher_id=end)
        self.macs.seal(new)
        pause_s = min(END_AGAIN_MAX_S, END_AGAIN_S * 2.0 ** min(order.attempt, 30))
        async with self.pool.acquire() as connection:
            ours = await connection.fetch(
                SQL["end_again"], order.id, order.attempt, pause_s, end, new.mac, new.mac_key, order.mac
            )
        if ours and new.attempt >= END_ATTEMPTS_MAX:
            await mark_stuck(self.pool, self.macs, new, problem)
        elif ours and order.attempt <= (TAKE_ALL_ATTEMPTS_MAX if order.takes_all else 0):
            _log.critical(
                "the account service refused the end of %s %s, which is retried: %s",
                *(order.kind, order.id, problem.decode()),
                extra={"event": "end_refused", "order": str(order.id)},
            )

    async def end(self, order: Order) -> None:
        """Post the recorded end of an order, and record the outcome as the state of the order. Raises GatewayFault if
        the account service does not answer.
        """
        assert order.ending is not None, order.id
        try:
            voucher = end_voucher_of(order, order.ending)  # type: ignore[arg-type]
        except NO_FLOW as error:
            await mark_stuck(self.pool, self.macs, order, no_voucher(error))
            return
        try:
            result = (await self.gateway.post_vouchers([voucher]))[0]
        except GatewayFault:
            self.counted.calls_away += 1
            raise
        if result is None:
            return
        if result.problem is not None:
            if result.stuck:
                await mark_stuck(self.pool, self.macs, order, result.problem)
            else:
                await self._end_again(order, result.problem)
            return
        try:
            await self._mark_ended(order, result.at or datetime.now(UTC))
        except DATABASE_FAULTS as error:
            _log.warning(
                "recording the end of %s %s failed: %s",
                *(order.kind, order.id, error),
                extra={"event": "order_outcome_unrecorded", "order": str(order.id)},
            )
            self.counted.unmarked += 1
        order.state, order.due_at = State(order.ending), None
        key = f"{order.kind} {order.state}"
        self.counted.orders[key] = self.counted.orders.get(key, 0) + 1

    async def _mark_ended(self, order: Order, at: datetime) -> None:
        """Record the end of an order, posted at the time `at`, as its state. Release what a bounced or won order
        reserved.
        """
        ended = msgspec.structs.replace(order, state=State(order.ending or ""))
        self.macs.seal(ended)
        async with self.pool.acquire() as connection, connection.transaction():
            if await ends.mark_ended(connection, self.macs, order, ended, at) and ended.state in RELEASED:
                await undone.release_bounced(connection, self.macs, ended)
