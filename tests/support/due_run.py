"""The steps of a random run whose clock moves: due settlements and withdrawals of all, beside those of split_run.py."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

import asyncpg

from tests.support.calendar_model import DAY, Terms
from tests.support.fund_worker import FundWorker
from tests.support.money_records import Merchant
from tests.support.split_run import SplitRun

CALENDARS: Final = [("Asia/Shanghai", time(23)), ("America/New_York", time(17)), ("UTC", time())]
TERMS: Final = [
    Terms("daily"),
    Terms("weekly"),
    Terms("monthly"),
    Terms("daily", 0),
    Terms("daily", 1, time(16, 30)),
    Terms("weekly", 3),
    Terms("manual", 2),
    Terms("monthly", 1),
]


class Clocked(FundWorker):
    """A fund worker whose orders are created at the time `at`."""

    at = datetime(2018, 2, 23, 9, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at


class DueRun(SplitRun):
    def __init__(self, worker: Clocked, ledger: "asyncpg.Connection[asyncpg.Record]", seed: int) -> None:
        super().__init__(worker, ledger, seed)
        self.clocked = worker

    def terms_of(self, n: int) -> Terms:
        return TERMS[n % len(TERMS)]

    async def settle_due(self, m: Merchant) -> None:
        """Settle what is due on a day: all of it, a part, or too much."""
        day = self.platform.days.day(self.clocked.at) + self.chance.randint(-3, 3) * DAY
        pending = sum(p.pending for p in m.payments if p.due is not None and p.due <= day)
        amount = self.chance.choice([None, None, max(1, pending // 3), pending + 1])
        given: dict[str, Any] = {"day": day} | ({} if amount is None else {"amount": amount})
        await self.ask("settlement", lambda number: self.platform.settle(m, number, amount, day), m, "due", **given)

    async def withdraw_all(self, m: Merchant) -> None:
        members = {"all": True, "channel": self.platform.channel}
        await self.ask("withdrawal", lambda number: self.platform.withdraw_all(m, number), m, "all", **members)

    def choices(self) -> list[tuple[Callable[[Merchant], Awaitable[None]], int]]:
        return [*super().choices(), (self.settle_due, 3), (self.withdraw_all, 2)]

    async def step(self) -> None:
        self.clocked.at += timedelta(minutes=self.chance.choice([0, 1, 90, 500]))
        self.platform.now = self.clocked.at
        await super().step()
