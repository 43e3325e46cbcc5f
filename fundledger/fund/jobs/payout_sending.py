"""Background job of the fund service, part of the payout job: send or poll a single payout or refund, and act on the
status that the channel reports. Below, a payout is the payout of a withdrawal or of a refund.
"""

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Literal, Protocol, cast
from uuid import UUID

import asyncpg
import msgspec
from aiolimiter import AsyncLimiter

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.channels.channel import Channel, ChannelAway, ChannelFault, Payout, Standing
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.jobs.payout_holds import held
from fundledger.fund.jobs.payout_payees import PayoutPayees
from fundledger.fund.jobs.recorded_end import ENDED_AS, recorded_end
from fundledger.fund.jobs.stuck import mark_differing
from fundledger.fund.model.answer import Answer
from fundledger.fund.model.bank_account import BankAccount
from fundledger.fund.model.order import REFUNDS, Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.store.mac_layouts import PAYOUT, fields_of_payout
from fundledger.fund.store.macs import OrderMacs, Tampered
from fundledger.fund.store.orders import order_from
from fundledger.fund.store.queries import SQL

_log = logging.getLogger(__name__)

Ending = Literal["paid", "bounced"]


class Ends(Protocol):
    """The interface to the order batcher, as far as payouts need it."""

    async def end(
        self,
        id_: UUID,
        ending: Ending,
        channel_ref: str | None,
        reason: str | None,
        module: str,
        *,
        unsent: bool = False,
    ) -> Answer: ...

    @property
    def macs(self) -> OrderMacs:
        """The MACs of orders and of payouts."""
        ...

    async def contradiction(self, order: Order) -> str | None:
        """Return how the voucher of an order differs from the order, or None if they agree. Raises GatewayFault."""
        ...


class Pace(msgspec.Struct, frozen=True):
    """Limits and timings of one channel.

    `rate`: maximum number of calls per second. `at_once`: maximum number of concurrent calls. `turn_max`: after this
    number of polled payouts a run begins no further chunk; sent payouts have the same limit.

    `again_s`: pause before the first poll of a payout. The pause doubles with each poll, up to `again_max_s`. `call_s`:
    maximum duration of a call, from which the lease of a payout is computed. `late_s`: time after which a payout
    without a final status is late. `doubt_s`: maximum time for which a request to pay may still be in transit while the
    channel reports the payout as absent. All times are in seconds.
    """

    rate: float = 20.0
    at_once: int = 8
    turn_max: int = 200
    again_s: float = 1.0
    again_max_s: float = 300.0
    call_s: float = 15.0
    late_s: float = 900.0
    doubt_s: float = 600.0

    @property
    def chunk(self) -> int:
        """The number of payouts in a chunk. The payouts of a chunk are sent or polled concurrently."""
        return max(1, min(self.at_once, int(self.rate * self.call_s)))

    @property
    def lease(self) -> timedelta:
        """The duration of the lease of a payout. A process can poll a whole chunk and send it again
        within this time.
        """
        return timedelta(seconds=2 * (self.call_s + self.chunk / self.rate))

    def pause_after(self, asked: int) -> timedelta:
        """Return the pause before the next poll of a payout that has been polled `asked` times."""
        return timedelta(seconds=min(self.again_max_s, self.again_s * 2.0 ** min(asked, 30)))


class Sending(msgspec.Struct):
    """A payout that this process has leased in order to send it or to poll its status. `kind`: that of its order.
    `payee`: the payee of its order, as far as the order was verified.
    """

    order_id: UUID
    kind: str
    amount: int
    currency: str
    asked: int
    channel_ref: str | None = None
    payee: UUID | None = None


class PayoutSender:
    """The sender of the payouts of one channel. Each call sends or polls one payout. `check` is called before money is
    sent, and an exception from `check` ends the run. `ended`: the number of payouts whose end was recorded.
    """

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        batcher: Ends,
        name: str,
        channel: Channel,
        pace: Pace,
        funds: PayoutFunds | None = None,
    ) -> None:
        self._pool = pool
        self._batcher = batcher
        self._name = name
        self._channel = channel
        self._pace = pace
        self._funds = funds
        self._payees = PayoutPayees(pool, batcher.macs)
        self._limiter: AsyncLimiter | None = None
        self.check: Callable[[], None] | None = None
        self.ended = 0

    async def send(self, sending: Sending) -> bool:
        """Send a payout for the first time, or again after the channel reported it as `absent`. Return False if the
        channel did not answer.
        """
        await self._wait_for_rate()
        original_ref = None
        if sending.kind in REFUNDS:
            try:
                original_ref = await self._original_ref(sending)
            except Tampered as found:
                await self._report_payment(sending, str(found))
                await self._postpone(sending)
                return True
        if self.check is not None:
            self.check()
        if await self._pool.fetchval(SQL["payouts_open"], sending.order_id) is None:
            # The order has ended since the payout was leased. Do not send it: poll the channel later.
            await self._postpone(sending)
            return True
        payee = await self._payees.usable(sending.payee)
        if sending.payee is not None and payee is None:
            # The payee has been disabled or edited since the payout was leased.
            await self._postpone(sending)
            return True
        account = None if payee is None else payee.bank_account
        try:
            reported = await self._call(sending, original_ref, account)
        except ChannelAway as fault:
            _log.warning("channel %s is unavailable: %s", self._name, fault, extra={"event": "channel_unavailable"})
            await self._postpone(sending)
            return False
        except Exception as fault:
            # After any other failure the outcome is unknown: the money may be in transit.
            _log.warning(
                "channel %s did not answer to payout %s, its outcome is unknown: %s",
                *(self._name, sending.order_id, fault),
                extra={"event": "payout_unknown", "order": str(sending.order_id)},
            )
            await self._record_unknown(sending, str(fault)[:500].replace("\x00", ""))
            return False
        if reported.state is Standing.ABSENT:
            _log.error(
                "channel %s answered `absent` to the request to pay %s",
                *(self._name, sending.order_id),
                extra={"event": "payout_answer_invalid", "order": str(sending.order_id)},
            )
            await self._postpone(sending)
        else:
            await self._act_on_status(sending, reported)
        return True

    async def _call(self, sending: Sending, original_ref: str | None, payee: BankAccount | None) -> Payout:
        """Send money. Raises what the channel raises."""
        ref, money = str(sending.order_id), (sending.amount, sending.currency)
        if sending.kind in REFUNDS:
            return await self._channel.refund(ref, original_ref, *money)
        return await self._channel.pay_out(ref, *money, payee)

    async def _original_ref(self, sending: Sending) -> str | None:
        """Return the channel's reference of the payment of a refund. Raises Tampered if the payment does not match its
        MAC.
        """
        row = await self._pool.fetchrow(SQL["payouts_original"], sending.order_id)
        if row is None:
            raise Tampered("the payment of refund", sending.order_id)
        payment = order_from(row)
        self._batcher.macs.check(payment)
        return payment.channel_ref

    async def poll(self, sending: Sending) -> bool:
        """Poll the status of a payout, and act on the status. Return whether the channel answered."""
        await self._wait_for_rate()
        try:
            query = self._channel.query_refund if sending.kind in REFUNDS else self._channel.query
            reported = await query(str(sending.order_id))
        except Exception as fault:
            is_expected = isinstance(fault, ChannelFault)
            _log.log(
                logging.WARNING if is_expected else logging.ERROR,
                "channel %s does not report the status of payout %s: %s",
                *(self._name, sending.order_id, fault),
                exc_info=not is_expected,
                extra={"event": "payout_poll_failed", "order": str(sending.order_id)},
            )
            await self._postpone(sending)
            return False
        if reported.state is not Standing.ABSENT:
            await self._act_on_status(sending, reported)
        elif await self._pool.fetchval(SQL["payouts_again"], sending.order_id, self._pace.lease) is not None:
            if await self._may_send_again(sending):
                return await self.send(sending)
            await self._postpone(sending)
        else:
            await self._handle_absent(sending)
        return True

    async def matching_order(self, order: Order) -> Order | None:
        """Return the order if its posted voucher matches it, and its payee is usable. Otherwise return None, and the
        caller must not send the payout. An order that differs from its voucher becomes stuck, and so does one whose
        payee does not match its MAC. If the payee is disabled, a withdrawal that was not sent is returned to the
        merchant.
        """
        try:
            differs = await self._batcher.contradiction(order)
        except GatewayFault as fault:
            _log.warning(
                "sending %s %s is postponed, its voucher cannot be read: %s",
                *(order.kind, order.id, fault),
                extra={"event": "payout_postponed", "order": str(order.id)},
            )
            return None
        if differs is not None:
            await self.report_difference(order, differs)
            return None
        unusable = await self._payees.why_unusable(order)
        if unusable is None:
            return order
        if unusable.tampered:
            await self.report_difference(order, unusable.detail)
        else:
            await self._payees.give_up(self._batcher, order, unusable.detail, f"channel/{self._name}")
        return None

    async def _may_send_again(self, sending: Sending) -> bool:
        """Return whether a payout that the channel reports as absent is still that of the order and of its voucher, and
        the service still sends the payouts of the channel and of the merchant.
        """
        row = await self._pool.fetchrow(SQL["payouts_order"], sending.order_id)
        if row is None:
            return False
        terms = self._name, sending.currency, Kind(sending.kind)
        if self._funds is not None and not await self._funds.is_sent_by_service(*terms):
            return False
        is_withdrawal = sending.kind == Kind.WITHDRAWAL
        if is_withdrawal and await held(self._pool, self._batcher.macs, [row["merchant"]]):
            return False
        order = await self.matching_order(order_from(row))
        if order is None:
            return False
        if (order.kind, order.amount, order.currency) == (sending.kind, sending.amount, sending.currency):
            sending.payee = order.payee
            return True
        detail = f"the payout has {sending.amount} {sending.currency}, the order {order.amount} {order.currency}"
        await self.report_difference(order, detail)
        return False

    async def _report_payment(self, sending: Sending, detail: str) -> None:
        """Mark a refund as stuck, because its payment does not match its MAC."""
        row = await self._pool.fetchrow(SQL["payouts_order"], sending.order_id)
        if row is not None:
            await self.report_difference(order_from(row), detail)

    async def report_difference(self, order: Order, detail: str) -> None:
        """Mark an order as stuck, because the order differs from its voucher or its payout. Record the difference."""
        await mark_differing(self._pool, self._batcher.macs, order, self._name, detail)

    async def _act_on_status(self, sending: Sending, reported: Payout) -> None:
        """Act on the status that the channel reports for a payout. If the reported amount or currency differs from the
        payout, record a finding, and do not end the order.
        """
        if reported.amount not in {None, sending.amount} or reported.currency not in {None, sending.currency}:
            await self._record_finding(sending, "sent", "amount", reported)
            await self._postpone(sending, reported.channel_ref)
            return
        if reported.state is Standing.ACCEPTED:
            await self._postpone(sending, reported.channel_ref)
            return
        ending = cast("Ending", reported.state.value)
        reason = (reported.reason or "no reason was given") if ending == "bounced" else None
        # A bounce is no receipt. The bank reference of a payout that is paid may be booked by another order: the payout
        # has happened nevertheless, so it is recorded without the reference.
        ref, by = reported.channel_ref if ending == "paid" else None, f"channel/{self._name}"
        answer = await self._batcher.end(sending.order_id, ending, ref, reason, by)
        if isinstance(answer, Refusal) and answer.code is Code.RECEIPT_ALREADY_BOOKED:
            await self._record_finding(sending, "sent", "paid", reported)
            answer = await self._batcher.end(sending.order_id, ending, None, reason, by)
        recorded = recorded_end(answer)
        if recorded is None:
            _log.warning(
                "recording that payout %s is %s failed: %s",
                *(sending.order_id, ending, answer),
                extra={"event": "payout_end_unrecorded", "order": str(sending.order_id)},
            )
            await self._postpone(sending, reported.channel_ref)
            return
        if recorded != ending:
            await self._record_finding(sending, recorded, ending, reported)
        else:
            self.ended += 1
        await self._close(sending, ending, reported.channel_ref)

    async def _handle_absent(self, sending: Sending) -> None:
        """Handle the status `absent` of a payout that must not be sent again. If an API request ended the order, close
        the payout as soon as no request to pay can still be in transit. The payout of a stuck order stays open, because
        a retry makes the order `sent` again.
        """
        doubt = timedelta(seconds=self._pace.doubt_s)
        row = await self._pool.fetchrow(SQL["payouts_stands"], sending.order_id, doubt)
        assert row is not None
        if not row["past_doubt"] or row["stands"] not in ENDED_AS.values():
            await self._postpone(sending)
            return
        if row["stands"] == "paid":
            await self._record_finding(sending, "paid", "absent", Payout(Standing.ABSENT))
        await self._close(sending, "absent", None)

    async def _record_unknown(self, sending: Sending, why: str) -> None:
        """Record that the channel did not answer the request to pay. An order that does not match its MAC gets no new
        MAC.
        """
        row = await self._pool.fetchrow(SQL["payouts_order"], sending.order_id)
        new = old = None if row is None else order_from(row)
        if old is not None and self._batcher.macs.verifies(old):
            new = msgspec.structs.replace(old, state=State.UNKNOWN)
            self._batcher.macs.seal(new)
        macced = (new.mac, new.mac_key, old.mac) if new and old else (None, None, None)
        pause = self._pace.pause_after(sending.asked)
        await self._pool.execute(SQL["payouts_unknown"], sending.order_id, pause, why, *macced)

    async def _record_finding(self, sending: Sending, recorded: str, status: str, reported: Payout) -> None:
        """Record a finding: the channel reports `status`, but the state of the order is `recorded`."""
        evidence = msgspec.json.encode(reported).decode()
        found = SQL["payouts_finding"], sending.order_id, self._name, recorded, status, evidence
        if await self._pool.fetchval(*found) is not None:
            _log.critical(
                "channel %s reports %s for %s %s, which is recorded as %s",
                *(self._name, status, sending.kind, sending.order_id, recorded),
                extra={"event": "payout_finding", "order": str(sending.order_id)},
            )

    async def _postpone(self, sending: Sending, channel_ref: str | None = None) -> None:
        """Postpone the next poll of a payout. The pause grows with the number of polls."""
        sending.channel_ref = channel_ref or sending.channel_ref
        macced = sending.channel_ref, *self._mac_of(sending, None)
        await self._pool.execute(SQL["payouts_later"], sending.order_id, self._pace.pause_after(sending.asked), *macced)

    async def _close(self, sending: Sending, outcome: str, channel_ref: str | None) -> None:
        """Record the final outcome of a payout, so that it is not polled again."""
        sending.channel_ref = channel_ref or sending.channel_ref
        macced = sending.channel_ref, *self._mac_of(sending, outcome)
        await self._pool.execute(SQL["payouts_close"], sending.order_id, outcome, *macced)

    def _mac_of(self, sending: Sending, outcome: str | None) -> tuple[int, bytes]:
        money = sending.amount, sending.currency
        fields = sending.order_id, self._name, *money, outcome, sending.channel_ref, sending.kind
        return self._batcher.macs.rows.tag(PAYOUT, fields_of_payout(*fields))

    async def _wait_for_rate(self) -> None:
        if self._limiter is None:
            burst = max(1.0, self._pace.rate)
            self._limiter = AsyncLimiter(burst, burst / self._pace.rate)
        await self._limiter.acquire()
