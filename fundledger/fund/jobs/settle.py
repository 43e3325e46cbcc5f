"""Background job of the fund service that settles the pending payments of each merchant by its calendar, on each due
day from `settle_at` on.

If no process runs the job on a due day, a later run makes the settlements of that day, unless the next due time has
passed.
"""

import asyncio
from datetime import UTC, datetime, time, timedelta
from typing import Final

from fundledger.fund.batcher import OrderBatcher
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.requests import AMOUNT_MAX, AUTO, Settlement
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.queries import SQL
from fundledger.fund.store.settling import PAYMENTS_MAX

AT_ONCE: Final = 50
MODULE: Final = "settlement"


def number_of(day: datetime) -> str:
    """Return the order number of a merchant's first settlement on a due day. Every run computes the same number."""
    return f"{AUTO}{day:%Y-%m-%d}"


def due(now: datetime, settle_at: time) -> dict[str, datetime]:
    """Return the latest due time of each calendar, at or before `now`. All times are in UTC."""
    today = datetime.combine(now.date(), settle_at, UTC)
    last = today if now >= today else today - timedelta(days=1)
    return {"daily": last, "weekly": last - timedelta(days=last.weekday()), "monthly": last.replace(day=1)}


class Settler:
    """The automatic settlements. `settle_at` is in UTC. `payments_max`: the number of payments in a full settlement.

    Several processes may run the job concurrently: a settlement is an order, and each order number is accepted once.
    """

    def __init__(self, pool: Pool, batcher: OrderBatcher, settle_at: time, payments_max: int = PAYMENTS_MAX) -> None:
        self._pool = pool
        self._batcher = batcher
        self._settle_at = settle_at
        self._payments_max = payments_max

    async def settle_some(self, now: datetime | None = None) -> tuple[int, float]:
        """Run once and return `(number of settlements made, seconds since the oldest remaining settlement became due)`.
        Raises what asyncpg raises.
        """
        now = now or datetime.now(UTC)
        since = due(now, self._settle_at)
        numbers = [number_of(day) for day in since.values()]
        # A due day ends at midnight, not at `settle_at`: a payment that is posted after `settle_at` may be settled on
        # the same day, if nothing was pending before.
        ends_at = [datetime.combine(day.date() + timedelta(days=1), time(), UTC) for day in since.values()]
        rows = await self._pool.fetch(
            *(SQL["due_settlements"], list(since), numbers, ends_at, self._payments_max, AT_ONCE + 1, AMOUNT_MAX)
        )
        taken = rows[:AT_ONCE]
        asked = (self._batcher.ask(Settlement(merchant=r["id"], order_no=r["order_no"]), MODULE) for r in taken)
        answers = await asyncio.gather(*asked)
        done = sum(isinstance(answer, Taken) for answer in answers)
        unsettled = [row for row, answer in zip(taken, answers, strict=True) if isinstance(answer, OrderFault)]
        left = unsettled + rows[AT_ONCE:]
        return done, max(((now - since[row["calendar"]]).total_seconds() for row in left), default=0.0)
