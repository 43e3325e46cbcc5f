"""Poster of the fund service: post the vouchers of orders that are `posting`, a batch in each call, and record the
outcomes.

Concurrent and repeated calls for one order are safe. The voucher id is derived from the order id, so each call gets the
true outcome.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import asyncpg
import msgspec

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.ending import DATABASE_FAULTS, Ending
from fundledger.fund.jobs.stuck import log_stuck
from fundledger.fund.model import accounts, split
from fundledger.fund.model.flows import reversed_kind
from fundledger.fund.model.order import CHARGING, FACTS, Kind, Order, State
from fundledger.fund.model.posting_result import PostingResult
from fundledger.fund.store import debts, orders, split_parts, sums, take_all
from fundledger.fund.store import mac_layouts as rows
from fundledger.fund.store import reservations as reserve
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.queries import SQL

ATTEMPTS_MAX: Final = 3
"""The maximum number of attempts to post an order of a kind of CHARGING. The last attempt debits only receivable
accounts, so it cannot be refused for insufficient funds.
"""
DEADLOCKS_MAX: Final = 5
PARKED_S: Final = 5.0
"""Seconds until the accounts of the merchant of a parked order are read for the first time."""
REFUSED_RELEASE_MAX_S: Final = 3600.0
RELEASES_MAX: Final = 30_000
"""The maximum number of attempts of a parked order. The column has 16 bits."""
_log = logging.getLogger(__name__)


class Overtaken(Exception):
    """The order has changed since it was read. Nothing is recorded."""


class Posting(Ending):
    """The poster of orders, which calls the account gateway."""

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
        said, again, parked, stuck, short = [], [], [], [], []
        for order, result in zip(written, results, strict=True):
            if result is None:
                continue
            refused = result.problem is not None and not result.stuck
            if refused and order.parking is None and _may_try_again(order):
                again.append(order)
            elif refused and take_all.may_try_again(order, result.problem or b"{}"):
                short.append((order, result))
            elif refused and order.parking == "park":
                stuck.append((order, result))
            elif (order.parking == "release" and refused) or (order.parking == "park" and result.problem is None):
                parked.append((order, result.problem))
            else:
                orders.set_outcome(order, result)
                said.append(order)
        # The voucher that parks an order is refused only if an account of the platform does not take it. A retry by an
        # operator needs another voucher id.
        await self._try_again([order for order, _ in stuck])
        for order, result in stuck:
            orders.set_outcome(order, msgspec.structs.replace(result, stuck=True))
            said.append(order)
        if said:
            await self._mark(said)
        if parked:
            await self._mark_parked(parked)
        recorded = [*await self._try_again(again), *await self._take_again(short)]
        if recorded:
            await self.post(recorded)

    async def _mark(self, said: Sequence[Order]) -> None:
        large = [order for order in said if order.kind is Kind.REVERSAL and reversed_kind(order) is Kind.SETTLEMENT]
        if large and len(said) > 1:
            # Each reads and writes up to 10,000 payments. Together they could take longer than the command timeout.
            rest = [order for order in said if order not in large]
            for part in ([rest] if rest else []) + [[order] for order in large]:
                await self._mark(part)
            return
        outcomes = [orders.marked(order, self._sealed(order)) for order in said]
        for attempt in range(DEADLOCKS_MAX):
            try:
                async with self.pool.acquire() as connection:
                    if any(map(reserve.releases, said)):
                        async with connection.transaction():
                            marked = await orders.mark(connection, outcomes)
                            refused, posted = (
                                [order for order in said if marked.get(order.id) == state]
                                for state in (State.REFUSED, State.POSTED)
                            )
                            await reserve.release(connection, self.macs, refused, posted)
                    else:
                        # A query outside a transaction block is a transaction of its own.
                        marked = await orders.mark(connection, outcomes)
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
            except DATABASE_FAULTS as error:
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
                    if marked.get(order.id) == State.STUCK:
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

    async def debitable(self, merchant: str) -> int:
        """Return the amount that can be debited to the available balance of a merchant now: 0 if the account is frozen
        or closed. Raises GatewayFault.
        """
        id_ = accounts.available(merchant)
        account = (await self.gateway.balances([id_])).get(id_)
        return 0 if account is None or account.status != "open" else max(0, account.balance.available)

    async def _set_owed(self, order: Order, *, reads: bool) -> None:
        """Set the part of a chargeback that each of its merchants owes: what exceeds its balance now. Without `reads`,
        each merchant owes the whole. Raises GatewayFault.
        """
        merchants = split.merchants_of(order)
        read = await asyncio.gather(*map(self.debitable, merchants)) if reads else [0] * len(merchants)
        has = dict(zip(merchants, read, strict=True))
        if order.parts is not None:
            split.owe(order, has)
        else:
            rest = order.amount - order.from_pending
            order.to_receivable = rest - min(has[order.merchant], rest)

    async def _try_again(self, refused: Sequence[Order]) -> list[Order]:
        """Record the next attempt of orders, each with a new voucher id. The previous attempt of a kind of CHARGING was
        refused because the merchant's balance fell after it was read. The attempt after the last one of the kind parks
        the order. Return the orders whose attempt is recorded, and may be posted. A failure of the database is logged:
        the recoverer gets the same refusals, and records the attempts. Raises GatewayFault.
        """
        attempts = [(order, await self._next_attempt(order)) for order in sorted(refused, key=lambda order: order.id)]
        recorded = []
        try:
            if attempts:
                async with self.pool.acquire() as connection, connection.transaction():
                    for order, new in attempts:
                        changed = new.voucher_id, new.to_receivable, new.parking, new.mac, new.mac_key
                        parts = orders.parts_text(new)
                        row = await connection.fetchval(
                            SQL["try_again"], order.id, new.attempt, *changed, order.mac, parts
                        )
                        if row is not None:
                            recorded.append((order, new))
                    await split_parts.rewrite(connection, self.macs, [new for _, new in recorded])
                    released = [order for order, new in recorded if order.set_off > new.set_off]
                    await debts.change(connection, self.macs, [], released)
        except DATABASE_FAULTS as error:
            self._unrecorded("the next attempts", refused, error)
            return []
        for order, new in recorded:
            # Only stored content may be posted, so that a retry finds the same voucher.
            _copy(new, order)
        return [order for order, _ in recorded]

    async def _take_again(self, short: Sequence[tuple[Order, PostingResult]]) -> list[Order]:
        """Record the next attempt of withdrawals of all whose vouchers the balance did not cover. Return the orders
        whose attempt is recorded. The others are refused. A failure of the database is logged: the recoverer gets the
        same refusals. Raises GatewayFault.
        """
        recorded, refused = [], []
        for order, result in short:
            debitable = await self.debitable(order.merchant)
            try:
                async with self.pool.acquire() as connection, connection.transaction():
                    new = await take_all.try_again(connection, self.macs, self.ids, order, debitable)
            except DATABASE_FAULTS as error:
                self._unrecorded("the next attempts", [order], error)
                continue
            except Tampered:
                new = None
            if new is None:
                orders.set_outcome(order, result)
                refused.append(order)
            else:
                _copy(new, order)
                recorded.append(order)
        if refused:
            await self._mark(refused)
            # A concurrent process may have recorded another attempt meanwhile, which is not refused.
            there = await orders.read_orders(self.pool, [order.id for order in refused])
            for order in refused:
                _copy(there.get(order.id, order), order)
        return recorded

    async def _next_attempt(self, order: Order) -> Order:
        attempt = order.attempt + 1
        new = msgspec.structs.replace(order, attempt=attempt, voucher_id=self.ids.voucher(order.id, attempt=attempt))
        if order.kind in CHARGING and order.parking is None and attempt <= ATTEMPTS_MAX:
            await self._set_owed(new, reads=attempt < ATTEMPTS_MAX)
        else:
            new.parking = "park"
            split.clear(new)
        self.macs.seal(new)
        return new

    async def _mark_parked(self, parked: Sequence[tuple[Order, bytes | None]]) -> None:
        """Record that orders are parked: `(order, None)` if its park voucher is posted, or `(order, problem)` if its
        release is refused. Release the set-offs of refused releases. If this fails, the recoverer records it later.
        """
        marked = []
        try:
            async with self.pool.acquire() as connection, connection.transaction():
                for order, problem in sorted(parked, key=lambda pair: pair[0].id):
                    new = msgspec.structs.replace(order, state=State.PARKED, due_at=None)
                    split.clear(new)
                    new.parked_voucher_id = order.parked_voucher_id or order.voucher_id
                    self.macs.seal(new)
                    reason, pause_s = (None, PARKED_S) if problem is None else (problem.decode(), pause_of(order))
                    changed = order.attempt, new.parked_voucher_id, reason, pause_s, new.mac, new.mac_key
                    read = order.mac, orders.parts_text(new)
                    if await connection.fetchval(SQL["mark_parked"], order.id, *changed, *read) is not None:
                        marked.append((order, new))
                await split_parts.rewrite(connection, self.macs, [new for _, new in marked])
                await debts.change(connection, self.macs, [], [order for order, _ in marked if order.set_off])
        except DATABASE_FAULTS as error:
            self._unrecorded("the parking", [order for order, _ in parked], error)
            return
        for order, new in marked:
            if order.parking == "park":
                _log.error(
                    "%s %s is parked: the accounts of merchant %s do not take it",
                    *(order.kind, order.id, ", ".join(split.merchants_of(order))),
                    extra={"event": "order_parked", "order": str(order.id)},
                )
            _copy(new, order)
            key = f"{order.kind} {order.state}"
            self.counted.orders[key] = self.counted.orders.get(key, 0) + 1

    def _unrecorded(self, what: str, of: Sequence[Order], error: Exception) -> None:
        _log.warning(
            "recording %s of %d orders failed: %s",
            *(what, len(of), error),
            extra={"event": "order_outcome_unrecorded"},
        )
        self.counted.unmarked += len(of)

    async def release(self, order: Order, due_s: float) -> None:
        """Release a parked order: post it to the accounts of its merchant, with a new voucher. `order` is updated. If
        the order has changed since it was read, Overtaken is raised. Raises GatewayFault, and what asyncpg raises.
        """
        attempt = order.attempt + 1
        if attempt > RELEASES_MAX:
            raise Overtaken
        new = msgspec.structs.replace(order, attempt=attempt, state=State.POSTING, parking="release")
        new.voucher_id = self.ids.voucher(order.id, attempt=attempt)
        if order.reversed_by is not None:
            # The order is being cleared.
            raise Overtaken
        if order.kind in CHARGING:
            await self._set_owed(new, reads=True)
        async with self.pool.acquire() as connection, connection.transaction():
            credits_ = _released_credits(order)
            if credits_:
                split.set_off(new, await debts.set_offs(connection, self.macs, credits_))
            self.macs.seal(new)
            changed = new.voucher_id, new.set_off, new.to_receivable, due_s, new.mac, new.mac_key
            read = order.mac, orders.parts_text(new)
            row = await connection.fetchval(SQL["begin_release"], order.id, attempt, *changed, *read)
            if row is None:
                raise Overtaken
            await split_parts.rewrite(connection, self.macs, [new])
        _copy(new, order)
        await self.post([order])


def _copy(new: Order, order: Order) -> None:
    """Set the fields of `order` to the values of `new`."""
    for name in Order.__struct_fields__:
        setattr(order, name, getattr(new, name))


def _may_try_again(order: Order) -> bool:
    """Return whether another attempt follows a refused one. A dispute is no fact: its last attempt may be refused."""
    return order.kind in FACTS or (order.kind is Kind.DISPUTE and order.attempt < ATTEMPTS_MAX)


def _released_credits(order: Order) -> dict[str, int]:
    """Return the amounts that the release of an order credits to available balances, before set-offs, by merchant."""
    if order.kind is Kind.SPLIT_PAYMENT:
        return {part.merchant: part.amount - part.fee for part in order.parts or ()}
    if order.kind is Kind.PAYOUT_RETURN:
        return {order.merchant: order.amount + order.fee}
    if order.kind in (Kind.TOP_UP, Kind.DISPUTE_WON) or (order.kind is Kind.PAYMENT and order.settle == "now"):
        return {order.merchant: order.amount - order.fee}
    return {}


def pause_of(order: Order) -> float:
    """Return the seconds until the next release of an order whose release was refused: a tenth of its age."""
    age_s = (datetime.now(UTC) - order.created_at).total_seconds()
    return min(REFUSED_RELEASE_MAX_S, max(PARKED_S, age_s / 10))
