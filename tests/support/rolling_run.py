"""The steps of a random run whose merchants have rolling reserves, with a model written from docs/reference/fund.md. All
orders of a run are posted on one day, which is not closed.
"""

from collections import Counter
from typing import Any, Final

from tests.support.money_model import Platform
from tests.support.money_records import POSTED, Merchant
from tests.support.split_run import SplitRun

POINTS: Final = (None, 1_000, 333, 10_000)


class RollingPlatform(Platform):
    """A platform that holds a part of the day's credits before a merchant withdraws or transfers money."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.points: dict[str, int] = {}
        self.rolled: Counter[str] = Counter()
        self.by_amount: Counter[str] = Counter()
        self.run: SplitRun | None = None

    def credited(self, m: Merchant) -> int:
        """Return the payments, settlements and parts of split payments that credited a merchant, without reversed ones."""
        assert self.run is not None
        payments = sum(p.amount for p in m.payments if not p.later and p.state == POSTED)
        settled = [slip for slip in m.slips if slip.kind == "settlement" and slip.is_open]
        splits = [split for split in self.run.splits.payments if split.state == POSTED]
        parts = sum(part.amount for split in splits for part in split.parts if part.merchant is m)
        return payments + parts - sum(slip.moves[m.of("pending")] for slip in settled)

    def keep(self, m: Merchant) -> None:
        lacks = self.credited(m) * self.points.get(m.id, 0) // 10_000 - self.rolled[m.id]
        amount = 0 if m.held else min(lacks, self.balances[m.of("available")])
        if amount > 0:
            assert self.reserve(m, amount) == POSTED
            self.by_amount[m.id] -= amount
            self.rolled[m.id] += amount

    def withdraw(self, m: Merchant, number: str, amount: int) -> str:
        self.keep(m)
        return super().withdraw(m, number, amount)

    def withdraw_all(self, m: Merchant, number: str) -> str:
        self.keep(m)
        return super().withdraw_all(m, number)

    def transfer(self, m: Merchant, to: Merchant, amount: int) -> str:
        self.keep(m)
        return super().transfer(m, to, amount)

    def reserve(self, m: Merchant, amount: int) -> str:
        outcome = super().reserve(m, amount)
        self.by_amount[m.id] += amount if outcome == POSTED else 0
        return outcome

    def unreserve(self, m: Merchant, amount: int) -> str:
        if amount > self.by_amount[m.id]:
            return "reserve-exceeded"
        outcome = super().unreserve(m, amount)
        self.by_amount[m.id] -= amount if outcome == POSTED else 0
        return outcome


class RollingRun(SplitRun):
    model = RollingPlatform

    def more_terms_of(self, n: int) -> dict[str, Any]:
        points = POINTS[n // 4 % len(POINTS)]
        return {} if points is None else {"rolling_basis_points": points, "rolling_days": 30}

    async def open(self) -> None:
        await super().open()
        assert isinstance(self.platform, RollingPlatform)
        self.platform.run = self
        for n, merchant in enumerate(self.merchants):
            self.platform.points[merchant.id] = self.more_terms_of(n).get("rolling_basis_points", 0)
