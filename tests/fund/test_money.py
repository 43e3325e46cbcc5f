"""Random orders of many merchants in four currencies: the ledger has the balances of an independent model of the business.

After each order the test compares the outcome, and the balance of every account of the platform and of the merchants.

`FUNDLEDGER_TEST_LONG=1` makes 200,000 steps; `--log-cli-level=INFO` shows the counts. A failure shows its seed and the
last steps.
"""

import logging
import os
import random
import secrets
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import asyncpg
import pytest

from fundledger.fund.model.answer import Taken
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.model.requests import Fee
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.length import unless_long
from tests.support.money_model import POSTED, Merchant, Payment, Platform, Rule, Slip
from tests.support.running import RunningService

STEPS: Final = unless_long(1_200, 200_000)
STEPS_MAX: Final = 10 * STEPS
"""The maximum number of steps if an outcome was not reached yet."""
MERCHANTS: Final = unless_long(8, 50)
SEED: Final = 14
CURRENCIES: Final = ("CNY", "USD", "JPY", "KWD")
OWN: Final = ("available", "pending", "receivable")
WANTED: Final = frozenset(
    {
        *(
            "payment posted",
            "payment parked",
            "settlement posted",
            "settlement refused",
            "refund posted",
            "refund refused",
        ),
        *(
            "withdrawal posted",
            "withdrawal refused",
            "withdrawal debt-in-progress",
            "withdrawal paid",
            "withdrawal bounced",
        ),
        *("chargeback posted", "chargeback parked", "recovery posted", "recovery refused", "write_off posted"),
        *("adjustment posted", "adjustment refused", "channel_cost posted", "bank_difference posted"),
        *("reversal posted", "reversal refused", "reversal order-already-reversed", "reversal order-not-reversible"),
        *("settlement nothing-to-settle", "settlement settlement-exceeds-pending", "refund refund-exceeds-payment"),
        *("chargeback chargeback-exceeds-payment", "refund payment-not-posted", "refund order-already-reversed"),
        *("recovery debt-exceeded", "write_off debt-exceeded", "release"),
        *("refund paid", "refund bounced", "payout_return posted", "payout_return parked"),
        *("payout_return withdrawal-not-paid", "payout_return return-exceeds-withdrawal"),
        *("reversal of payout_return posted", "reversal of payout_return order-not-reversible"),
    }
)
"""Outcomes that a run has to reach. Otherwise it proves nothing about them."""
BALANCES: Final = """
SELECT a.id, sum(s.posted)::bigint AS balance
FROM ledger.accounts a JOIN ledger.sub_accounts s ON s.account_number = a.number
WHERE a.id = ANY ($1::text[]) GROUP BY a.id
"""


_log = logging.getLogger(__name__)


class Run:
    def __init__(self, worker: FundWorker, ledger: "asyncpg.Connection[asyncpg.Record]", seed: int) -> None:
        self.worker = worker
        self.ledger = ledger
        self.chance = random.Random(seed)
        self.platform = Platform(f"c-{worker.salt}")
        self.merchants: list[Merchant] = []
        self.of_platform: list[Slip] = []
        self.base: dict[str, int] = {}
        self.ids: dict[str, UUID] = {}
        self.number = 0
        self.seen: Counter[str] = Counter()
        self.steps: deque[str] = deque(maxlen=10)

    # --- Merchants and balances ---

    async def open(self) -> None:
        for n in range(MERCHANTS):
            rule = Rule(*self.chance.choice([(0,), (60,), (100, 3), (250, 0, 10, 400)]))
            payout = Rule(*self.chance.choice([(0,), (0, 5), (20, 1)]))
            currency = CURRENCIES[n % 4]
            id_ = await self.worker.merchant(f"m{n}", currency, fee_of(rule), withdrawal_fee=fee_of(payout))
            self.merchants.append(Merchant(id_, currency, rule, payout))
        self.base = await self.balances()

    async def balances(self) -> dict[str, int]:
        named = {merchant.of(name) for merchant in self.merchants for name in OWN}
        for currency in CURRENCIES:
            parts = (
                "income:fee",
                "expense:loss",
                "expense:channel",
                "suspense:over",
                "suspense:short",
                "suspense:parked",
            )
            named |= {self.platform.named(part, currency) for part in parts}
            named |= {self.platform.bank(currency)}
            named |= {self.platform.transit(what, currency) for what in ("payout", "refund")}
        rows = await self.ledger.fetch(BALANCES, sorted(named))
        return {**dict.fromkeys(named, 0), **{row["id"]: row["balance"] for row in rows}}

    async def compare(self) -> None:
        found = await self.balances()
        differing = {
            account: (self.platform.balances[account], balance - self.base[account])
            for account, balance in found.items()
            if balance - self.base[account] != self.platform.balances[account]
        }
        assert not differing, f"(expected, found) by account: {differing}"
        assert set(self.platform.balances) <= set(found)

    # --- Requests ---

    async def ask(self, kind: str, expected: Callable[[str], str], merchant: Merchant | None, **members: Any) -> str:
        """Request an order. `expected`: the step of the model, which gets the order number and returns the outcome."""
        self.number += 1
        number = f"n{self.number}"
        owner = {} if merchant is None else {"merchant": merchant.id}
        answer = await self.worker.ask(kind, order_no=number, **owner, **members)
        outcome = expected(number)
        self.steps.append(f"{kind} {number} {members} -> {answer!r}"[:500])
        if isinstance(answer, Taken):
            assert answer.order.state == outcome
            self.ids[number] = answer.order.id
        else:
            assert isinstance(answer, Refusal), answer
            assert answer.code == outcome, answer
        self.seen[f"{kind} {outcome}"] += 1
        return outcome

    def some_payment(self, merchant: Merchant) -> Payment | None:
        """Return one of the last payments of a merchant, more often one that is not as usual."""
        last = merchant.payments[-12:]
        unusual = [payment for payment in last if payment.state != POSTED]
        return self.chance.choice(unusual if unusual and self.chance.random() < 0.2 else last) if last else None

    def owing(self, merchant: Merchant) -> Merchant:
        """Return a merchant that owes, if there is one, more often one that has money."""
        owing = [each for each in self.merchants if self.platform.debt(each) and not each.held]
        able = [each for each in owing if self.platform.balances[each.of("available")]]
        found = able if able and self.chance.random() < 0.7 else owing
        return self.chance.choice(found) if found else merchant

    async def pay(self, m: Merchant) -> None:
        amount, later = (
            self.chance.choice([1, 7, 100, 2_999, self.chance.randint(1, 90_000)]),
            self.chance.random() < 0.4,
        )
        members = {"amount": amount, "currency": m.currency, "channel": self.platform.channel}
        members["settle"] = "later" if later else "now"
        await self.ask("payment", lambda number: self.platform.pay(m, number, amount, later=later), m, **members)

    async def settle(self, m: Merchant) -> None:
        pending = self.platform.balances[m.of("pending")]
        amount = self.chance.choice([None, None, max(1, pending // 3), pending + 1])
        given = {} if amount is None else {"amount": amount}
        await self.ask("settlement", lambda _: self.platform.settle(m, amount), m, **given)

    async def refund(self, m: Merchant) -> None:
        payment = self.some_payment(m)
        if payment is not None:
            amount = self.amount_of(payment)
            members = {"payment_order_no": payment.number, "amount": amount}
            await self.ask("refund", lambda number: self.platform.refund(m, number, payment, amount), m, **members)

    async def charge_back(self, m: Merchant) -> None:
        payment = self.some_payment(m)
        if payment is not None:
            amount = self.amount_of(payment)
            members = {"payment_order_no": payment.number, "amount": amount}
            await self.ask(
                "chargeback", lambda number: self.platform.charge_back(m, number, payment, amount), m, **members
            )

    def amount_of(self, payment: Payment) -> int:
        left = payment.amount - payment.returned
        return self.chance.choice([max(1, left), max(1, left // 2), max(1, left // 3), left + 1])

    async def withdraw(self, m: Merchant) -> None:
        available = self.platform.balances[m.of("available")]
        left = available - self.platform.debt(m)
        amount = max(
            1, self.chance.choice([left, left - m.payout_rule.of(max(1, left)), left // 2, left // 3, available + 1])
        )
        members = {"amount": amount, "channel": self.platform.channel}
        outcome = await self.ask("withdrawal", lambda number: self.platform.withdraw(m, number, amount), m, **members)
        if outcome == POSTED:
            (owed,) = (await self.ledger.fetch(BALANCES, [m.of("receivable")])) or [{"balance": 0}]
            assert owed["balance"] == 0, "the merchant withdrew although it owes"

    async def end(self, m: Merchant) -> None:
        waiting = m.withdrawals + m.refunds
        if not waiting or m.held:
            return
        slip, paid = self.chance.choice(waiting), self.chance.random() < 0.6
        arguments = ("paid", f"ref-{slip.number}", None) if paid else ("bounced", None, "closed")
        answer = await self.worker.batcher.end(self.ids[slip.number], *arguments, "bank")  # type: ignore[arg-type]
        outcome = (self.platform.end if slip.kind == "withdrawal" else self.platform.end_refund)(m, slip, paid=paid)
        self.steps.append(f"end {slip.kind} {slip.number} {outcome} -> {answer!r}"[:500])
        assert isinstance(answer, Taken)
        assert answer.order.state == outcome
        self.seen[f"{slip.kind} {outcome}"] += 1

    async def return_payout(self, m: Merchant) -> None:
        among = m.withdrawals if m.withdrawals and self.chance.random() < 0.1 else m.payouts[-6:]
        if not among:
            return
        payout, with_fee = self.chance.choice(among), self.chance.random() < 0.5
        left = payout.amount - payout.returned
        amount = self.chance.choice([max(1, left), max(1, left // 2), max(1, left // 3), left + 1])
        members = {"withdrawal_order_no": payout.number, "amount": amount, "fee": "returned" if with_fee else "kept"}
        members["channel_ref"] = f"back-{self.worker.salt}-{self.number}"

        def expected(number: str) -> str:
            return self.platform.return_payout(m, number, payout, amount, with_fee=with_fee)

        await self.ask("payout_return", expected, m, **members)

    async def recover(self, m: Merchant) -> None:
        m = self.owing(m)
        debt = self.platform.debt(m)
        there = min(debt, self.platform.balances[m.of("available")])
        amount = max(1, self.chance.choice([debt, there, there // 2, debt + 1]))
        await self.ask("recovery", lambda _: self.platform.recover(m, amount), m, amount=amount)

    async def write_off(self, m: Merchant) -> None:
        m = self.owing(m)
        amount = max(
            1, self.chance.choice([self.platform.debt(m) // 2, self.platform.debt(m) // 3, self.platform.debt(m) + 1])
        )
        await self.ask("write_off", lambda _: self.platform.write_off(m, amount), m, amount=amount, reason="r")

    async def adjust(self, m: Merchant) -> None:
        amount, credit = self.chance.randint(1, 900), self.chance.random() < 0.5
        members = {"amount": amount, "direction": "credit" if credit else "debit", "reason": "r"}
        await self.ask("adjustment", lambda no: self.platform.adjust(m, no, amount, credit=credit), m, **members)

    async def cost(self, m: Merchant) -> None:
        amount = self.chance.randint(1, 900)

        def expected(number: str) -> str:
            self.of_platform.append(self.platform.cost(number, amount, m.currency))
            return POSTED

        members = {"amount": amount, "currency": m.currency, "channel": self.platform.channel}
        await self.ask("channel_cost", expected, None, **members)

    async def difference(self, m: Merchant) -> None:
        amount, more = self.chance.randint(1, 900), self.chance.random() < 0.5

        def expected(number: str) -> str:
            self.of_platform.append(self.platform.difference(number, amount, m.currency, more=more))
            return POSTED

        members = {"amount": amount, "currency": m.currency, "channel": self.platform.channel}
        members |= {"direction": "more" if more else "less", "reason": "r"}
        await self.ask("bank_difference", expected, None, **members)

    async def reverse(self, m: Merchant) -> None:
        if self.chance.random() < 0.3:
            m = self.owing(m)
        await self.reverse_one(m)
        # A merchant owes and has money only after a reversal, until its next credit.
        if self.platform.debt(m) and self.platform.balances[m.of("available")] and self.chance.random() < 0.5:
            await self.compare()
            await self.recover(m)

    async def reverse_one(self, m: Merchant) -> None:
        payment = self.some_payment(m)
        slips = self.of_platform[-5:] if self.chance.random() < 0.3 else m.slips[-5:]
        if payment is not None and self.chance.random() < 0.6:
            of = {"of_kind": "payment", "of_order_no": payment.number, "reason": "r"}
            await self.ask("reversal", lambda _: self.platform.reverse_payment(m, payment), m, **of)
        elif slips:
            slip = self.chance.choice(slips)
            owner = m if slip.kind in ("adjustment", "payout_return") else None
            of = {"of_kind": slip.kind, "of_order_no": slip.number, "reason": "r"}
            outcome = await self.ask("reversal", lambda _: self.platform.reverse(owner, slip), owner, **of)
            self.seen[f"reversal of {slip.kind} {outcome}"] += 1

    async def hold(self, m: Merchant) -> None:
        """Freeze the accounts of a merchant, or unfreeze them. Sometimes release its parked orders a step later."""
        if not m.held:
            for name in OWN:
                await self.worker.accounts.freeze(m.of(name), "tests", "all")
            m.held = True
            return
        for name in OWN:
            await self.worker.accounts.unfreeze(m.of(name))
        m.held = False
        if any(order.makes_debt for order in m.parked) and self.chance.random() < 0.5:
            await self.withdraw(m)
            await self.compare()
        for number in self.platform.release(m):
            answer = await self.worker.batcher.retry(self.ids[number], "tester")
            assert isinstance(answer, Taken), answer
            assert answer.order.state == POSTED
            self.seen["release"] += 1

    async def step(self) -> None:
        steps = [
            *[(self.pay, 10), (self.settle, 5), (self.refund, 5), (self.charge_back, 4), (self.withdraw, 5)],
            *[(self.end, 4), (self.recover, 1), (self.write_off, 1), (self.adjust, 2), (self.cost, 1)],
            *[(self.difference, 1), (self.reverse, 3), (self.return_payout, 2)],
        ]
        merchant = self.chance.choice(self.merchants)
        if self.chance.random() < (0.2 if merchant.held else 0.02):
            await self.hold(merchant)
        else:
            (do,) = self.chance.choices([do for do, _ in steps], [weight for _, weight in steps])
            await do(merchant)
        await self.compare()


def fee_of(rule: Rule) -> Fee:
    return Fee(rule.points, rule.fixed, rule.least, rule.most)


@pytest.mark.drill
async def test_every_balance_is_that_of_the_model_after_each_order(fund_database: str, service: RunningService) -> None:
    seed = int(os.environ.get("FUNDLEDGER_TEST_SEED", "0")) or unless_long(SEED, secrets.randbits(32))
    ledger = await asyncpg.connect(service.dsn)
    try:
        async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
            run = Run(worker, ledger, seed)
            await run.open()
            steps = 0
            try:
                while steps < STEPS or (WANTED - run.seen.keys() and steps < STEPS_MAX):
                    await run.step()
                    steps += 1
            except BaseException as error:
                error.add_note(f"seed {seed}, order {run.number}\n" + "\n".join(run.steps))
                raise
            assert WANTED - run.seen.keys() == set(), f"seed {seed}: outcomes that were never reached"
            _log.info("seed %d: %d steps, %d orders, 0 differences; %s", seed, steps, run.number, dict(run.seen))
            for merchant in run.merchants:
                if merchant.held:
                    await run.hold(merchant)
            await run.compare()
        await prove_fund(fund_database, service.dsn, worker.salt)
    finally:
        await ledger.close()
