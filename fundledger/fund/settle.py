"""Settles what is pending by itself, by each merchant's calendar: once on a day of his, from a time of that day on."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import Final

from fundledger.fund.answer import Away, Taken
from fundledger.fund.desk import Desk
from fundledger.fund.orders import Pool
from fundledger.fund.requests import Settlement
from fundledger.fund.statements import SQL

AT_ONCE: Final = 50
MODULE: Final = "settlement"


def number_of(day: datetime) -> str:
    """The order number of the settlements of a day: one a merchant, however often it is asked for."""
    return f"auto-{day:%Y-%m-%d}"


def due(now: datetime, settle_at: time) -> Sequence[str]:
    """The calendars of which today is a day of settlement, and whose time has come. `now` in UTC."""
    if now.time() < settle_at:
        return ()
    calendars = ["daily"]
    if now.weekday() == 0:
        calendars.append("weekly")
    if now.day == 1:
        calendars.append("monthly")
    return calendars


class Settler:
    """`settle_at` in UTC. Safe in any number: a settlement is an order, and counts once."""

    def __init__(self, pool: Pool, desk: Desk, settle_at: time) -> None:
        self._pool = pool
        self._desk = desk
        self._settle_at = settle_at

    async def settle_some(self, now: datetime | None = None) -> tuple[int, float]:
        """`(how many merchants were settled, for how long those that are left have been due, in seconds)`. Raises what
        asyncpg raises.
        """
        now = now or datetime.now(UTC)
        calendars = due(now, self._settle_at)
        if not calendars:
            return 0, 0.0
        number = number_of(now)
        rows = await self._pool.fetch(SQL["due_settlements"], calendars, number, AT_ONCE + 1)
        merchants = [row["id"] for row in rows[:AT_ONCE]]
        asked = (self._desk.ask(Settlement(merchant=m, order_no=number), MODULE) for m in merchants)
        answers = await asyncio.gather(*asked)
        done = sum(isinstance(answer, Taken) for answer in answers)
        behind = len(rows) > AT_ONCE or any(isinstance(answer, Away) for answer in answers)
        since = datetime.combine(now.date(), self._settle_at, UTC)
        return done, (now - since).total_seconds() if behind else 0.0
