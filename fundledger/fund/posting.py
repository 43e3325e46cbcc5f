"""Orders that were written ahead become vouchers: posted together, then marked together. Whoever does this to the same
order at the same time, or again, finds what is true: the voucher's id is the order's.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from fundledger.fund import accounts, orders, reserve, rows, sums
from fundledger.fund.ids import Ids
from fundledger.fund.link import AccountLink, Away, end_voucher_of
from fundledger.fund.macs import OrderMacs
from fundledger.fund.order import Kind, Order, State
from fundledger.fund.orders import Pool
from fundledger.fund.reported import Reported
from fundledger.fund.statements import SQL
from fundledger.fund.stuck import log_stuck, mark_stuck

ATTEMPTS_MAX: Final = 3
"""Of a chargeback; from then on the merchant owes all of it, which cannot be refused for want of money."""
DEADLOCKS_MAX: Final = 5
END_AGAIN_S: Final = 30.0
END_AGAIN_MAX_S: Final = 3600.0
FINAL: Final = tuple(
    f"urn:fundledger:problem:{code}"
    for code in ("account-frozen", "account-closed", "insufficient-funds", "balance-out-of-range")
)
"""What the account service says once for a voucher's id, and for ever."""
_log = logging.getLogger(__name__)


class Counted(msgspec.Struct):
    """Since this process started. `orders` by "kind state"; `batches`, the orders in them; calls without answer."""

    orders: dict[str, int] = {}
    batches: int = 0
    in_batches: int = 0
    calls_away: int = 0
    unmarked: int = 0

    def add(self, other: "Counted") -> None:
        for key, count in other.orders.items():
            self.orders[key] = self.orders.get(key, 0) + count
        self.batches += other.batches
        self.in_batches += other.in_batches
        self.calls_away += other.calls_away
        self.unmarked += other.unmarked


class Posting:
    """`pool` is of the fund database, and so are `ids` and `macs`."""

    def __init__(self, pool: Pool, link: AccountLink, ids: Ids, macs: OrderMacs) -> None:
        self.pool = pool
        self.link = link
        self.ids = ids
        self.macs = macs
        self.counted = Counted()
        self._reported = Reported()

    async def post(self, written: Sequence[Order]) -> None:
        """Post orders that are `posting`, and mark those whose outcome is known then: their state says it.

        Raises Away when nothing is known of any; what asyncpg raises is told in the log only, since what was posted is
        posted, and is marked when somebody looks after it. Cancelling leaves the rest to that, too.
        """
        try:
            verdicts = await self.link.post(written)
        except Away:
            self.counted.calls_away += 1
            raise
        self.counted.batches += 1
        self.counted.in_batches += len(written)
        said, again = [], []
        for order, verdict in zip(written, verdicts, strict=True):
            if verdict is None:
                continue
            refused = verdict.problem is not None and not verdict.stuck
            if refused and order.kind is Kind.CHARGEBACK and order.attempt < ATTEMPTS_MAX:
                again.append(order)
            else:
                orders.say(order, verdict)
                said.append(order)
        if said:
            await self._mark(said)
        for order in again:
            await self._charge_back_again(order)

    async def _mark(self, said: Sequence[Order]) -> None:
        told = [orders.marked(order, self._sealed(order)) for order in said]
        for attempt in range(DEADLOCKS_MAX):
            try:
                async with self.pool.acquire() as connection:
                    if any(order.state is State.REFUSED and order.kind in reserve.RESERVING for order in said):
                        async with connection.transaction():
                            refused, stuck = await orders.mark(connection, told)
                            await reserve.release(connection, self.macs, [o for o in said if o.id in refused])
                    else:
                        # One statement is a transaction.
                        _, stuck = await orders.mark(connection, told)
            except asyncpg.DeadlockDetectedError:
                await asyncio.sleep(0.01 * attempt)
            except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                if len(said) > 1:
                    # It is one of them, which must not hold up the others.
                    for order in said:
                        await self._mark([order])
                    return
                if self._reported.is_new(said[0].id):
                    _log.critical("%s order %s cannot be marked %s: %s", said[0].kind, said[0].id, said[0].state, error)
                break
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
                _log.warning("%d orders are known to have ended, but not marked: %s", len(said), error)
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
        """Seal an order whose outcome is known. Return the MAC of what is kept of it, if it is settled later."""
        self.macs.seal(order)
        if order.settle != "later" or order.kind is not Kind.PAYMENT or order.state is not State.POSTED:
            return None
        return self.macs.rows.tag(rows.PAYMENT, sums.begun(order).fields())[1]

    async def prepare_chargeback(self, order: Order) -> None:
        """Look up what the merchant has: the rest is what he owes. Raises Away."""
        id_ = accounts.available(order.merchant)
        account = (await self.link.balances([id_])).get(id_)
        has = 0 if account is None or account.status != "open" else max(0, account.balance.available)
        order.to_receivable = order.amount - min(has, order.amount)

    async def _charge_back_again(self, order: Order) -> None:
        """The merchant had less than when that was looked up: another attempt, with a voucher of its own."""
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
            # Only what is written ahead may be posted: whoever asks again has to find the same.
            order.attempt, order.voucher_id, order.to_receivable = attempt, again.voucher_id, again.to_receivable
            order.mac, order.mac_key = again.mac, again.mac_key
            await self.post([order])

    async def _end_again(self, order: Order, problem: bytes) -> None:
        """Take another attempt at an end that was refused, for example because the merchant is frozen: the money stays
        in transit until then. The refusal is final for the id of the voucher, so no other attempt can post this one.
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
                "the end of withdrawal %s was refused, and is tried again: %s",
                order.id,
                problem.decode(),
                extra={"event": "end_refused", "order": str(order.id)},
            )

    async def end(self, order: Order) -> None:
        """Post the end of a withdrawal, as it was written ahead, and mark it: its state says it. Raises as `post`."""
        assert order.ending in ("paid", "bounced"), order.ending
        voucher = end_voucher_of(order, order.ending)  # type: ignore[arg-type]
        try:
            verdict = (await self.link.post_vouchers([voucher]))[0]
        except Away:
            self.counted.calls_away += 1
            raise
        if verdict is None:
            return
        if verdict.problem is not None:
            if not verdict.stuck and any(f'"{code}"' in verdict.problem.decode() for code in FINAL):
                await self._end_again(order, verdict.problem)
            else:
                await mark_stuck(self.pool, self.macs, order, verdict.problem)
            return
        try:
            await self._mark_ended(order)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            _log.warning("withdrawal %s is known to have ended, but not marked: %s", order.id, error)
            self.counted.unmarked += 1
        order.state, order.due_at = State(order.ending), None
        key = f"{order.kind} {order.state}"
        self.counted.orders[key] = self.counted.orders.get(key, 0) + 1

    async def _mark_ended(self, order: Order) -> None:
        """Record the end of a withdrawal. One that bounced was not withdrawn on its day."""
        ended = msgspec.structs.replace(order, state=State(order.ending or ""))
        self.macs.seal(ended)
        async with self.pool.acquire() as connection, connection.transaction():
            row = await connection.fetchrow(SQL["mark_ended"], order.id, ended.mac, ended.mac_key, order.mac)
            if row is not None and ended.state is State.BOUNCED:
                await sums.give_back_days(connection, self.macs, [ended])
