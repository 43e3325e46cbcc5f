"""Poster of the fund service: post the vouchers of orders that are `posting`, a batch in each call, and record the
outcomes.

Concurrent and repeated calls for one order are safe. The voucher id is derived from the order id, so each call gets the
true outcome.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from fundledger.fund.account_gateway import AccountGateway, GatewayFault, end_voucher_of
from fundledger.fund.jobs.stuck import log_stuck, mark_stuck
from fundledger.fund.model import accounts
from fundledger.fund.model.ids import Ids
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.stats import Counted
from fundledger.fund.store import mac_layouts as rows
from fundledger.fund.store import orders, sums
from fundledger.fund.store import reservations as reserve
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.reported import Reported

ATTEMPTS_MAX: Final = 3
"""The maximum number of attempts to post a chargeback. The last attempt debits only the receivable account, so it
cannot be refused for insufficient funds.
"""
DEADLOCKS_MAX: Final = 5
END_AGAIN_S: Final = 30.0
END_AGAIN_MAX_S: Final = 3600.0
_log = logging.getLogger(__name__)


class Posting:
    """The poster of orders, which calls the account gateway. `pool`, `ids` and `macs` belong to the fund database."""

    def __init__(self, pool: Pool, gateway: AccountGateway, ids: Ids, macs: OrderMacs) -> None:
        self.pool = pool
        self.gateway = gateway
        self.ids = ids
        self.macs = macs
        self.counted = Counted()
        self._reported = Reported()

    async def post(self, written: Sequence[Order]) -> None:
        """Post the vouchers of orders that are `posting`, and record each known outcome as the state of its order.

        Raises GatewayFault if not a single outcome is known. A failure of the database is only logged: the vouchers are
        posted, and the recoverer records the outcomes later. The recoverer also completes the orders after a
        cancellation.
        """
        try:
            results = await self.gateway.post(written)
        except GatewayFault:
            self.counted.calls_away += 1
            raise
        self.counted.batches += 1
        self.counted.in_batches += len(written)
        said, again = [], []
        for order, result in zip(written, results, strict=True):
            if result is None:
                continue
            refused = result.problem is not None and not result.stuck
            if refused and order.kind is Kind.CHARGEBACK and order.attempt < ATTEMPTS_MAX:
                again.append(order)
            else:
                orders.set_outcome(order, result)
                said.append(order)
        if said:
            await self._mark(said)
        for order in again:
            await self._charge_back_again(order)

    async def _mark(self, said: Sequence[Order]) -> None:
        outcomes = [orders.marked(order, self._sealed(order)) for order in said]
        for attempt in range(DEADLOCKS_MAX):
            try:
                async with self.pool.acquire() as connection:
                    if any(order.state is State.REFUSED and order.kind in reserve.RESERVING for order in said):
                        async with connection.transaction():
                            refused, stuck = await orders.mark(connection, outcomes)
                            await reserve.release(connection, self.macs, [o for o in said if o.id in refused])
                    else:
                        # A query outside a transaction block is a transaction of its own.
                        _, stuck = await orders.mark(connection, outcomes)
            except asyncpg.DeadlockDetectedError:
                await asyncio.sleep(0.01 * attempt)
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                if len(said) > 1:
                    # One of the orders causes the error. Record each order alone, so that the faulty order does not
                    # delay the others.
                    for order in said:
                        await self._mark([order])
                    return
                if self._reported.is_new(said[0].id):
                    _log.critical(
                        "the outcome of %s %s (%s) cannot be recorded: %s",
                        *(said[0].kind, said[0].id, said[0].state, error),
                        extra={"event": "order_outcome_unrecordable", "order": str(said[0].id)},
                    )
                break
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                _log.warning(
                    "recording the outcomes of %d orders failed: %s",
                    *(len(said), error),
                    extra={"event": "order_outcome_unrecorded"},
                )
                break
            else:
                for order in said:
                    key = f"{order.kind} {order.state}"
                    self.counted.orders[key] = self.counted.orders.get(key, 0) + 1
                    if order.id in stuck:
                        log_stuck(order)
                return
        self.counted.unmarked += len(said)

    def _sealed(self, order: Order) -> bytes | None:
        """Compute the MAC of an order with its outcome. If the order is a posted payment that is settled later, return
        the MAC of its fund.payments row. Otherwise return None.
        """
        self.macs.seal(order)
        if order.settle != "later" or order.kind is not Kind.PAYMENT or order.state is not State.POSTED:
            return None
        return self.macs.rows.tag(rows.PAYMENT, sums.begun(order).fields())[1]

    async def prepare_chargeback(self, order: Order) -> None:
        """Set the part of a chargeback that the merchant owes: the part that exceeds its current available balance.
        Raises GatewayFault.
        """
        id_ = accounts.available(order.merchant)
        account = (await self.gateway.balances([id_])).get(id_)
        has = 0 if account is None or account.status != "open" else max(0, account.balance.available)
        order.to_receivable = order.amount - min(has, order.amount)

    async def _charge_back_again(self, order: Order) -> None:
        """Start the next attempt of a chargeback, with a new voucher id. The previous attempt was refused because the
        merchant's balance fell after it was read.
        """
        attempt = order.attempt + 1
        again = msgspec.structs.replace(
            order, attempt=attempt, voucher_id=self.ids.voucher(order.id, attempt=attempt), to_receivable=order.amount
        )
        if attempt < ATTEMPTS_MAX:
            await self.prepare_chargeback(again)
        self.macs.seal(again)
        changed = again.voucher_id, again.to_receivable, again.mac, again.mac_key
        async with self.pool.acquire() as connection:
            ours = await connection.fetchval(SQL["try_again"], order.id, attempt, *changed, order.mac)
        if ours is not None:
            # Only stored content may be posted, so that a retry finds the same voucher.
            order.attempt, order.voucher_id, order.to_receivable = attempt, again.voucher_id, again.to_receivable
            order.mac, order.mac_key = again.mac, again.mac_key
            await self.post([order])

    async def _end_again(self, order: Order, problem: bytes) -> None:
        """Start another attempt to post the end of a withdrawal. The previous attempt was refused, for example because
        the merchant is frozen. Until an attempt is posted, the money stays in transit. The previous voucher id is
        permanently refused, so the end cannot be posted twice.
        """
        end = self.ids.voucher(order.id, "end", order.attempt + 1)
        new = msgspec.structs.replace(order, attempt=order.attempt + 1, end_voucher_id=end)
        self.macs.seal(new)
        pause_s = min(END_AGAIN_MAX_S, END_AGAIN_S * 2.0 ** min(order.attempt, 30))
        async with self.pool.acquire() as connection:
            ours = await connection.fetch(
                SQL["end_again"], order.id, order.attempt, pause_s, end, new.mac, new.mac_key, order.mac
            )
        if ours and order.attempt == 0:
            _log.critical(
                "the account service refused the end of withdrawal %s, which is retried: %s",
                order.id,
                problem.decode(),
                extra={"event": "end_refused", "order": str(order.id)},
            )

    async def end(self, order: Order) -> None:
        """Post the recorded end of a withdrawal, and record the outcome as the state of the withdrawal. Raises
        GatewayFault if the account service does not answer.
        """
        assert order.ending in ("paid", "bounced"), order.ending
        voucher = end_voucher_of(order, order.ending)  # type: ignore[arg-type]
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
            await self._mark_ended(order)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            _log.warning(
                "recording the end of withdrawal %s failed: %s",
                *(order.id, error),
                extra={"event": "order_outcome_unrecorded", "order": str(order.id)},
            )
            self.counted.unmarked += 1
        order.state, order.due_at = State(order.ending), None
        key = f"{order.kind} {order.state}"
        self.counted.orders[key] = self.counted.orders.get(key, 0) + 1

    async def _mark_ended(self, order: Order) -> None:
        """Record the posted end of a withdrawal as its state. A bounced withdrawal no longer counts against the daily
        limit.
        """
        ended = msgspec.structs.replace(order, state=State(order.ending or ""))
        self.macs.seal(ended)
        async with self.pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(SQL["mark_ended"], order.id, ended.mac, ended.mac_key, order.mac)
            if row is not None and ended.state is State.BOUNCED:
                await sums.give_back_days(connection, self.macs, [ended])
