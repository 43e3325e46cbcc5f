"""The steps of a random run of orders: each step requests an order, and compares the outcome with the model."""

import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from fundledger.fund.model.answer import Taken
from fundledger.fund.model.channel import Channel
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.model.requests import Fee
from tests.support.calendar_model import CalendarModel, Terms
from tests.support.fund_worker import EveryChannel, FundWorker
from tests.support.length import unless_long
from tests.support.money_model import Platform
from tests.support.money_records import OWN, POSTED, Invoice, Merchant, Payment, Rule, Slip

MERCHANTS: Final = unless_long(12, 50)
CURRENCIES: Final = ("CNY", "USD", "JPY", "KWD")
FURTHER: Final = ("reserve", "disputed")
SHARED: Final = (
    *("income:fee", "income:other", "expense:loss", "expense:channel", "equity:own", "transit:bank"),
    *("suspense:over", "suspense:short", "suspense:parked", "tax:output"),
)
BALANCES: Final = """
SELECT a.id, sum(s.posted)::bigint AS balance
FROM ledger.accounts a JOIN ledger.sub_accounts s ON s.account_number = a.number
WHERE a.id = ANY ($1::text[]) GROUP BY a.id
"""


class OneBounded(EveryChannel):
    """A registry in which one channel must not be overdrawn."""

    def __init__(self, bounded: str) -> None:
        super().__init__()
        self.bounded = bounded

    def known(self, name: str, currency: str) -> Channel:
        channel = super().known(name, currency)
        return msgspec.structs.replace(channel, overdraft=0) if name == self.bounded else channel


class Run:
    model: type[Platform] = Platform

    def __init__(self, worker: FundWorker, ledger: "asyncpg.Connection[asyncpg.Record]", seed: int) -> None:
        self.worker = worker
        self.ledger = ledger
        self.chance = random.Random(seed)
        days = CalendarModel(*worker.calendar) if worker.calendar else None
        self.platform = self.model(f"c-{worker.salt}", f"d-{worker.salt}", days=days)
        self.merchants: list[Merchant] = []
        self.of_platform: list[tuple[Slip, str]] = []
        self.own_transfers: list[tuple[str, int, str, str, str]] = []
        """Open own transfers: number, amount, currency, and the channels of both banks."""
        self.cleared: list[tuple[Merchant, Slip]] = []
        """Clearings of parked orders, with the merchants of these orders."""
        self.invoices: list[Invoice] = []
        self.base: dict[str, int] = {}
        self.ids: dict[str, UUID] = {}
        self.number = 0
        self.seen: Counter[str] = Counter()
        self.steps: deque[str] = deque(maxlen=10)

    # --- Merchants and balances ---

    async def open(self) -> None:
        for n in range(MERCHANTS):
            rule = Rule(*self.chance.choice([(0,), (60,), (100, 3), (250, 0, 10, 400)]), **self.terms())
            payout = Rule(*self.chance.choice([(0,), (0, 5), (20, 1)]), **{**self.terms(), "keeps": False})
            currency = CURRENCIES[n % 4]
            terms = self.terms_of(n)
            members = {"settlement": terms.calendar, "settlement_days": terms.days}
            members |= {} if terms.cut is None else {"settlement_cut": f"{terms.cut:%H:%M}"}
            members |= self.more_terms_of(n)
            fees = fee_of(rule), fee_of(payout)
            id_ = await self.worker.merchant(f"m{n}", currency, fees[0], withdrawal_fee=fees[1], **members)
            self.merchants.append(Merchant(id_, currency, rule, payout, terms))
        self.base = self.platform.before = await self.balances()
        registry = OneBounded(self.platform.second)
        self.worker.batcher._check._channels = self.worker.batcher._platform._channels = registry

    def terms_of(self, n: int) -> Terms:
        """Return the settlement terms of the merchant with this number."""
        return Terms()

    def more_terms_of(self, n: int) -> dict[str, Any]:
        """Return further members of the request that creates the merchant with this number."""
        return {}

    def terms(self) -> dict[str, Any]:
        """Return the tax of a fee rule, and whether refunds return its fee."""
        tax, added = self.chance.choice([(0, False), (600, False), (1_300, True), (10_000, True)])
        return {"tax": tax, "added": added, "keeps": self.chance.random() < 0.3}

    async def balances(self) -> dict[str, int]:
        named = {merchant.of(name) for merchant in self.merchants for name in OWN + FURTHER}
        for currency in CURRENCIES:
            named |= {self.platform.named(part, currency) for part in SHARED}
            named |= {self.platform.bank(currency), self.platform.bank(currency, self.platform.second)}
            named.add(self.platform.payable(currency))
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

    async def ask(
        self, kind: str, expected: Callable[[str], str], merchant: Merchant | None, seen: str = "", **members: Any
    ) -> str:
        """Request an order. `expected`: the step of the model, which gets the order number and returns the outcome.
        `seen`: the name under which the outcome is counted, instead of the kind.
        """
        self.number += 1
        number = f"n{self.number}-{self.worker.salt}"
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
        self.seen[f"{seen or kind} {outcome}"] += 1
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
        await self.ask("settlement", lambda number: self.platform.settle(m, number, amount), m, **given)

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
            1, self.chance.choice([left, left - m.payout_rule.of(max(1, left))[0], left // 2, left // 3, available + 1])
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
        await self.ask("recovery", lambda number: self.platform.recover(m, number, amount), m, amount=amount)

    async def write_off(self, m: Merchant) -> None:
        m = self.owing(m)
        amount = max(
            1, self.chance.choice([self.platform.debt(m) // 2, self.platform.debt(m) // 3, self.platform.debt(m) + 1])
        )
        await self.ask("write_off", lambda no: self.platform.write_off(m, no, amount), m, amount=amount, reason="r")

    async def adjust(self, m: Merchant) -> None:
        amount, credit = self.chance.randint(1, 900), self.chance.random() < 0.5
        against = self.chance.choice([None, None, "over", "short"])
        if against is not None and self.chance.random() < 0.3:
            amount += abs(self.platform.holds(f"suspense:{against}", m.currency))
        members = {"amount": amount, "direction": "credit" if credit else "debit", "reason": "r"}
        members |= {} if against is None else {"against": against}

        def expected(number: str) -> str:
            return self.platform.adjust(m, number, amount, credit=credit, against=against)

        await self.ask("adjustment", expected, m, **members)

    async def cost(self, m: Merchant) -> None:
        amount = self.chance.randint(1, 900)

        def expected(number: str) -> str:
            self.of_platform.append((self.platform.cost(number, amount, m.currency), m.currency))
            return POSTED

        members = {"amount": amount, "currency": m.currency, "channel": self.platform.channel}
        await self.ask("channel_cost", expected, None, **members)

    async def difference(self, m: Merchant) -> None:
        amount, more = self.chance.randint(1, 900), self.chance.random() < 0.5

        def expected(number: str) -> str:
            self.of_platform.append((self.platform.difference(number, amount, m.currency, more=more), m.currency))
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
        if payment is not None and self.chance.random() < 0.4:
            of = {"of_kind": "payment", "of_order_no": payment.number, "reason": "r"}
            await self.ask("reversal", lambda _: self.platform.reverse_payment(m, payment), m, **of)
            return
        owner = m if self.chance.random() < 0.6 else None
        last = [(slip, m.currency) for slip in m.slips[-20:]] if owner else self.of_platform[-30:]
        if last:
            was_parked = [pair for pair in last if pair[0].kind == "payout_return" and pair[0].was_parked]
            if was_parked and not self.seen["reversal of payout_return order-not-reversible"]:
                # Few payout returns are parked.
                await self.reverse_slip(owner, *was_parked[-1])
                return
            # Kinds that are requested less often are reversed as often.
            kind = self.chance.choice(sorted({slip.kind for slip, _ in last}))
            slip, currency = self.chance.choice([pair for pair in last if pair[0].kind == kind][-5:])
            await self.reverse_slip(owner, slip, currency)

    async def reverse_slip(self, owner: Merchant | None, slip: Slip, currency: str) -> None:
        of_kind = slip.kind.partition(" ")[0]
        of = {"of_kind": of_kind, "of_order_no": slip.number, "reason": "r"}
        outcome = await self.ask("reversal", lambda _: self.platform.reverse(owner, slip, currency), owner, **of)
        self.seen[f"reversal of {of_kind} {outcome}"] += 1

    # --- Own money, suspense ---

    def some_bank(self) -> str:
        return self.chance.choice([self.platform.channel, self.platform.second])

    async def transfer_own(self, m: Merchant) -> None:
        from_ = self.some_bank()
        to = self.platform.second if from_ == self.platform.channel else self.platform.channel
        amount, currency = self.own_amount(m.currency), m.currency

        def expected(number: str) -> str:
            outcome = self.platform.transfer_own(amount, currency, from_)
            if outcome == POSTED:
                self.own_transfers.append((number, amount, currency, from_, to))
            return outcome

        members = {"amount": amount, "currency": currency, "from_channel": from_, "channel": to}
        await self.ask("own_transfer", expected, None, **members)

    def own_amount(self, currency: str) -> int:
        """Return an amount of own money, sometimes more than the second bank holds."""
        held = max(0, -self.platform.balances[self.platform.bank(currency, self.platform.second)])
        return max(1, self.chance.choice([self.chance.randint(1, 5_000), held // 2, held, held + 1]))

    async def end_own(self, _: Merchant) -> None:
        if not self.own_transfers:
            return
        number, amount, currency, from_, to = self.own_transfers.pop(self.chance.randrange(len(self.own_transfers)))
        ending: Any = self.chance.choice(["paid", "paid", "bounced"])
        ref, reason = (f"in-{number}", None) if ending == "paid" else (None, "closed")
        answer = await self.worker.batcher.end(self.ids[number], ending, ref, reason, "bank")
        assert isinstance(answer, Taken), answer
        assert answer.order.state == ending
        self.platform.arrive(amount, currency, to if ending == "paid" else from_)
        self.seen[f"own_transfer {ending}"] += 1

    async def of_own(self, kind: str, step: Callable[[str], str | Slip], currency: str, **members: Any) -> None:
        """Request an order of the platform that can be reversed later."""

        def expected(number: str) -> str:
            slip = step(number)
            if isinstance(slip, str):
                return slip
            self.of_platform.append((slip, currency))
            return POSTED

        await self.ask(kind, expected, None, currency=currency, **members)

    async def fund(self, m: Merchant) -> None:
        left = self.platform.own["in", m.currency] - self.platform.own["out", m.currency]
        comes, bank = self.chance.random() < 0.5, self.some_bank()
        amount = max(1, self.chance.choice([self.own_amount(m.currency), left, left + 1]))
        members = {"amount": amount, "channel": bank, "direction": "in" if comes else "out", "reason": "r"}
        await self.of_own(
            "own_funds", lambda no: self.platform.fund(no, amount, m.currency, bank, comes=comes), m.currency, **members
        )
        # Less than an earlier order brought is left only until more own funds come.
        left = self.platform.own["in", m.currency] - self.platform.own["out", m.currency]
        came = [slip for slip, currency in self.of_platform if currency == m.currency and slip.kind == "own_funds in"]
        if came and came[-1].is_open and came[-1].amount > left:
            await self.compare()
            await self.reverse_slip(None, came[-1], m.currency)

    async def sweep(self, m: Merchant) -> None:
        names = ("income:fee", "income:other", "expense:channel", "expense:loss")
        held = sum(self.platform.holds(name, m.currency) for name in names)
        left = held - self.platform.own["swept", m.currency]
        amount, bank = max(1, self.chance.choice([left // 3, left // 10, left + 1])), self.some_bank()
        members = {"amount": amount, "channel": bank, "reason": "r"}
        step = lambda number: self.platform.sweep(number, amount, m.currency, bank)  # noqa: E731
        await self.of_own("fee_sweep", step, m.currency, **members)

    async def pay_payable(self, m: Merchant) -> None:
        """Pay what the platform owes: the channel, in general or for an invoice, or the tax authority."""
        is_tax = self.chance.random() < 0.2
        owed = self.platform.holds("tax:output", m.currency) if is_tax else 0
        owed = owed or self.platform.balances[self.platform.payable(m.currency)]
        invoices = [invoice for invoice in self.invoices[-8:] if invoice.currency == m.currency]
        invoice = self.chance.choice(invoices) if invoices and not is_tax and self.chance.random() < 0.7 else None
        if invoice is not None:
            owed = invoice.amount - invoice.paid
        amount = max(1, self.chance.choice([owed, owed // 2, owed // 3, owed + 1]))
        members: dict[str, Any] = {"amount": amount, "channel": self.platform.channel}
        members |= {"against": "tax"} if is_tax else {}
        members |= {} if invoice is None else {"invoice_order_no": invoice.number}

        def step(number: str) -> str | Slip:
            return self.platform.pay_payable(number, amount, m.currency, invoice, is_tax=is_tax)

        await self.of_own("payable_payment", step, m.currency, **members)
        # A fee is paid to the channel and still open only until the next fee or invoice in the currency.
        if not self.platform.balances[self.platform.payable(m.currency)]:
            fees = [slip for slip in m.slips if slip.kind == "dispute_fee" and slip.is_open]
            if fees:
                await self.compare()
                await self.reverse_slip(m, fees[-1], m.currency)

    async def invoice(self, m: Merchant) -> None:
        """Request an invoice of the channel, or the reversal of one."""
        amount, currency = self.chance.randint(1, 3_000), m.currency

        def expected(number: str) -> str:
            self.invoices.append(self.platform.invoice(number, amount, currency))
            return POSTED

        if not self.invoices or self.chance.random() < 0.5:
            members = {"amount": amount, "currency": currency, "channel": self.platform.channel, "period": "2026-11"}
            no = f"I-{self.worker.salt}-{self.number}"
            await self.ask("channel_invoice", expected, None, invoice_no=no, **members)
            return
        invoice = self.chance.choice(self.invoices[-6:])
        of = {"of_kind": "channel_invoice", "of_order_no": invoice.number, "reason": "r"}
        await self.ask("reversal", lambda _: self.platform.reverse_invoice(invoice), None, "invoice reversal", **of)

    async def explain(self, m: Merchant) -> None:
        more, currency = self.chance.random() < 0.5, m.currency
        against = self.chance.choice(
            ["income", "bank", "short", "merchant"] if more else ["loss", "channel", "merchant"]
        )
        held = abs(self.platform.holds(f"suspense:{'over' if more else 'short'}", currency))
        amount = max(1, self.chance.choice([held // 5, held // 9, held, held + 1]))
        owner = m if against == "merchant" else None
        members = {"amount": amount, "direction": "more" if more else "less", "against": against, "reason": "r"}
        members |= {"channel": self.platform.channel} if against == "bank" else {}

        def step(number: str) -> str | Slip:
            return self.platform.explain(owner, number, amount, currency, against, more=more)

        if owner is None:
            await self.of_own("suspense_clearing", step, currency, **members)
        else:
            await self.ask("suspense_clearing", lambda number: str(step(number)), owner, currency=currency, **members)

    async def clear(self, m: Merchant) -> None:
        """Clear a parked order, or reverse the clearing of one."""
        if self.cleared and self.chance.random() < 0.3:
            owner, slip = self.cleared.pop()
            of = {"of_kind": "parked_clearing", "of_order_no": slip.number, "reason": "r"}
            outcome = await self.ask("reversal", lambda _: self.platform.park_again(owner, slip), slip.other, **of)
            if outcome == POSTED:
                self.seen["park again"] += 1
            return
        owners = [each for each in self.merchants if each.parked]
        if not owners:
            return
        owner = self.chance.choice(owners)
        parked = self.chance.choice(owner.parked)
        others = [each for each in self.merchants if each is not owner and each.currency == owner.currency]
        against = self.chance.choice(["merchant", "income", "bank"] if parked.is_in else ["merchant", "loss"])
        to = self.chance.choice(others) if against == "merchant" else None

        def expected(number: str) -> str:
            slip = self.platform.clear(owner, number, parked, to, against)
            if isinstance(slip, str):
                return slip
            self.cleared.append((owner, slip))
            return POSTED

        of = {"of_kind": parked.kind, "of_merchant": owner.id, "of_order_no": parked.number}
        outcome = await self.ask("parked_clearing", expected, to, against=against, reason="r", **of)
        self.seen[f"parked_clearing of {parked.kind} {outcome}"] += 1

    # --- Disputes, merchants' money ---

    async def top_up(self, m: Merchant) -> None:
        amount = self.chance.randint(1, 20_000)
        members = {"amount": amount, "currency": m.currency, "channel": self.platform.channel}
        await self.ask("top_up", lambda number: self.platform.top_up(m, number, amount), m, **members)

    async def transfer(self, m: Merchant) -> None:
        others = [each for each in self.merchants if each is not m and each.currency == m.currency]
        left = self.platform.balances[m.of("available")] - self.platform.debt(m)
        to, amount = self.chance.choice(others), max(1, self.chance.choice([left // 3, left // 7, left + 1]))
        members = {"to_merchant": to.id, "amount": amount}
        await self.ask("transfer", lambda _: self.platform.transfer(m, to, amount), m, **members)

    async def reserve(self, m: Merchant) -> None:
        if self.chance.random() < 0.5:
            amount = max(1, self.chance.choice([1, 1, 2]) * (self.platform.balances[m.of("available")] // 2) + 1)
            await self.ask("reserve_hold", lambda _: self.platform.reserve(m, amount), m, amount=amount)
        else:
            held = self.platform.balances[m.of("reserve")]
            amount = max(1, self.chance.choice([held, held // 2, held + 1]))
            await self.ask("reserve_release", lambda _: self.platform.unreserve(m, amount), m, amount=amount)

    async def dispute(self, m: Merchant) -> None:
        payment = self.some_payment(m)
        if payment is not None:
            amount = self.amount_of(payment)
            members = {"payment_order_no": payment.number, "amount": amount}
            await self.ask("dispute", lambda no: self.platform.dispute(m, no, payment, amount), m, **members)

    async def end_dispute(self, m: Merchant) -> None:
        waiting = [charge for charge in m.charges if charge.kind == "dispute" and charge.state == POSTED]
        if not waiting or m.held:
            return
        charge, ending = self.chance.choice(waiting), self.chance.choice(["won", "lost"])
        ref = f"lost-{charge.number}" if ending == "lost" else None
        answer = await self.worker.batcher.end(self.ids[charge.number], ending, ref, None, "bank")  # type: ignore[arg-type]
        assert isinstance(answer, Taken), answer
        assert answer.order.state == ending
        assert (self.platform.win if ending == "won" else self.platform.lose)(m, charge) == ending
        self.seen[f"dispute {ending}"] += 1

    async def win_back(self, m: Merchant) -> None:
        if not m.charges:
            return
        charge = self.chance.choice(m.charges[-6:])
        left = charge.amount - charge.won
        amount = max(1, self.chance.choice([left, left // 2, left // 3, left + 1]))
        members = {"chargeback_order_no": charge.number, "of_kind": charge.kind, "amount": amount}
        await self.ask("dispute_won", lambda no: self.platform.win_back(m, no, charge, amount), m, **members)

    async def charge_fee(self, m: Merchant) -> None:
        amount, later = self.chance.randint(1, 600), self.chance.random() < 0.6
        members = {"amount": amount, "channel": self.platform.channel, "against": "payable" if later else "bank"}
        await self.ask("dispute_fee", lambda no: self.platform.charge_fee(m, no, amount, later=later), m, **members)

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
        if m.may_owe_more and self.chance.random() < 0.6:
            await self.chance.choice([self.withdraw, self.transfer])(m)
            await self.compare()
        await self.release(m)

    async def release(self, m: Merchant) -> None:
        """Release the parked orders of a merchant whose accounts are open. Some are parked again by a reversal."""
        for number in self.platform.release(m):
            answer = await self.worker.batcher.retry(self.ids[number], "tester")
            assert isinstance(answer, Taken), answer
            assert answer.order.state == POSTED
            self.seen["release"] += 1

    def choices(self) -> list[tuple[Callable[[Merchant], Awaitable[None]], int]]:
        """Return the steps, each with its weight."""
        return [
            *[(self.pay, 10), (self.settle, 5), (self.refund, 5), (self.charge_back, 4), (self.withdraw, 5)],
            *[(self.end, 4), (self.recover, 1), (self.write_off, 1), (self.adjust, 2), (self.cost, 1)],
            *[(self.difference, 1), (self.reverse, 5), (self.return_payout, 2)],
            *[(self.transfer_own, 3), (self.end_own, 3), (self.fund, 2), (self.sweep, 1), (self.pay_payable, 2)],
            (self.invoice, 2),
            *[(self.explain, 2), (self.clear, 2), (self.top_up, 2), (self.transfer, 3), (self.reserve, 2)],
            *[(self.dispute, 3), (self.end_dispute, 3), (self.win_back, 3), (self.charge_fee, 2)],
        ]

    async def step(self) -> None:
        steps = self.choices()
        merchant = self.chance.choice(self.merchants)
        if self.chance.random() < (0.2 if merchant.held else 0.02):
            await self.hold(merchant)
        elif merchant.parked and not merchant.held:
            await self.release(merchant)
        else:
            (do,) = self.chance.choices([do for do, _ in steps], [weight for _, weight in steps])
            await do(merchant)
        await self.compare()


def fee_of(rule: Rule) -> Fee:
    terms = {"tax_basis_points": rule.tax, "tax_mode": "added" if rule.added else "included"}
    returned = "none" if rule.keeps else "proportional"
    return Fee(rule.points, rule.fixed, rule.least, rule.most, returned=returned, **terms)  # type: ignore[arg-type]
