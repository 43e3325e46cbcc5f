"""Background job of the fund service that pays out withdrawals and refunds through channels: send each payout, poll it
until the channel reports a final status, then end the order.

Before the first call to the channel, the order becomes `sent`, and its fund.payouts row is inserted. So after a crash
the table has every payout that may have been sent. Each later run polls these payouts first. A payout is sent again
only if the channel reports it as absent; the reference stays the same. A payout is still polled after an API request
ended its order. If the channel later reports another status, the contradiction is recorded as a finding, and
nothing else changes.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from functools import partial

import asyncpg
import msgspec

from fundledger.fund.channels.channel import Channel
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.jobs.payout_holds import held
from fundledger.fund.jobs.payout_sending import Ends, Pace, PayoutSender, Sending
from fundledger.fund.model.order import REFUNDS, Kind, Order, State
from fundledger.fund.store.mac_layouts import PAYOUT, fields_of_payout, is_of, payout_fields
from fundledger.fund.store.orders import order_from, read_order
from fundledger.fund.store.queries import SQL


class Payouts:
    """The payouts of all configured `channels`. Orders through other channels are not changed. Several processes may
    run the job concurrently. `funds`: the check of the channels' bank accounts.

    A cancellation is safe at any point: a payout that was sent is polled later.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        batcher: Ends,
        channels: Mapping[str, Channel],
        pace: Pace | None = None,
        funds: PayoutFunds | None = None,
    ) -> None:
        self._pool = pool
        self._batcher = batcher
        self._pace = pace or Pace()
        self._by_channel = {
            name: ChannelPayouts(pool, batcher, name, channel, self._pace, funds) for name, channel in channels.items()
        }
        self.late = 0

    async def pay_out_some(self, check: Callable[[], None] | None = None) -> tuple[int, float]:
        """Run once and return `(done, lag_s)`. `done` is the number of payouts that were sent or polled. Raises what
        asyncpg raises.

        `check` is called before money is sent. An exception from `check` ends the run.
        """
        done = await asyncio.gather(*(payouts.run(check) for payouts in self._by_channel.values()))
        late_after = timedelta(seconds=self._pace.late_s)
        row = await self._pool.fetchrow(SQL["payouts_lag"], list(self._by_channel), late_after)
        assert row is not None
        self.late = row["late"]
        return sum(done), max(0.0, row["waiting_s"], row["refund_waiting_s"], row["late_s"])

    @property
    def ended(self) -> int:
        """Return the number of payouts whose end was recorded since the start of this process."""
        return sum(payouts.sender.ended for payouts in self._by_channel.values())


class ChannelPayouts:
    """The payouts of one channel. `run` selects them in chunks, and polls or sends the payouts of a chunk
    concurrently.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        batcher: Ends,
        name: str,
        channel: Channel,
        pace: Pace,
        funds: PayoutFunds | None,
    ) -> None:
        self._pool = pool
        self._batcher = batcher
        self._name = name
        self._pace = pace
        self._funds = funds
        self._answers = True
        self.sender = PayoutSender(pool, batcher, name, channel, pace, funds)

    async def run(self, check: Callable[[], None] | None) -> int:
        """Poll the payouts that are due, then send new ones: those of refunds first, because a payer waits for this
        money, and then those of withdrawals. Stop with a kind after a chunk in which the channel answered no call:
        refunds and payouts are different requests of a channel, and one may fail alone. Return the number of payouts
        that were polled or sent.
        """
        self.sender.check = check
        done = 0
        for kinds in (REFUNDS, frozenset({Kind.WITHDRAWAL})):
            done += await self._in_chunks(self._due(kinds), self.sender.poll)
            if self._answers:
                done += await self._in_chunks(partial(self._new, kinds, set(), set()), self.sender.send)
        return done

    def _due(self, kinds: Collection[Kind]) -> Callable[[], Awaitable[list[Sending]]]:
        """Return a function that leases the next chunk of payouts of these kinds that are due for a poll."""
        began_at: datetime | None = None

        async def due() -> list[Sending]:
            nonlocal began_at
            leased = self._name, self._pace.chunk, self._pace.lease
            while True:
                rows = await self._pool.fetch(SQL["payouts_due"], *leased, began_at, sorted(kinds))
                began_at = rows[0]["began_at"] if rows else began_at
                there = [row for row in rows if await self._verifies(row)]
                if there or not rows:
                    return list(map(_sending, there))

        return due

    async def _new(self, kinds: Collection[Kind], unfunded: set[str], holding: set[str]) -> list[Sending]:
        """Record a chunk of orders of these kinds as `sent`, and return their payouts. `unfunded`: the currencies to
        leave out, to which currencies are added in which the channel cannot pay out now. `holding`: the same for
        merchants that get no payouts now. The refunds of such a merchant are sent, because payers wait for them.
        """
        is_held = Kind.WITHDRAWAL in kinds
        statement = "payouts_next" if is_held else "payouts_next_refunds"
        while True:
            left_out = [sorted(unfunded), sorted(holding)] if is_held else [sorted(unfunded)]
            rows = await self._pool.fetch(SQL[statement], self._name, self._pace.chunk, *left_out)
            orders = [order_from(row) for row in rows]
            before = len(unfunded) + len(holding)
            if is_held:
                holding.update(await held(self._pool, self._batcher.macs, [order.merchant for order in orders]))
                orders = [order for order in orders if order.merchant not in holding]
            if self._funds is not None and orders:
                orders, more = await self._funds.payable(self._name, orders)
                unfunded.update(more)
            matching = await asyncio.gather(*map(self.sender.matching_order, orders))
            if any(matching):
                return await self._claim([order for order in matching if order is not None])
            # Orders in other currencies, or of other merchants, may come after orders that cannot be paid out now.
            if len(unfunded) + len(holding) == before:
                return []

    async def _claim(self, orders: list[Order]) -> list[Sending]:
        """Record orders as `sent` and insert their payouts. Skip each order that has changed since it was read. Return
        the inserted payouts.
        """
        macs, sent, kept = self._batcher.macs, [], []
        for order in orders:
            sent.append(msgspec.structs.replace(order, state=State.SENT))
            macs.seal(sent[-1])
            fields = fields_of_payout(order.id, self._name, order.amount, order.currency, kind=order.kind)
            kept.append(macs.rows.tag(PAYOUT, fields)[1])
        found = (
            [o.id for o in orders],
            [o.amount for o in orders],
            [o.currency for o in orders],
            [o.mac for o in orders],
        )
        macced = [order.mac for order in sent], kept, macs.rows.version
        rows = await self._pool.fetch(SQL["payouts_claim"], self._name, *found, *macced, self._pace.lease)
        payees = {order.id: order.payee for order in orders}
        return [msgspec.structs.replace(_sending(row), payee=payees[row["order_id"]]) for row in rows]

    async def _in_chunks(
        self, take: Callable[[], Awaitable[list[Sending]]], each: Callable[[Sending], Awaitable[bool]]
    ) -> int:
        """Call `take` for a chunk of payouts, and call `each` for each payout of the chunk. Repeat this until `take`
        returns no payout, `turn_max` payouts are done, or the channel answered no call. With chunks, few orders become
        `sent` while a channel is unavailable. Return the number of payouts.
        """
        done, self._answers = 0, True
        while done < self._pace.turn_max and self._answers:
            sendings = await take()
            if not sendings:
                break
            results = await asyncio.gather(*(each(sending) for sending in sendings), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            done += len(sendings)
            self._answers = any(results)
        return done

    async def _verifies(self, row: asyncpg.Record) -> bool:
        """Return whether a payout matches its MAC. A payout older than MACs may match its order instead. A payout that
        does not match is neither sent nor polled. Its order becomes stuck, unless the order has ended.
        """
        macs = self._batcher.macs
        there = await read_order(self._pool, row["order_id"]) if macs.is_old(row) else None
        if there is not None and macs.verifies(there) and is_of(row, there):
            return True
        if macs.agrees(PAYOUT, "payout", row["order_id"], payout_fields, row):
            return True
        order = await self._pool.fetchrow(SQL["payouts_order"], row["order_id"])
        if order is not None:
            await self.sender.report_difference(order_from(order), "the payout does not match its MAC")
        await self._pool.execute(SQL["payouts_postpone"], row["order_id"], self._pace.pause_after(row["asked"]))
        return False


def _sending(row: asyncpg.Record) -> Sending:
    return Sending(row["order_id"], row["kind"], row["amount"], row["currency"], row["asked"], row["channel_ref"])
