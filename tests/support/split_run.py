"""The steps of a random run with split payments, beside those of money_run.py."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import msgspec

from fundledger.fund.model.answer import Taken
from fundledger.fund.model.split_requests import SplitPaymentPart, SplitRefundPart
from tests.support.fund_worker import FundWorker
from tests.support.money_records import POSTED, Merchant
from tests.support.money_run import Run
from tests.support.split_model import SplitPayment, Splits


class SplitRun(Run):
    def __init__(self, worker: FundWorker, ledger: "asyncpg.Connection[asyncpg.Record]", seed: int) -> None:
        super().__init__(worker, ledger, seed)
        self.splits = Splits(self.platform)

    async def pay_split(self, m: Merchant) -> None:
        others = [each for each in self.merchants if each is not m and each.currency == m.currency]
        merchants = [m, *self.chance.sample(others, self.chance.randint(1, min(4, len(others))))]
        parts: list[tuple[Merchant, int, int | None]] = []
        for merchant in merchants:
            amount = self.chance.choice([1, 3, 100, self.chance.randint(1, 30_000)])
            parts.append((merchant, amount, self.chance.choice([None, None, 0, amount // 10, amount])))
        asked = [
            {"merchant": merchant.id, "amount": amount, **({} if commission is None else {"commission": commission})}
            for merchant, amount, commission in parts
        ]
        members = {"amount": sum(amount for _, amount, _ in parts), "currency": m.currency}
        members |= {"channel": self.platform.channel, "parts": msgspec.convert(asked, list[SplitPaymentPart])}
        await self.ask("split_payment", lambda number: self.splits.pay(number, parts), None, **members)

    def some_split(self) -> SplitPayment | None:
        last = self.splits.payments[-12:]
        unusual = [split for split in last if split.state != POSTED]
        return self.chance.choice(unusual if unusual and self.chance.random() < 0.2 else last) if last else None

    def division_of(self, split: SplitPayment) -> tuple[dict[str, int] | int, dict[str, Any]]:
        """Return amounts by merchant, or an amount that is divided in proportion, and the members that request it."""
        if self.chance.random() < 0.5:
            left = split.left
            amount = self.chance.choice([max(1, left), max(1, left // 2), max(1, left // 7), left + 1])
            return amount, {"amount": amount}
        some = self.chance.sample(split.parts, self.chance.randint(1, len(split.parts)))
        more = self.chance.random() < 0.1
        amounts = {part.merchant.id: max(1, part.left // self.chance.randint(1, 3)) + more for part in some}
        asked = [{"merchant": merchant, "amount": amount} for merchant, amount in amounts.items()]
        return amounts, {"parts": msgspec.convert(asked, list[SplitRefundPart])}

    async def return_split(self, _: Merchant) -> None:
        split = self.some_split()
        if split is None:
            return
        amounts, members = self.division_of(split)
        members["of_order_no"] = split.number
        if self.chance.random() < 0.6:
            await self.ask("split_refund", lambda no: self.splits.refund(no, split, amounts), None, **members)
        else:
            await self.ask("split_chargeback", lambda no: self.splits.charge_back(no, split, amounts), None, **members)

    async def end_split(self, _: Merchant) -> None:
        waiting = [refund for refund in self.splits.refunds if not any(m.held for m in refund.payment.merchants)]
        if not waiting:
            return
        refund, paid = self.chance.choice(waiting), self.chance.random() < 0.5
        arguments = ("paid", f"ref-{refund.number}", None) if paid else ("bounced", None, "closed")
        answer = await self.worker.batcher.end(self.ids[refund.number], *arguments, "bank")  # type: ignore[arg-type]
        outcome = self.splits.end(refund, paid=paid)
        self.steps.append(f"end split refund {refund.number} {outcome} -> {answer!r}"[:500])
        assert isinstance(answer, Taken), answer
        assert answer.order.state == outcome
        self.seen[f"split_refund {outcome}"] += 1

    async def reverse_split(self, _: Merchant) -> None:
        split = self.some_split()
        if split is not None:
            of = {"of_kind": "split_payment", "of_order_no": split.number, "reason": "r"}
            await self.ask("reversal", lambda _: self.splits.reverse(split), None, "split reversal", **of)
        if self.splits.charges:
            charge = self.chance.choice(self.splits.charges[-4:])
            of = {"of_kind": "split_chargeback", "of_order_no": charge.number, "reason": "r"}
            seen = "split_chargeback reversal"
            await self.ask("reversal", lambda _: self.splits.reverse(charge), None, seen, **of)

    async def release(self, m: Merchant) -> None:
        await super().release(m)
        for number in self.splits.release():
            answer = await self.worker.batcher.retry(self.ids[number], "tester")
            assert isinstance(answer, Taken), answer
            assert answer.order.state == POSTED
            self.seen["release of a split order"] += 1

    def choices(self) -> list[tuple[Callable[[Merchant], Awaitable[None]], int]]:
        more = [(self.pay_split, 5), (self.return_split, 6), (self.end_split, 4), (self.reverse_split, 2)]
        return [*super().choices(), *more]
