"""Background job that pays out withdrawals through channels: send each payout, poll it until the channel reports a
final status, then end the order.

The order becomes `sent`, and its fund.payouts row is inserted, before the first call. So after a crash every payout
that may have been sent is known. Each later run polls first. It sends again, under the same reference, only if the
channel reports the payout as absent. A payout whose order was ended by an API request is still polled. A contradicting
channel status is recorded as a finding, and changes nothing else.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol, cast
from uuid import UUID

import asyncpg
import msgspec
from aiolimiter import AsyncLimiter

from fundledger.fund.account_gateway import Away as AccountsAway
from fundledger.fund.channels.channel import Channel, ChannelAway, ChannelFault, Payout, Standing
from fundledger.fund.jobs.payout_run import Pace, Paid, Sending
from fundledger.fund.jobs.stuck import mark_stuck, problem
from fundledger.fund.model.answer import Answer, Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store.mac_layouts import PAYOUT, fields_of_payout, is_of, payout_fields
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import order_from, read_order
from fundledger.fund.store.queries import SQL

_log = logging.getLogger(__name__)

Ending = Literal["paid", "bounced"]
_ENDED_AS: Final = {Code.WITHDRAWAL_PAID: "paid", Code.WITHDRAWAL_BOUNCED: "bounced"}


class Ends(Protocol):
    """The part of the order batcher that payouts need."""

    async def end(
        self, order_id: UUID, ending: Ending, channel_ref: str | None, reason: str | None, module: str
    ) -> Answer: ...

    @property
    def macs(self) -> OrderMacs:
        """The MACs of orders and of payouts."""
        ...

    async def contradiction(self, order: Order) -> str | None:
        """Return how the voucher of a withdrawal differs from its order, None if it does not. Raises Away."""
        ...


class Payouts:
    """The payouts of all configured `channels`. Withdrawals through other channels are not touched. Several processes
    may run this concurrently.

    Cancelling is safe at any point: a payout that was sent is polled later.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        desk: Ends,
        channels: Mapping[str, Channel],
        pace: Pace | None = None,
    ) -> None:
        self._pool = pool
        self._desk = desk
        self._pace = pace or Pace()
        self._lines = {name: _Line(pool, desk, name, channel, self._pace) for name, channel in channels.items()}
        self._late = 0

    async def pay_out_some(self, check: Callable[[], None] | None = None) -> tuple[int, float]:
        """Run once and return `(done, lag_s)`. `done` counts payouts that were sent or polled. Raises what asyncpg
        raises.

        `check` is called before money is sent; an exception that it raises ends the run.
        """
        done = await asyncio.gather(*(line.turn(check) for line in self._lines.values()))
        late_after = timedelta(seconds=self._pace.late_s)
        row = await self._pool.fetchrow(SQL["payouts_lag"], list(self._lines), late_after)
        assert row is not None
        self._late = row["late"]
        return sum(done), max(0.0, row["waiting_s"], row["late_s"])

    @property
    def counted(self) -> Paid:
        total = Paid(late=self._late)
        for line in self._lines.values():
            for field in Paid.__struct_fields__:
                setattr(total, field, getattr(total, field) + getattr(line.counted, field))
        return total


class _Line:
    """The payouts of one channel."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", desk: Ends, name: str, channel: Channel, pace: Pace
    ) -> None:
        self._pool = pool
        self._desk = desk
        self._name = name
        self._channel = channel
        self._pace = pace
        self._limiter: AsyncLimiter | None = None
        # The lease has to cover a whole chunk, polled and sent again.
        self._chunk = max(1, min(pace.at_once, int(pace.rate * pace.call_s)))
        self._lease = timedelta(seconds=2 * (pace.call_s + self._chunk / pace.rate))
        self._answers = True
        self._check: Callable[[], None] | None = None
        self.counted = Paid()

    async def turn(self, check: Callable[[], None] | None) -> int:
        """Poll the payouts that are due, then send new ones, while the channel answers. Return how many."""
        self._check = check
        began_at: datetime | None = None

        async def due() -> list[asyncpg.Record]:
            nonlocal began_at
            while True:
                rows = await self._pool.fetch(SQL["payouts_due"], self._name, self._chunk, self._lease, began_at)
                began_at = rows[0]["began_at"] if rows else began_at
                there = [row for row in rows if await self._is_kept(row)]
                if there or not rows:
                    return there

        async def new() -> list[asyncpg.Record]:
            rows = await self._pool.fetch(SQL["payouts_next"], self._name, self._chunk)
            found = await asyncio.gather(*(self._is_posted(order_from(row)) for row in rows))
            orders = [order for order in found if order is not None]
            return await self._claim(orders) if orders else []

        asked = await self._through(due, self._ask_after)
        return asked + await self._through(new, self._send) if self._answers else asked

    async def _claim(self, orders: list[Order]) -> list[asyncpg.Record]:
        """Record orders as `sent` and insert their payouts. Skip orders that changed since they were read."""
        macs, sent, kept = self._desk.macs, [], []
        for order in orders:
            sent.append(msgspec.structs.replace(order, state=State.SENT))
            macs.seal(sent[-1])
            kept.append(macs.rows.tag(PAYOUT, fields_of_payout(order.id, self._name, order.amount, order.currency))[1])
        found = (
            [o.id for o in orders],
            [o.amount for o in orders],
            [o.currency for o in orders],
            [o.mac for o in orders],
        )
        macced = [order.mac for order in sent], kept, macs.rows.version
        return await self._pool.fetch(SQL["payouts_claim"], self._name, *found, *macced, self._lease)

    async def _through(
        self, take: Callable[[], Awaitable[list[asyncpg.Record]]], each: Callable[[Sending], Awaitable[bool]]
    ) -> int:
        """Work in chunks, so that few orders become `sent` while a channel is unavailable. Return the count."""
        done, self._answers = 0, True
        while done < self._pace.turn_max and self._answers:
            rows = await take()
            if not rows:
                break
            sendings = [Sending(*(row[name] for name in Sending.__struct_fields__)) for row in rows]
            results = await asyncio.gather(*(each(sending) for sending in sendings), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            done += len(sendings)
            self._answers = any(results)
        return done

    async def _is_kept(self, row: asyncpg.Record) -> bool:
        """Return whether a payout matches its MAC; for a payout older than MACs, whether it matches its order. If not,
        nothing is sent or polled, and the order becomes stuck unless it has ended.
        """
        macs = self._desk.macs
        there = await read_order(self._pool, row["order_id"]) if macs.is_old(row) else None
        if there is not None and macs.verifies(there) and is_of(row, there):
            return True
        if macs.agrees(PAYOUT, "payout", row["order_id"], payout_fields, row):
            return True
        order = await self._pool.fetchrow(SQL["payouts_order"], row["order_id"])
        if order is not None:
            await self._differs(order_from(order), "the payout does not match its MAC")
        await self._pool.execute(SQL["payouts_postpone"], row["order_id"], self._after(row["asked"]))
        return False

    async def _is_posted(self, order: Order) -> Order | None:
        """Return the order if its posted voucher matches it, else None: nothing is sent. An order that differs from its
        voucher becomes stuck.
        """
        try:
            differs = await self._desk.contradiction(order)
        except AccountsAway as away:
            _log.warning(
                "sending withdrawal %s is postponed, its voucher cannot be read: %s",
                *(order.id, away),
                extra={"event": "payout_postponed", "order": str(order.id)},
            )
            return None
        if differs is None:
            return order
        await self._differs(order, differs)
        return None

    async def _differs(self, order: Order, detail: str) -> None:
        reason = problem("payout-differs", "Payout differs from posted voucher", detail)
        if await mark_stuck(self._pool, self._desk.macs, order, reason):
            self.counted.findings += 1
            said = msgspec.json.encode({"detail": detail}).decode()
            await self._pool.execute(SQL["payouts_finding"], order.id, self._name, order.state, "voucher", said)

    async def _is_posted_still(self, sending: Sending) -> bool:
        row = await self._pool.fetchrow(SQL["payouts_order"], sending.order_id)
        if row is None:
            return False
        order = await self._is_posted(order_from(row))
        if order is None:
            return False
        if (order.amount, order.currency) == (sending.amount, sending.currency):
            return True
        detail = f"the payout has {sending.amount} {sending.currency}, the order {order.amount} {order.currency}"
        await self._differs(order, detail)
        return False

    async def _send(self, sending: Sending) -> bool:
        """Send a payout: the first time, or again after the channel reported `absent`. Return whether it answered."""
        await self._paced()
        if self._check is not None:
            self._check()
        if await self._pool.fetchval(SQL["payouts_open"], sending.order_id) is None:
            # The order ended since the payout was leased: poll the channel later.
            await self._later(sending)
            return True
        self.counted.sent += 1
        try:
            said = await self._channel.pay_out(str(sending.order_id), sending.amount, sending.currency)
        except ChannelAway as fault:
            self.counted.away += 1
            _log.warning("channel %s is unavailable: %s", self._name, fault, extra={"event": "channel_unavailable"})
            await self._later(sending)
            return False
        except Exception as fault:
            # Any other failure leaves the outcome unknown: the money may be in transit.
            self.counted.silent += 1
            _log.warning(
                "channel %s did not answer to payout %s, its outcome is unknown: %s",
                *(self._name, sending.order_id, fault),
                extra={"event": "payout_unknown", "order": str(sending.order_id)},
            )
            await self._unknown(sending, str(fault)[:500].replace("\x00", ""))
            return False
        if said.state is Standing.ABSENT:
            _log.error(
                "channel %s answered `absent` to the request to pay %s",
                *(self._name, sending.order_id),
                extra={"event": "payout_answer_invalid", "order": str(sending.order_id)},
            )
            await self._later(sending)
        else:
            await self._heard(sending, said)
        return True

    async def _unknown(self, sending: Sending, why: str) -> None:
        """Record that the channel did not answer. An order that does not match its MAC keeps its MAC."""
        row = await self._pool.fetchrow(SQL["payouts_order"], sending.order_id)
        new = old = None if row is None else order_from(row)
        if old is not None and self._desk.macs.verifies(old):
            new = msgspec.structs.replace(old, state=State.UNKNOWN)
            self._desk.macs.seal(new)
        macced = (new.mac, new.mac_key, old.mac) if new and old else (None, None, None)
        await self._pool.execute(SQL["payouts_unknown"], sending.order_id, self._after(sending.asked), why, *macced)

    async def _ask_after(self, sending: Sending) -> bool:
        """Poll the status of a payout, and act on it. Return whether the channel answered."""
        await self._paced()
        self.counted.asked += 1
        try:
            said = await self._channel.query(str(sending.order_id))
        except Exception as fault:
            if not isinstance(fault, ChannelFault):
                _log.exception("polling channel %s failed", self._name, extra={"event": "payout_poll_failed"})
            self.counted.away += 1
            _log.warning(
                "channel %s does not report the status of payout %s: %s",
                *(self._name, sending.order_id, fault),
                extra={"event": "payout_poll_failed", "order": str(sending.order_id)},
            )
            await self._later(sending)
            return False
        if said.state is not Standing.ABSENT:
            await self._heard(sending, said)
        elif await self._pool.fetchval(SQL["payouts_again"], sending.order_id, self._lease) is not None:
            if await self._is_posted_still(sending):
                return await self._send(sending)
            await self._later(sending)
        else:
            await self._absent_of_ended(sending)
        return True

    async def _heard(self, sending: Sending, said: Payout) -> None:
        """Act on the status of a payout that the channel has. A different amount becomes a finding, without an end."""
        if said.amount not in {None, sending.amount} or said.currency not in {None, sending.currency}:
            await self._finding(sending, "sent", "amount", said)
            await self._later(sending, said.channel_ref)
            return
        if said.state is Standing.ACCEPTED:
            await self._later(sending, said.channel_ref)
            return
        ending = cast("Ending", said.state.value)
        reason = (said.reason or "no reason was given") if ending == "bounced" else None
        answer = await self._desk.end(sending.order_id, ending, said.channel_ref, reason, f"channel/{self._name}")
        stands = _stands(answer)
        if stands is None:
            _log.warning(
                "recording that payout %s is %s failed: %s",
                *(sending.order_id, ending, answer),
                extra={"event": "payout_end_unrecorded", "order": str(sending.order_id)},
            )
            await self._later(sending, said.channel_ref)
            return
        if stands != ending:
            await self._finding(sending, stands, ending, said)
        else:
            self.counted.ended += 1
        await self._close(sending, ending, said.channel_ref)

    async def _absent_of_ended(self, sending: Sending) -> None:
        """Handle `absent` for an order that an API request ended. It is final once no call can still be in transit."""
        doubt = timedelta(seconds=self._pace.doubt_s)
        row = await self._pool.fetchrow(SQL["payouts_stands"], sending.order_id, doubt)
        assert row is not None
        if not row["past_doubt"]:
            await self._later(sending)
            return
        if row["stands"] == "paid":
            await self._finding(sending, "paid", "absent", Payout(Standing.ABSENT))
        await self._close(sending, "absent", None)

    async def _finding(self, sending: Sending, stands: str, says: str, said: Payout) -> None:
        detail = msgspec.json.encode(said).decode()
        found = SQL["payouts_finding"], sending.order_id, self._name, stands, says, detail
        if await self._pool.fetchval(*found) is not None:
            self.counted.findings += 1
            _log.critical(
                "channel %s reports %s for withdrawal %s, which is recorded as %s",
                *(self._name, says, sending.order_id, stands),
                extra={"event": "payout_finding", "order": str(sending.order_id)},
            )

    async def _later(self, sending: Sending, channel_ref: str | None = None) -> None:
        sending.channel_ref = channel_ref or sending.channel_ref
        macced = sending.channel_ref, *self._tag(sending, None)
        await self._pool.execute(SQL["payouts_later"], sending.order_id, self._after(sending.asked), *macced)

    async def _close(self, sending: Sending, outcome: str, channel_ref: str | None) -> None:
        """Record the final outcome of a payout. It is not polled again."""
        sending.channel_ref = channel_ref or sending.channel_ref
        macced = sending.channel_ref, *self._tag(sending, outcome)
        await self._pool.execute(SQL["payouts_close"], sending.order_id, outcome, *macced)

    def _tag(self, sending: Sending, outcome: str | None) -> tuple[int, bytes]:
        fields = sending.order_id, self._name, sending.amount, sending.currency, outcome, sending.channel_ref
        return self._desk.macs.rows.tag(PAYOUT, fields_of_payout(*fields))

    def _after(self, asked: int) -> timedelta:
        doubled = self._pace.again_s * 2.0 ** min(asked, 30)
        return timedelta(seconds=min(self._pace.again_max_s, doubled))

    async def _paced(self) -> None:
        if self._limiter is None:
            burst = max(1.0, self._pace.rate)
            self._limiter = AsyncLimiter(burst, burst / self._pace.rate)
        await self._limiter.acquire()


def _stands(answer: Answer) -> str | None:
    """Return how the order ended or will end, None if that is not certain."""
    if isinstance(answer, Refusal):
        return _ENDED_AS.get(answer.code)
    if isinstance(answer, Taken):
        stands = answer.order.ending or answer.order.state.value
        return stands if stands in {"paid", "bounced"} else None
    return None
