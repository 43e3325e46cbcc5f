"""Demo: a day of a small platform, over HTTP to the services and to the bank. Each step prints what it did."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from itertools import count
from typing import Final, cast
from uuid import UUID

import msgspec

from fundledger.app.commands.demo.bank import Bank
from fundledger.app.commands.demo.tables import money, show_merchants, show_trial_balance
from fundledger.app.commands.demo.traffic import Traffic
from fundledger.client import AccountService, FundService, Refused
from fundledger.client.fund_merchants import Fee
from fundledger.client.fund_types import Kind, Order, Payment, SplitPart, StatementLine

MERCHANTS: Final = ("tea-house", "book-shop", "noodles", "bicycles", "flowers", "cinema", "late-settler", "returns")
HOT: Final = MERCHANTS[0]
LATE: Final = "late-settler"
OWES: Final = "returns"
CHANNEL: Final = "simulator"
CURRENCY: Final = "CNY"
PAYMENTS_EACH: Final = 12
"""Initial payments per merchant. The later steps need this money, even in a short demo."""
ENDS_S: Final = 60.0


class Unexpected(Exception):
    """A step of the demo did not have the outcome that it shows."""


class Day:
    """The day: `rate` payments per second for `seconds`, then further steps. `checker`: a client with the token of the
    person dev-checker, who approves what `dev` requests.
    """

    def __init__(
        self, accounts: AccountService, fund: FundService, checker: FundService, bank: Bank, seconds: int, rate: int
    ) -> None:
        self._accounts = accounts
        self._fund = fund
        self._checker = checker
        self._bank = bank
        self._seconds = seconds
        self._rate = rate
        self._numbers = count(1)
        self._traffic = Traffic(fund, MERCHANTS, LATE, CHANNEL)

    async def run(self) -> None:
        """Run all steps. Raises the client's faults and refusals, and Unexpected."""
        await self._open()
        await self._show("In the morning")
        await self._pay()
        await self._repeat()
        await self._refund()
        await self._withdraw()
        await self._charge_back()
        await self._set_off()
        await self._dispute()
        await self._split()
        await self._correct()
        await self._settle()
        await self._bank_statement()
        await self._show("In the evening")
        await show_trial_balance(self._accounts, CURRENCY)

    async def _open(self) -> None:
        for name in MERCHANTS:
            fee = Fee(basis_points=60, minimum=1)
            await self._fund.create_merchant(name, name.title(), CURRENCY, fee=fee, withdrawal_fee=Fee(fixed=100))
        _report(f"{len(MERCHANTS)} merchants; fees are 0.60 % of a payment and 1.00 per withdrawal")

    async def _pay(self) -> None:
        _report(await self._traffic.run(PAYMENTS_EACH, self._seconds, self._rate))
        await self._bank.moved([(order.channel_ref or "", order.amount) for order in self._traffic.paid])

    async def _repeat(self) -> None:
        """Send a payment again, then its receipt under other numbers."""
        again = self._traffic.some([HOT], 1)[0]
        sale = Payment(HOT, again.order_no, again.amount, CURRENCY, CHANNEL, again.channel_ref)
        same = await self._traffic.send(sale)
        _report(f"one payment is sent again, as after a timeout: same order, no money moved (replay: {same.replay})")
        for merchant, number in ((HOT, "sale-again"), ("flowers", "sale-of-another")):
            copy = msgspec.structs.replace(sale, merchant=merchant, order_no=number)
            no = await _refusal("receipt-already-booked", self._traffic.send(copy))
            _report(f"its receipt is sent as {number} of {merchant}: refused, {no}")

    async def _refund(self) -> None:
        # Payments of OWES are not refunded, because one of them is charged back in full later.
        some = self._traffic.some([merchant for merchant in MERCHANTS if merchant != OWES], 20)
        refunds = []
        for i, order in enumerate(some):
            amount = order.amount if i % 2 else max(1, order.amount // 3)
            refunds.append(await self._fund.refund(order.merchant, self._number("back"), order.order_no, amount))
        _report(f"{len(refunds)} full and partial refunds: {money(sum(r.amount for r in refunds))} returned")
        order = some[1]
        refund = self._fund.refund(order.merchant, self._number("back"), order.order_no, 1)
        no = await _refusal("refund-exceeds-payment", refund)
        _report(f"a refund of 0.01 on a fully refunded payment: refused, {no}")
        states = {(await self._ended(refund)).state for refund in refunds}
        _report(f"the bank sends them to the payers: {', '.join(sorted(states))}")
        others = [merchant for merchant in MERCHANTS if merchant not in (OWES, LATE)]
        chosen = {order.id for order in some}
        await self._refund_again(next(order for order in self._traffic.some(others, 21) if order.id not in chosen))

    async def _refund_again(self, payment: Order) -> None:
        """Refund a payment whose payer's account is closed: the refund bounces, and the payment is refunded again."""
        refunds = []
        for bounce_rate in (1.0, 0.0):
            await self._bank.behave(bounce_rate=bounce_rate)
            number = self._number("back")
            refund = await self._fund.refund(payment.merchant, number, payment.order_no, payment.amount)
            refunds.append(await self._ended(refund))
        bounced, again = refunds
        _report(f"a refund of {money(bounced.amount)}: {bounced.state} ({bounced.reason}); another one: {again.state}")

    async def _withdraw(self) -> None:
        """Make three withdrawals: one is paid and returns later, one bounces, one exceeds the balance."""
        paid = await self._ended(await self._fund.withdraw(HOT, self._number("out"), 50_000, CHANNEL))
        _report(f"{HOT} withdraws 500.00: {paid.state}, bank reference {paid.channel_ref}")
        await self._return(paid)
        await self._bank.behave(bounce_rate=1.0)
        bounced = await self._ended(await self._fund.withdraw("book-shop", self._number("out"), 10_000, CHANNEL))
        await self._bank.behave()
        _report(f"book-shop withdraws 100.00: {bounced.state} ({bounced.reason}), amount and fee returned")
        too_much = self._fund.withdraw("flowers", self._number("out"), 10**9, CHANNEL)
        _report(f"flowers withdraws 10,000,000.00: refused, {await _refusal('insufficient-funds', too_much)}")

    async def _return(self, paid: Order) -> None:
        """Let the payee's bank return a payout that is paid."""
        found = await self._bank.return_payout(str(paid.id))
        returned = found["amount"], found["channel_ref"]
        back = await self._fund.return_payout(paid.merchant, self._number("returned"), paid.order_no, *returned)
        _report(
            f"the payee's bank returns it later, reference {back.channel_ref}: {money(back.net)} to {paid.merchant}, "
            f"the fee is kept"
        )

    async def _charge_back(self) -> None:
        """Charge a payment back after the merchant has withdrawn nearly all its money. The merchant owes the rest."""
        payment = self._traffic.some([OWES], 1)[0]
        balance = await self._available(OWES)
        await self._ended(await self._fund.withdraw(OWES, self._number("out"), balance - 100 - 5, CHANNEL))
        back = await self._fund.charge_back(OWES, self._number("cb"), payment.order_no, payment.amount)
        _report(
            f"a payer's bank charges {money(back.amount)} back; {OWES} has 0.05 left "
            f"and owes {money(back.to_receivable)}"
        )
        await self._bank.moved([(str(back.id), -back.amount)])

    async def _set_off(self) -> None:
        """Show that a merchant's next payment repays its debt first, and that a withdrawal takes only the rest."""
        sale = self._traffic.payment(OWES, 30_000)
        order = await self._traffic.send(sale)
        left = await self._available(OWES)
        _report(
            f"the next payment of {OWES}, {money(order.amount)}, repays {money(order.set_off)} of its debt: "
            f"{money(left)} available"
        )
        too_much = self._fund.withdraw(OWES, self._number("out"), order.amount - order.fee - 100, CHANNEL)
        no = await _refusal("insufficient-funds", too_much)
        _report(f"{OWES} withdraws the whole payment: refused, {no}")
        await self._bank.moved([(order.channel_ref or "", order.amount)])

    async def _dispute(self) -> None:
        """Dispute a payment. Its amount is not available until the payer's bank decides for the merchant."""
        merchant = "cinema"
        payment = await self._traffic.send(self._traffic.payment(merchant, 12_000))
        await self._bank.moved([(payment.channel_ref or "", payment.amount)])
        before = await self._available(merchant)
        dispute = await self._fund.open_dispute(merchant, self._number("dispute"), payment.order_no, payment.amount)
        during = await self._available(merchant)
        won = await self._ended(await self._fund.dispute_won(dispute.id))
        if (during, await self._available(merchant)) != (before - payment.amount, before):
            raise Unexpected(f"the dispute {dispute.order_no} did not withhold {money(payment.amount)}")
        _report(
            f"a payer disputes a payment of {money(payment.amount)}: {merchant} has {money(during)} instead of "
            f"{money(before)}; the dispute is {won.state}, and it has {money(before)} again"
        )

    async def _split(self) -> None:
        """Divide one receipt between two merchants, then refund half of it."""
        number = self._number("basket")
        parts = [SplitPart("flowers", 7_000), SplitPart("noodles", 3_000, commission=90)]
        paid = await self._fund.split_pay(number, 10_000, CURRENCY, CHANNEL, parts, f"bank-{number}")
        await self._bank.moved([(f"bank-{number}", paid.amount)])
        shares = ", ".join(f"{part.merchant} {money(part.net)}" for part in paid.parts)
        _report(f"one receipt of {money(paid.amount)} for two merchants: {shares}, fees {money(paid.fee)}")
        refund = await self._ended(await self._fund.split_refund(self._number("back"), number, paid.amount // 2))
        shares = ", ".join(f"{part.merchant} {money(part.net)}" for part in refund.parts)
        _report(f"half of it goes back to the payer: {refund.state}; {shares}")

    async def _correct(self) -> None:
        slip = await self._fund.adjust("noodles", self._number("slip"), 250, "credit", "a receipt found")
        no = await _refusal("approval-needs-another", self._fund.approve(slip))
        _report(f"dev requests an adjustment of 2.50 for noodles and cannot approve it: {no}")
        slip = await self._checker.approve(slip)
        _report(f"dev-checker approves it: {slip.state}")

    async def _settle(self) -> None:
        settled = await self._fund.settle(LATE, self._number("settle"))
        _report(f"{LATE} is settled: {money(settled.amount)} pending, including a fee of {money(settled.fee)}")

    async def _bank_statement(self) -> None:
        """Post the channel's cost, then import the bank's statement, which has a line too many."""
        cost = await self._fund.channel_cost(self._number("cost"), CHANNEL, 1_234, CURRENCY)
        await self._bank.moved([(str(cost.id), -cost.amount)])
        await self._bank.behave(extra=1)
        statement = await self._bank.statement()
        await self._bank.behave()
        lines = [StatementLine(line["channel_ref"] or line["ref"], line["amount"]) for line in statement["lines"]]
        report = await self._fund.import_statement(CHANNEL, statement["statement_no"], CURRENCY, lines)
        counts = ", ".join(f"{number:,} {outcome}" for outcome, number in report["counts"].items() if number)
        _report(f"day end: the bank's statement has {len(lines):,} lines: {counts}")
        differences = [UUID(line["booked"]) for line in report["lines"] if line.get("booked")]
        approved = await self._checker.approve_many(differences) if differences else []
        states = ", ".join(sorted({str(result.state) for result in approved})) or "none"
        _report(f"dev-checker approves {len(approved)} bank differences against suspense: {states}")

    async def _ended(self, order: Order) -> Order:
        give_up_at = time.monotonic() + ENDS_S
        while order.state not in ("paid", "bounced", "won"):
            if time.monotonic() > give_up_at:
                raise Unexpected(f"{order.kind} {order.order_no} is still {order.state}")
            await asyncio.sleep(0.1)
            order = await self._fund.order(cast("Kind", order.kind), order.id) or order
        return order

    async def _available(self, merchant: str) -> int:
        account = await self._accounts.account(f"merchant:{merchant}:available")
        return 0 if account is None else account.balance.available

    async def _show(self, when: str, merchants: Sequence[str] = MERCHANTS) -> None:
        await show_merchants(self._accounts, merchants, when, CURRENCY)

    def _number(self, what: str) -> str:
        return f"{what}-{next(self._numbers)}"


async def _refusal(code: str, call: Awaitable[Order]) -> str:
    """Return the detail of the refusal of a call. Raises Unexpected if the call is not refused with `code`."""
    try:
        order = await call
    except Refused as no:
        if no.problem.code != code:
            raise Unexpected(f"expected the refusal {code}, and the refusal was {no}") from None
        return f"{code} ({no.problem.detail})"
    raise Unexpected(f"expected the refusal {code}, and {order.kind} {order.order_no} is {order.state}")


def _report(what: str) -> None:
    print(f"- {what}", flush=True)
