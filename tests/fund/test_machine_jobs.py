"""Random payouts, settlements by calendar and stuck orders, over midnight, compared with a model of the fund service.

This extends the machine of `test_machine`. After every step the tables of payouts and findings are also compared. A run
fails if it does not take every branch of `WANTED`. Further tests run with one broken guard each.

`FUNDLEDGER_TEST_LONG=1` makes the run long, and breaks more guards.
"""

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from fundledger.fund.channels.channel import ChannelAway, ChannelSilent, Payout, Standing, StatementLine
from fundledger.fund.jobs import stuck
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.jobs.payout_sending import Pace, PayoutSender, Sending
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model import flows
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.days import Days
from fundledger.fund.model.order import Kind, Order
from fundledger.fund.model.requests import Fee
from fundledger.fund.model.settlement import SettlementDates
from fundledger.fund.store.queries import SQL
from tests.fund.test_machine import FROZEN, Machine
from tests.support.calendar_model import Terms
from tests.support.fund_books import prove_fund
from tests.support.fund_ends import MAY_END
from tests.support.fund_model import Asked, Shop
from tests.support.fund_script import AFTER, BEFORE, HEARD, STOP, STUCK, UNHEARD, UNSURE, ScriptedWorker
from tests.support.fund_worker import EveryChannel
from tests.support.length import unless_long
from tests.support.running import RunningService

pytestmark = pytest.mark.drill

SEED = 11
ROUNDS = unless_long(1, 200)
ROUNDS_MORE = 15
SETTLE_AT = time(2)
CALENDAR = "America/New_York", time(17)
BEGIN = datetime(2018, 2, 26, 14, tzinfo=UTC)
"""The machine begins on a Monday. The month ends two days later, and the clock is set forward on the next weekend but one."""
TERMS = {
    "daily": Terms("daily"),
    "weekly": Terms("weekly"),
    "manual": Terms(),
    "working": Terms("daily", 2, time(12)),
    "monthly": Terms("monthly"),
}
AT_ONCE = Pace(rate=10_000, at_once=1_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)
PAID, BOUNCED, ACCEPTED, AWAY = "paid", "bounced", "accepted", "away"
LOST = "lost"
SILENT = {LOST: None, "silent and paid": PAID, "silent and bounced": BOUNCED, "silent and accepted": ACCEPTED}
"""Calls without a response, each with the state of the payout at the channel after it (None: the call was lost)."""
OTHER_AMOUNT = "another amount"
PAID_OUT = (Kind.WITHDRAWAL, Kind.REFUND)
STICKING = (Kind.PAYMENT, Kind.REFUND, Kind.SETTLEMENT, Kind.WITHDRAWAL, Kind.ADJUSTMENT, Kind.REVERSAL)

WANTED = {
    *(f"pay_out: {says}" for says in (PAID, BOUNCED, ACCEPTED, AWAY, *SILENT)),
    *(f"query: {says}" for says in (PAID, BOUNCED, ACCEPTED, AWAY, OTHER_AMOUNT, "absent")),
    *(f"unknown, then {says}" for says in (PAID, BOUNCED, "sent again")),
    *(f"payout {ending}" for ending in (PAID, BOUNCED)),
    *(f"{kind} {ending} by the channel" for kind in ("withdrawal", "refund") for ending in (PAID, BOUNCED)),
    *(f"payout ends: {how}" for how in (HEARD, BEFORE, AFTER, UNSURE, STUCK)),
    *("payout bounced to a frozen merchant", "payout bounced on a later day", "payout sent on a later day"),
    *(
        f"a person said {stands}, the channel {says}"
        for stands in (PAID, BOUNCED)
        for says in (PAID, BOUNCED, "absent")
    ),
    *(f"settled: {name}" for name in ("daily", "weekly", "working", "monthly")),
    *(f"settled by the calendar: {how}" for how in (HEARD, *UNHEARD, STUCK)),
    *("before the time of the day", "a day made up for after midnight", "not due yet", "second on one day"),
    "no settlement on a day without work",
    *(f"{kind} {STUCK}" for kind in STICKING),
    *(f"stuck end of one that was {state}" for state in MAY_END),
    *(f"retry {how}" for how in (HEARD, *UNHEARD, STUCK)),
    *("retry by two callers", "retry of one that was posted", "retry of an end that was posted", "retry of an end"),
    *(f"replay {state}" for state in ("sent", "unknown", "stuck")),
}


@dataclass
class Bank:
    """A channel that pays each reference once. `says`: by reference, the next answer to a poll and to a payout call.
    `originals`: by the reference of a refund, the reference of its payment.
    """

    has: dict[str, str] = field(default_factory=dict)
    says: dict[str, tuple[str, str]] = field(default_factory=dict)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    originals: dict[str, str | None] = field(default_factory=dict)

    async def pay_out(self, ref: str, amount: int, currency: str, payee: object = None) -> Payout:
        return self._pay("pay_out", ref, amount, currency)

    async def query(self, ref: str) -> Payout:
        return self._query("query", ref)

    async def refund(self, ref: str, original_ref: str | None, amount: int, currency: str) -> Payout:
        assert original_ref == self.originals[ref]
        return self._pay("refund", ref, amount, currency)

    async def query_refund(self, ref: str) -> Payout:
        return self._query("query_refund", ref)

    def _pay(self, call: str, ref: str, amount: int, currency: str) -> Payout:
        del currency
        self.calls[call, ref] += 1
        says = self.says[ref][1]
        if says == AWAY:
            raise ChannelAway("no connection")
        now = SILENT.get(says, says)
        if now is not None:
            self.has.setdefault(ref, now)
        if says in SILENT:
            raise ChannelSilent("no answer")
        return Payout(Standing(says), channel_ref=f"R-{ref[:8]}", amount=amount)

    def _query(self, call: str, ref: str) -> Payout:
        self.calls[call, ref] += 1
        says = self.says[ref][0]
        if says == AWAY:
            raise ChannelAway("no connection")
        has = self.has.get(ref, "absent")
        return Payout(Standing(has), amount=1 << 40 if says == OTHER_AMOUNT and has != "absent" else None)

    async def statement(self, day: date) -> list[StatementLine]:
        del day
        return []


@dataclass
class Sent:
    """The model of a payout. `outcome`: the last answer of the channel. If it is None, the channel is polled again."""

    outcome: str | None = None
    unknown: bool = False


class JobsMachine(Machine):
    def __init__(self, worker: ScriptedWorker, seed: int) -> None:
        super().__init__(worker, seed)
        self.bank = Bank()
        self.names: dict[str, str] = {}
        self.terms: dict[str, Terms] = {}
        self.last: dict[str, tuple[date, int, Asked | None]] = {}
        self.sent: dict[Asked, Sent] = {}
        self.findings: dict[tuple[UUID, str], str] = {}
        self.by_hand: set[Asked] = set()
        self.stuck_from: dict[Asked, str] = {}
        self.model.now = worker.now
        worker.accounts.clock = worker.now

    # --- The clock ---

    def until(self, at: time) -> datetime:
        """Return the next moment with this local time of day, some seconds earlier or later."""
        zone = ZoneInfo(self.model.days.zone)
        then = datetime.combine(self.worker.at.astimezone(zone).date(), at, zone)
        if then <= self.worker.at + timedelta(minutes=2):
            then = datetime.combine(then.date() + timedelta(days=1), at, zone)
        return then.astimezone(UTC) + timedelta(seconds=self.chance.randint(-90, 90))

    async def midnight(self) -> None:
        self.worker.at = self.until(self.model.days.cut)

    async def time_of_settlements(self) -> None:
        self.worker.at = self.until(SETTLE_AT)

    # --- Merchants and orders ---

    async def open_shop(self) -> None:
        number = len(self.shops)
        name, terms = list(TERMS.items())[number % len(TERMS)]
        cut = None if terms.cut is None else f"{terms.cut:%H:%M}"
        rules = {"settlement": terms.calendar, "settlement_days": terms.days, "settlement_cut": cut}
        fees = {"fee": Fee(basis_points=150, fixed=2), "withdrawal_fee": Fee(fixed=3)}
        id_ = await self.worker.merchant(f"m{number}", **rules, **fees)
        begin = datetime.min.replace(tzinfo=UTC)
        self.shops.append(Shop(id_, None, [("payment", begin, 150, 2), ("withdrawal", begin, 0, 3)]))
        self.names[id_], self.terms[id_] = name, terms

    def post(self, order: Asked, how: str, looks: list[tuple[int, int]]) -> None:
        if how != STUCK:
            super().post(order, how, looks)
            return
        self.stick(order)

    def stick(self, order: Asked) -> None:
        self.stuck_from[order] = order.stuck_from = order.state
        self.seen[f"{order.kind} {STUCK}" if order.ending is None else f"stuck end of one that was {order.state}"] += 1
        order.state = "stuck"

    # --- Payouts ---

    def to_pay(self, *states: str, kinds: Sequence[Kind] = PAID_OUT) -> list[Asked]:
        """Return the withdrawals and refunds in these states."""
        return [o for o in self.model.orders.values() if o.kind in kinds and o.state in states]

    async def some_to_pay(self) -> None:
        """Make a withdrawal or a refund of a merchant. The account service answers normally."""
        await self.usual(self.some_shop(), self.chance.choice(PAID_OUT))

    async def pay_out(self) -> None:
        """Run the payouts with answers of the channel that did not occur yet."""
        says = [PAID, BOUNCED, ACCEPTED, AWAY, LOST, *SILENT]
        await self.some_to_pay()
        if self.how not in (HEARD, STOP) or self.freezes:
            says = [BOUNCED] if self.freezes else [PAID, BOUNCED]
            if self.freezes and not self.seen["payout bounced on a later day"]:
                await self.next_day()
        else:
            await self.some_to_pay()
            says = [one for one in says if not self.seen[f"pay_out: {one}"]] or says
        how = self.how if self.how != STOP else HEARD
        answers = lambda: self.chance.choice([*["answers"] * 5, AWAY, OTHER_AMOUNT])  # noqa: E731
        await self.turn(how, answers, lambda: self.chance.choice(says))

    async def turn(self, how: str, to_query: Callable[[], str], to_pay: Callable[[], str]) -> None:
        """Run the job once, and model it: of refunds and then of withdrawals, the open payouts are polled, and new ones
        are sent unless no poll was answered.
        """
        opened = [order for order, sent in self.sent.items() if sent.outcome is None]
        new = [order for order in self.to_pay("posted") if order.ending is None and order not in self.sent]
        for order in [*opened, *new]:
            ref = str(self.id(order))
            self.bank.says[ref] = to_query(), to_pay()
            self.bank.originals[ref] = order.of.members.get("channel_ref") if order.of else None
            if self.bank.has.get(ref) == ACCEPTED and self.chance.random() < 0.5:
                self.bank.has[ref] = self.chance.choice([PAID, BOUNCED])
        before = dict(self.bank.has)
        shops = {order.shop for order in [*opened, *new] if order.shop} if self.freezes else set()
        for shop in shops:
            await self.worker.accounts.freeze(f"merchant:{shop.id}:available", "tests", "all")
        self.model.frozen = {"available"} if shops else set()
        self.bank.calls.clear()
        funds = PayoutFunds(self.worker.pool, self.worker.gateway, EveryChannel())
        payouts = Payouts(self.worker.pool, self.worker.batcher, {self.channel: self.bank}, AT_ONCE, funds=funds)
        await self.worker.run(payouts.pay_out_some(), how)
        calls, self.calls, self.has = Counter(self.bank.calls), Counter[tuple[str, str]](), before
        for kind in (Kind.REFUND, Kind.WITHDRAWAL):
            answered = [self.asked_after(order, how) for order in opened if order.kind is kind]
            if not answered or any(answered):
                for order in new:
                    if order.kind is kind:
                        self.sends(order, how)
        self.steps.append(f"payouts {how} frozen={bool(shops)} {self.bank.says} -> {calls}"[:900])
        assert calls == self.calls
        assert self.bank.has == self.has
        for shop in shops:
            await self.worker.accounts.unfreeze(f"merchant:{shop.id}:available")
        self.model.frozen = set()

    def asked_after(self, order: Asked, how: str) -> bool:
        """Model a poll of the channel about an order. Return whether the channel answered."""
        ref, sent = str(self.id(order)), self.sent[order]
        self.calls["query_refund" if order.kind is Kind.REFUND else "query", ref] += 1
        says, has = self.bank.says[ref][0], self.has.get(ref, "absent")
        if says == AWAY:
            self.seen["query: away"] += 1
            return False
        if has == "absent":
            self.seen["query: absent"] += 1
            if order.ending is None and order.state in ("sent", "unknown"):
                self.seen["unknown, then sent again"] += sent.unknown
                return self.pays(order, how)
            self.seen[f"a person said {order.ending}, the channel absent"] += 1
            if order.ending == PAID:
                self.finding(order, PAID, "absent")
            sent.outcome = "absent"
        elif says == OTHER_AMOUNT:
            self.seen["query: another amount"] += 1
            self.finding(order, "sent", "amount")
        else:
            self.seen[f"query: {has}"] += 1
            if has != ACCEPTED:
                self.seen[f"unknown, then {has}"] += sent.unknown and order not in self.by_hand
                self.is_final(order, has, how)
        return True

    def sends(self, order: Asked, how: str) -> bool:
        order.state = "sent"
        self.sent[order] = Sent()
        self.seen["payout sent on a later day"] += self.model.is_over(order, self.worker.at)
        return self.pays(order, how)

    def pays(self, order: Asked, how: str) -> bool:
        """Model a payout call. Return whether the channel answered."""
        ref = str(self.id(order))
        self.calls["refund" if order.kind is Kind.REFUND else "pay_out", ref] += 1
        says = self.bank.says[ref][1]
        self.seen[f"pay_out: {says}"] += 1
        if says == AWAY:
            return False
        now = SILENT.get(says, says)
        if now is not None:
            self.has[ref] = now
        if says in SILENT:
            order.state, self.sent[order].unknown = "unknown", True
            return False
        if says != ACCEPTED:
            self.is_final(order, says, how)
        return True

    def is_final(self, order: Asked, says: str, how: str) -> None:
        """Model the answer `paid` or `bounced`: the order ends with it, unless a person has ended it differently."""
        self.sent[order].outcome = says
        if order in self.by_hand:
            self.seen[f"a person said {order.ending}, the channel {says}"] += 1
        if order.ending not in (None, says):
            self.finding(order, str(order.ending), says)
            return
        self.ends(order, says, how)
        if order not in self.by_hand:
            self.seen[f"payout ends: {how}"] += 1
            self.seen[f"payout {order.state}"] += 1
            self.seen[f"{order.kind} {order.state} by the channel"] += order.state in (PAID, BOUNCED)
            frozen = "available" in self.model.frozen and says == BOUNCED
            self.seen["payout bounced to a frozen merchant"] += frozen
            self.seen["payout bounced on a later day"] += says == BOUNCED and self.model.is_over(order, self.worker.at)

    def ends(self, order: Asked, ending: str, how: str) -> None:
        """Model the end of an order. A second end, or a replay, changes nothing."""
        if order.state not in MAY_END:
            return
        if order.ending is None:
            self.model.begin_end(order, ending)
        if how == STUCK:
            self.stick(order)
            return
        if how != BEFORE:
            self.model.end(order)
        if how == HEARD:
            self.mark_end(order)

    def finding(self, order: Asked, stands: str, says: str) -> None:
        self.findings.setdefault((self.id(order), says), stands)

    def is_asked(self, order: Asked) -> bool:
        """Return whether the order has no end yet and the channel is polled about it."""
        return order.ending is None and order in self.sent and self.sent[order].outcome is None

    def says(self, order: Asked) -> str:
        return self.bank.has.get(str(self.id(order)), "absent")

    async def end_by_hand(self) -> None:
        """Let a person end a withdrawal before the channel has reported an end."""
        order, ending = None, self.chance.choice([PAID, BOUNCED])
        for has in ("absent", PAID, BOUNCED):
            left = [one for one in (PAID, BOUNCED) if not self.seen[f"a person said {one}, the channel {has}"]]
            if left and order is None:
                await self.some_to_pay()
                lost = LOST if has == "absent" else f"silent and {has}"
                await self.turn(HEARD, lambda: "answers", lambda lost=lost: lost)
                ending = left[0]
                order = self.some([o for o in self.to_pay("unknown") if self.is_asked(o) and self.says(o) == has])
        order = order or self.some([o for o in self.to_pay(*MAY_END) if o.ending is None])
        if order is None:
            return
        await self.freeze(order) if ending == BOUNCED else None
        answer = await self.worker.run(self.worker.batcher.end(self.id(order), ending, None, "r", "tester"), self.how)  # type: ignore[arg-type]
        self.steps.append(f"by hand: {order.order_no} {ending} {self.how} -> {answer!r}"[:600])
        assert answer is None or isinstance(answer, Taken), answer
        self.by_hand.add(order)
        self.ends(order, ending, self.how)
        await self.thaw(order)

    # --- Settlements by calendar ---

    async def ask(self, kind: Kind, shop: Shop | None, members: dict[str, Any], **known: Any) -> Asked:
        if kind is Kind.PAYMENT and shop is not None and members.get("settle") == "later":
            known["settle_on"] = self.terms[shop.id].due(self.model.days, self.worker.at)
        return await super().ask(kind, shop, members, **known)

    def due(self) -> list[tuple[Shop, date, str]]:
        """Return the merchants to settle now, each with the last day on which a payment is due, and with the number."""
        now, found = self.worker.at, []
        today = self.model.days.reached(now, SETTLE_AT)
        for shop in self.shops:
            terms = self.terms[shop.id]
            waiting = [
                p for p in self.model.payments(shop) if p.progress and p.progress.pending and not p.progress.reversed
            ]
            if terms.calendar == "manual" or not waiting:
                continue
            if terms.days is not None and not terms.works(today):
                self.seen["no settlement on a day without work"] += 1
                continue
            days = [p.settle_on for p in waiting if p.settle_on is not None and p.settle_on <= today]
            if not days:
                self.seen["not due yet"] += 1
                self.seen["before the time of the day"] += any(p.settle_on == self.model.days.day(now) for p in waiting)
                continue
            number = self.next_settlement(shop, max(days))
            if number is not None:
                found.append((shop, max(days), number))
        return found

    def next_settlement(self, shop: Shop, day: date) -> str | None:
        """Return the number of the next settlement of a merchant, None while the last one of the day is not known."""
        last_day, last, order = self.last.get(shop.id, (date.min, 0, None))
        if last_day < day:
            return f"auto-{day:%Y-%m-%d}"
        assert order is not None
        if order.state in ("posting", "stuck"):
            self.seen["the last settlement of the day is not known"] += 1
            return None
        self.seen["second on one day"] += 1
        return f"auto-{last_day:%Y-%m-%d}-{last + 1}"

    def shop_with(self, name: str) -> Shop:
        return next(shop for shop in reversed(self.shops) if self.names[shop.id] == name)

    async def settle_by_calendar(self) -> None:
        if self.how not in (HEARD, STUCK):
            # Only one merchant is due: of several settlements, the model could not predict which of them are lost.
            how, self.how = self.how, HEARD
            await self.paid(self.shop_with("daily"), "later")
            self.worker.at = self.until(SETTLE_AT) + timedelta(seconds=100)
            await self.settle_those(HEARD)
            shop = self.shop_with("daily")
            await self.paid(shop, "later")
            self.worker.at = self.until(SETTLE_AT) + timedelta(seconds=100)
            self.how = how
        elif self.how == HEARD:
            for name in ("weekly", "working", "monthly"):
                if not self.seen[f"settled: {name}"]:
                    payment = await self.paid(self.shop_with(name), "later")
                    while payment.settle_on and self.model.days.day(self.worker.at) < payment.settle_on:
                        self.worker.at += timedelta(days=1)
                    self.worker.at = self.until(SETTLE_AT) + timedelta(seconds=100)
                    break
        await self.settle_those(self.how if len(self.due()) == 1 or self.how == STUCK else HEARD)
        if self.how == HEARD and not self.seen["second on one day"]:
            await self.second_on_one_day()

    async def second_on_one_day(self) -> None:
        """Settle a day while one of its payments has no known outcome. This payment is settled second."""
        shop = self.shop_with("daily")
        await self.paid(shop, "later")
        self.how = AFTER
        amount = 77
        members = {"amount": amount, "currency": "CNY", "channel": self.channel, "settle": "later"}
        fee = shop.fee("payment", amount, self.worker.at)
        await self.ask(Kind.PAYMENT, shop, members, settle="later", fee=fee)
        self.how = HEARD
        self.worker.at = self.until(SETTLE_AT) + timedelta(seconds=100)
        await self.settle_those(HEARD)
        await self.recover()
        await self.settle_those(HEARD)

    async def settle_those(self, how: str) -> None:
        due, now = self.due(), self.worker.at
        answer = await self.worker.run(self.worker.settler(SETTLE_AT).settle_some(now), how)
        self.steps.append(f"settler {how} at {now} due={[(s.id, n) for s, _, n in due]} -> {answer}"[:600])
        for shop, day, number in due:
            order = Asked(Kind.SETTLEMENT, shop, {"merchant": shop.id, "order_no": number, "day": day}, now)
            assert self.model.reserve(order) is None
            label = date.fromisoformat(number[5:15])
            self.last[shop.id] = label, int(number[16:] or 1), order
            self.post(order, how, [])
            self.seen[f"settled: {self.names[shop.id]}"] += 1
            self.seen[f"settled by the calendar: {how}"] += 1
            self.seen["a day made up for after midnight"] += day < self.model.days.day(now)
        assert answer in (None, (len(due), 0.0))

    # --- Orders that are stuck ---

    async def recovery_sticks(self) -> None:
        """Let the account service refuse recovered orders for a permanent reason, also orders that are posted."""
        self.how = AFTER
        if self.chance.random() < 0.5:
            await self.pay_now()
        else:
            await self.end_by_hand()
        moving = self.moving()
        self.worker.accounts.how = STUCK
        await self.worker.recoverer.recover_some()
        self.worker.accounts.how = HEARD
        for order in moving:
            self.stick(order)

    async def retry(self) -> None:
        """Retry a stuck order, by one caller or by two concurrent ones. The voucher is posted once."""
        ends = [o for o in self.orders_in("stuck") if o.ending is not None]
        order = self.some(ends if ends and self.chance.random() < 0.5 else self.orders_in("stuck"))
        if order is None:
            return
        how = self.may_be_lost(order.shop, order.kind) if order.ending is None else self.how
        callers = self.chance.choice([1, 2]) if how in (HEARD, AFTER, UNSURE) else 1
        posted = (order.outcome if order.ending is None else order.end_outcome) == "posted"
        asked = (self.worker.batcher.retry(self.id(order), f"person{n}", "mended") for n in range(callers))
        answers = await self.worker.run(asyncio.gather(*asked), how)
        self.steps.append(f"retry {order.kind} {order.order_no} {how} by {callers} -> {answers!r}"[:600])
        assert answers is None or all(isinstance(answer, Taken) for answer in answers), answers
        order.state, order.stuck_from = self.stuck_from.pop(order), None
        if order.ending is None:
            self.post(order, how, [])
        else:
            self.ends(order, order.ending, how)
        self.seen[f"retry {how}"] += 1
        self.seen["retry by two callers"] += callers == 2
        self.seen["retry of one that was posted"] += posted and order.ending is None
        self.seen["retry of an end"] += order.ending is not None
        self.seen["retry of an end that was posted"] += posted and order.ending is not None

    def orders_in(self, state: str) -> list[Asked]:
        return [o for o in self.model.orders.values() if o.state == state]

    # --- After every step ---

    def row(self, order: Asked) -> dict[str, Any]:
        return {**super().row(order), "refused": order.state in ("refused", "stuck")}

    async def compare(self, shops: list[Shop]) -> None:
        await super().compare(shops)
        fetch = self.worker.pool.fetch
        stuck_ = await fetch("SELECT id, stuck_from FROM fund.orders WHERE state = 'stuck' OR stuck_from IS NOT NULL")
        assert {tuple(row) for row in stuck_} == {(self.id(o), state) for o, state in self.stuck_from.items()}
        payouts = await fetch("SELECT order_id, outcome, amount FROM fund.payouts")
        assert {tuple(row) for row in payouts} == {(self.id(o), s.outcome, o.amount) for o, s in self.sent.items()}
        found = await fetch("SELECT order_id, says, stands FROM fund.channel_findings")
        assert {(row[0], row[1]): row[2] for row in found} == self.findings

    async def all_ends(self) -> None:
        """Let every service answer. Every order ends: each payout as the channel reports, or as a person ended it."""
        self.how, self.freezes = HEARD, False
        await self.recover()
        while self.orders_in("stuck"):
            await self.retry()
        for _ in range(6):
            await self.turn(HEARD, lambda: "answers", lambda: PAID)
            for ref, has in self.bank.has.items():
                self.bank.has[ref] = PAID if has == ACCEPTED else has
        await self.worker.recoverer.recover_some()
        await self.compare(self.shops)
        for order in self.to_pay("posting", "posted", "sent", "unknown", "stuck"):
            raise AssertionError(f"{order.order_no} is {order.state}")
        for order, sent in self.sent.items():
            assert sent.outcome is not None
            assert order in self.by_hand or order.state == self.bank.has[str(self.id(order))]

    async def run(self) -> None:
        asking = [self.pay_now, self.pay_later, self.refund_part, self.settle, self.withdraw, self.adjust, self.reverse]
        jobs = [self.pay_out, self.pay_out, self.settle_by_calendar, self.end_by_hand]
        feed = [self.midnight, self.time_of_settlements, self.recover, self.repeat, self.recovery_sticks]
        feed += [self.pay_later, self.settle_by_calendar, self.pay_now, self.withdraw, self.withdraw, self.pay_out]
        hows = (HEARD, *UNHEARD, STUCK)
        steps = [
            *((do, how) for do in [*asking, *jobs, self.retry] for how in hows),
            *((do, FROZEN) for do in (self.pay_out, self.end_by_hand)),
            *((do, HEARD) for do in feed * 2),
        ]
        for _ in TERMS:
            await self.open_shop()
        for number in range(ROUNDS + ROUNDS_MORE):
            if number >= ROUNDS and not WANTED - self.seen.keys():
                break
            await self.round(steps)
            self.seen += Counter()  # drops branches that were counted 0 times
        await self.all_ends()


async def run_machine(fund_database: str, service: RunningService, seed: int) -> None:
    async with ScriptedWorker(fund_database, service.base_url, service.fund_token, BEGIN, CALENDAR) as worker:
        machine = JobsMachine(worker, seed)
        try:
            await machine.run()
        except BaseException as error:
            error.add_note(f"seed {seed}\n" + "\n".join(machine.steps))
            raise
        assert WANTED - machine.seen.keys() == set(), f"seed {seed}: branches that were never taken"
    await prove_fund(fund_database, service.dsn, worker.salt, same_days=False)
    told = [
        f"{check['name']}: {finding}"
        for check in (await service.verify())["checks"]
        for finding in check["findings"]
        if worker.salt in str(finding)
    ]
    assert told == []


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fundledger.fund.ending.END_AGAIN_S", 0.0)


@pytest.mark.timeout(900)
async def test_every_job_leaves_orders_as_the_model_says(
    fund_database: str, service: RunningService, soon: None
) -> None:
    seed = int(os.environ.get("FUNDLEDGER_TEST_SEED", "0")) or unless_long(SEED, secrets.randbits(32))
    await run_machine(fund_database, service, seed)


# --- Broken on purpose ------------------------------------------------------------------------------------------------


def settles_a_day_early(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Days.last_reached
    monkeypatch.setattr(Days, "last_reached", lambda days, now, at: right(days, now, at) + timedelta(days=1))


def settles_from_the_cut_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Days, "last_reached", lambda days, now, _: days.day_of(now))


def settles_what_is_due_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SQL, "lock_unsettled", SQL["lock_unsettled"].replace("p.settle_on <= $6", "p.settle_on IS NOT NULL")
    )


def settles_without_regard_to_weekends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SettlementDates, "is_working", lambda *_: True)


def counts_days_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Days, "day_of", lambda _, at: at.astimezone(UTC).date())


def returns_no_money(monkeypatch: pytest.MonkeyPatch) -> None:
    right = flows.end_entries_of
    monkeypatch.setattr(flows, "end_entries_of", lambda order, _: right(order, "paid"))


def sends_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sends(sender: PayoutSender, sending: Sending) -> bool:
        return await sender.send(sending)

    monkeypatch.setattr(PayoutSender, "poll", sends)


def takes_silence_for_a_bounce(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Bank._pay

    def bounces(bank: Bank, *payout: Any) -> Payout:
        try:
            return right(bank, *payout)
        except ChannelSilent:
            return Payout(Standing.BOUNCED)

    monkeypatch.setattr(Bank, "_pay", bounces)


def retries_under_another_id(monkeypatch: pytest.MonkeyPatch) -> None:
    right = stuck.retry

    async def retries(connection: Any, id_: UUID, *more: Any) -> Order | None:
        order = await right(connection, id_, *more)
        if order is not None and order.voucher_id is not None:
            order.voucher_id = UUID(int=order.voucher_id.int ^ 1)
        return order

    monkeypatch.setattr(stuck, "retry", retries)
    monkeypatch.setattr("fundledger.fund.store.macs.OrderMacs.check", lambda *_: None)


def retry_forgets_that_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        SQL, "retry_order", SQL["retry_order"].replace("coalesce(o.stuck_from, o.state), stuck", "'posted', stuck")
    )


BROKEN = [settles_a_day_early, returns_no_money, sends_without_asking, retries_under_another_id]
MORE = [
    settles_from_the_cut_on,
    settles_what_is_due_later,
    settles_without_regard_to_weekends,
    counts_days_in_utc,
    takes_silence_for_a_bounce,
    retry_forgets_that_it_ends,
]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("broken", unless_long(BROKEN, [*BROKEN, *MORE]))
async def test_a_job_that_is_broken_is_noticed(
    fund_database: str,
    service: RunningService,
    soon: None,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[pytest.MonkeyPatch], None],
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        await run_machine(fund_database, service, SEED)
