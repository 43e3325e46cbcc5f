"""Scenario of the CLI command `fundledger demo`: a day of a small platform, over HTTP to services and bank."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import aiohttp

from fundledger.client import AccountService, FundService, Refused
from fundledger.client.fund_types import Fee, Kind, Order, Payment, StatementLine

MERCHANTS: Final = ("tea-house", "book-shop", "noodles", "bicycles", "flowers", "cinema", "late-settler", "returns")
HOT: Final = MERCHANTS[0]
LATE: Final = "late-settler"
CHANNEL: Final = "simulator"
AT_ONCE: Final = 400
PAYMENTS_EACH: Final = 12
"""Initial payments per merchant. The later steps need this money, even in a short demo."""
BAR: Final = 30
ENDS_S: Final = 60.0


class Day:
    """Demo scenario: `rate` payments per second for `seconds`, then further steps. Each step is printed. `checker`: a
    client with the token of the person dev-checker.
    """

    def __init__(
        self,
        accounts: AccountService,
        fund: FundService,
        checker: FundService,
        bank: str,
        bank_token: str,
        seconds: int,
        rate: int,
    ) -> None:
        self._accounts = accounts
        self._fund = fund
        self._checker = checker
        self._bank = bank
        self._bank_headers = {"Authorization": f"Bearer {bank_token}"}
        self._seconds = seconds
        self._rate = rate
        self._numbers = iter(range(1, 10**9))
        self._random = random.Random(7)
        self.paid: list[Order] = []

    async def run(self) -> None:
        """Run all steps. Raises the client's faults and refusals."""
        async with aiohttp.ClientSession(headers=self._bank_headers) as self._http:
            await self._open()
            await self._show("In the morning")
            await self._pay()
            await self._refund()
            await self._withdraw()
            await self._charge_back()
            await self._correct()
            await self._settle()
            await self._bank_statement()
            await self._show("In the evening")

    async def _open(self) -> None:
        for name in MERCHANTS:
            fee = Fee(basis_points=60, minimum=1)
            await self._fund.create_merchant(name, name.title(), "CNY", fee=fee, withdrawal_fee=Fee(fixed=100))
        _report(f"{len(MERCHANTS)} merchants; fees are 0.60 % of a payment and 1.00 per withdrawal")

    def _number(self, what: str) -> str:
        return f"{what}-{next(self._numbers)}"

    def _payment(self, merchant: str | None = None) -> Payment:
        if merchant is None:
            merchant = HOT if self._random.random() < 0.5 else self._random.choice(MERCHANTS[1:])
        settle: Any = "later" if merchant == LATE else "now"
        number = self._number("sale")
        return Payment(merchant, number, self._random.randint(4_000, 20_000), "CNY", CHANNEL, f"bank-{number}", settle)

    async def _pay(self) -> None:
        """Post payments, one per request. Half of the payments go to one merchant."""
        began = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        sent = 0
        slowest: list[float] = []

        async def pay(payment: Payment) -> None:
            started = time.monotonic()
            self.paid.append(
                await self._fund.pay(
                    payment.merchant,
                    payment.order_no,
                    payment.amount,
                    payment.currency,
                    payment.channel,
                    payment.channel_ref,
                    payment.settle,
                )
            )
            slowest.append(time.monotonic() - started)

        await asyncio.gather(*[pay(self._payment(merchant)) for merchant in MERCHANTS * PAYMENTS_EACH])
        while (elapsed := time.monotonic() - began) < self._seconds:
            while sent < elapsed * self._rate and len(running) < AT_ONCE:
                task = asyncio.create_task(pay(self._payment()))
                running.add(task)
                task.add_done_callback(running.discard)
                sent += 1
            _progress(elapsed / self._seconds, f"{sent:,} payments")
            await asyncio.sleep(0.02)
        await asyncio.gather(*running)
        _progress(None, "")
        took = time.monotonic() - began
        slowest.sort()
        hot = sum(order.merchant == HOT for order in self.paid)
        median_ms, late_ms = 1000 * slowest[len(slowest) // 2], 1000 * slowest[-len(slowest) // 100]
        _report(
            f"{len(self.paid):,} payments in {took:.0f} s, {hot:,} of them to {HOT}: "
            f"median {median_ms:.1f} ms, p99 {late_ms:.0f} ms"
        )
        again = next(order for order in self.paid if order.merchant == HOT)
        same = await self._fund.pay(HOT, again.order_no, again.amount, "CNY", CHANNEL, again.channel_ref)
        _report(f"one payment is sent again, as after a timeout: same order, no money moved (replay: {same.replay})")
        await self._notify_bank([(order.channel_ref or "", order.amount) for order in self.paid])

    async def _refund(self) -> None:
        # Payments of the merchant `returns` are not refunded, because one of them is charged back in full later.
        some = self._random.sample([order for order in self.paid if order.merchant != "returns"], 20)
        refunds = []
        for i, order in enumerate(some):
            amount = order.amount if i % 2 else max(1, order.amount // 3)
            try:
                refund = await self._fund.refund(order.merchant, self._number("back"), order.order_no, amount)
            except Refused as no:
                _report(f"a refund was refused: {no}")
            else:
                refunds.append(refund)
        _report(f"{len(refunds)} full and partial refunds: {_money(sum(r.amount for r in refunds))} returned")
        order = some[1]
        try:
            await self._fund.refund(order.merchant, self._number("back"), order.order_no, 1)
        except Refused as no:
            _report(f"a refund of 0.01 on a fully refunded payment: refused, {no}")
        ended = await asyncio.gather(*(self._ended(refund) for refund in refunds))
        states = ", ".join(sorted({refund.state for refund in ended}))
        _report(f"the bank sends them to the payers: {states}")
        await self._refund_again(next(o for o in self.paid if o.merchant not in ("returns", LATE) and o not in some))

    async def _refund_again(self, payment: Order) -> None:
        """Refund a payment whose payer's account is closed: the refund bounces, and the payment is refunded again."""
        await self._behave(bounce_rate=1.0)
        number = self._number("back")
        bounced = await self._ended(await self._fund.refund(payment.merchant, number, payment.order_no, payment.amount))
        await self._behave()
        number = self._number("back")
        again = await self._ended(await self._fund.refund(payment.merchant, number, payment.order_no, payment.amount))
        _report(f"a refund of {_money(bounced.amount)}: {bounced.state} ({bounced.reason}); another one: {again.state}")

    async def _withdraw(self) -> None:
        """Make three withdrawals: one is paid and returns later, one bounces, one exceeds the balance."""
        paid = await self._fund.withdraw(HOT, self._number("out"), 50_000, CHANNEL)
        paid = await self._ended(paid)
        _report(f"{HOT} withdraws 500.00: {paid.state}, bank reference {paid.channel_ref}")
        if paid.state == "paid":
            await self._return(paid)
        await self._behave(bounce_rate=1.0)
        bounced = await self._fund.withdraw("book-shop", self._number("out"), 10_000, CHANNEL)
        bounced = await self._ended(bounced)
        await self._behave()
        _report(f"book-shop withdraws 100.00: {bounced.state} ({bounced.reason}), amount and fee returned")
        try:
            await self._fund.withdraw("flowers", self._number("out"), 10**9, CHANNEL)
        except Refused as no:
            _report(f"flowers withdraws 10,000,000.00: refused, {no.problem.code}")

    async def _return(self, paid: Order) -> None:
        """Let the payee's bank return a payout that is paid."""
        async with self._http.post(f"{self._bank}/payouts/{paid.id}/return", json={}) as response:
            response.raise_for_status()
            back = await response.json()
        returned = await self._fund.return_payout(
            paid.merchant, self._number("returned"), paid.order_no, back["amount"], back["channel_ref"]
        )
        _report(
            f"the payee's bank returns it later, reference {returned.channel_ref}: "
            f"{returned.state}, {_money(returned.net)} to {paid.merchant}, the fee is kept"
        )

    async def _ended(self, order: Order) -> Order:
        kind: Kind = "refund" if order.kind == "refund" else "withdrawal"
        give_up_at = time.monotonic() + ENDS_S
        while order.state not in ("paid", "bounced", "refused"):
            if time.monotonic() > give_up_at:
                _report(f"{kind} {order.order_no} is still {order.state}")
                break
            await asyncio.sleep(0.1)
            order = await self._fund.order(kind, order.id) or order
        return order

    async def _charge_back(self) -> None:
        """Charge a payment back after the merchant has withdrawn nearly all its money. The merchant owes the rest."""
        payment = next(order for order in self.paid if order.merchant == "returns" and order.state == "posted")
        balance = await self._available("returns")
        await self._ended(await self._fund.withdraw("returns", self._number("out"), balance - 100 - 5, CHANNEL))
        back = await self._fund.charge_back("returns", self._number("cb"), payment.order_no, payment.amount)
        _report(
            f"a payer's bank charges {_money(back.amount)} back; the merchant has 0.05 left "
            f"and owes {_money(back.to_receivable)}"
        )
        await self._notify_bank([(str(back.id), -back.amount)])

    async def _correct(self) -> None:
        slip = await self._fund.adjust("noodles", self._number("slip"), 250, "credit", "a receipt found")
        try:
            await self._fund.approve(slip)
        except Refused as no:
            _report(f"dev requests an adjustment of 2.50 for noodles and cannot approve it: {no.problem.code}")
        slip = await self._checker.approve(slip)
        _report(f"dev-checker approves it: {slip.state}")

    async def _settle(self) -> None:
        settled = await self._fund.settle(LATE, self._number("settle"))
        _report(f"{LATE} is settled: {_money(settled.amount)} pending, including a fee of {_money(settled.fee)}")

    async def _bank_statement(self) -> None:
        """Post the channel's cost, then import the bank's statement."""
        cost = await self._fund.channel_cost(self._number("cost"), CHANNEL, 1_234, "CNY")
        await self._notify_bank([(str(cost.id), -cost.amount)])
        await self._behave(extra=1)
        day = datetime.now(UTC).date()
        async with self._http.get(f"{self._bank}/statements/{day}") as response:
            statement = await response.json()
        await self._behave()
        lines = [StatementLine(line["channel_ref"] or line["ref"], line["amount"]) for line in statement["lines"]]
        report = await self._fund.import_statement(CHANNEL, statement["statement_no"], "CNY", lines)
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in report["counts"].items() if count)
        _report(f"day end: the bank's statement has {len(lines):,} lines: {counts}")
        differences = [UUID(line["booked"]) for line in report["lines"] if line.get("booked")]
        approved = await self._checker.approve_many(differences) if differences else []
        states = ", ".join(sorted({str(result.state) for result in approved})) or "none"
        _report(f"dev-checker approves {len(approved)} bank differences against suspense: {states}")

    async def _available(self, merchant: str) -> int:
        account = await self._accounts.account(f"merchant:{merchant}:available")
        return 0 if account is None else account.balance.available

    async def _show(self, when: str) -> None:
        print(f"\n{when}:", flush=True)
        async for name, balances in self._balances():
            print(f"  {name:24} " + "  ".join(f"{what} {_money(amount):>14}" for what, amount in balances), flush=True)
        print(flush=True)

    async def _balances(self) -> AsyncIterator[tuple[str, list[tuple[str, int]]]]:
        for merchant in MERCHANTS:
            parts = []
            for part in ("available", "pending", "receivable"):
                account = await self._accounts.account(f"merchant:{merchant}:{part}")
                parts.append((part, 0 if account is None else account.balance.posted))
            yield merchant, parts
        names = (f"bank:{CHANNEL}", "income:fee", f"transit:payout:{CHANNEL}", f"transit:refund:{CHANNEL}")
        for id_ in (*names, "expense:channel", "suspense:over", "suspense:short"):
            account = await self._accounts.account(id_)
            yield id_, [("posted   ", 0 if account is None else account.balance.posted)]

    async def _notify_bank(self, moved: Sequence[tuple[str, int]]) -> None:
        """Report movements other than payouts, refunds and returns to the simulated bank."""
        for start in range(0, len(moved), 50):
            await asyncio.gather(*(self._receipt(ref, amount) for ref, amount in moved[start : start + 50]))

    async def _receipt(self, ref: str, amount: int) -> None:
        async with self._http.post(f"{self._bank}/receipts", json={"channel_ref": ref, "amount": amount}) as response:
            response.raise_for_status()

    async def _behave(self, **how: float) -> None:
        async with self._http.post(f"{self._bank}/behaviour", json=how) as response:
            response.raise_for_status()


def _money(amount: int) -> str:
    return f"{amount / 100:,.2f}"


def _report(what: str) -> None:
    print(f"- {what}", flush=True)


def _progress(share: float | None, what: str) -> None:
    if not sys.stderr.isatty():
        return
    if share is None:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        return
    filled = int(BAR * min(1.0, share))
    print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {what}", end="", file=sys.stderr, flush=True)
