"""Settles what is pending by itself, by each merchant's calendar: once for a day of his, from a time of that day on.

A day on which nothing ran is made up for, until the next one comes.
"""

import asyncio
from datetime import UTC, datetime, time, timedelta
from typing import Final

from fundledger.fund.answer import Away, Taken
from fundledger.fund.desk import Desk
from fundledger.fund.orders import Pool
from fundledger.fund.requests import AUTO, Settlement
from fundledger.fund.reserve import PAYMENTS_MAX
from fundledger.fund.statements import SQL

AT_ONCE: Final = 50
MODULE: Final = "settlement"


def number_of(day: datetime) -> str:
    """The order number of the first settlements of a day: one a merchant, however often it is asked for."""
    return f"{AUTO}{day:%Y-%m-%d}"


def due(now: datetime, settle_at: time) -> dict[str, datetime]:
    """When each calendar was due the last time; that has not passed by until it is due again. `now` in UTC."""
    today = datetime.combine(now.date(), settle_at, UTC)
    last = today if now >= today else today - timedelta(days=1)
    return {"daily": last, "weekly": last - timedelta(days=last.weekday()), "monthly": last.replace(day=1)}


class Settler:
    """`settle_at` in UTC. Safe in any number: a settlement is an order, and counts once. `payments_max`: of one."""

    def __init__(self, pool: Pool, desk: Desk, settle_at: time, payments_max: int = PAYMENTS_MAX) -> None:
        self._pool = pool
        self._desk = desk
        self._settle_at = settle_at
        self._payments_max = payments_max

    async def settle_some(self, now: datetime | None = None) -> tuple[int, float]:
        """`(how many settlements were made, for how long those that are left have been due, in seconds)`. Raises what
        asyncpg raises.
        """
        now = now or datetime.now(UTC)
        since = due(now, self._settle_at)
        numbers = [number_of(day) for day in since.values()]
        # Of what came later on the due day itself: it is settled that day, if nothing was pending before.
        ends_at = [datetime.combine(day.date() + timedelta(days=1), time(), UTC) for day in since.values()]
        rows = await self._pool.fetch(
            SQL["due_settlements"], list(since), numbers, ends_at, self._payments_max, AT_ONCE + 1
        )
        taken = rows[:AT_ONCE]
        asked = (self._desk.ask(Settlement(merchant=r["id"], order_no=r["order_no"]), MODULE) for r in taken)
        answers = await asyncio.gather(*asked)
        done = sum(isinstance(answer, Taken) for answer in answers)
        left = [row for row, answer in zip(taken, answers, strict=True) if isinstance(answer, Away)] + rows[AT_ONCE:]
        return done, max(((now - since[row["calendar"]]).total_seconds() for row in left), default=0.0)
