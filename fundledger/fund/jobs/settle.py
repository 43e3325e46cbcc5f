"""Background job of the fund service that settles the pending payments of each merchant that are due, on each day from
`settle_at` on.

A settlement takes the payments that are due on its day or before. Its order number has this day: `auto-2026-03-02`. If
more payments of this day are due, or the settlement was refused, the next one is `auto-2026-03-02-2`. After a refusal,
the job waits until the accounts of the merchant take a settlement, and pauses between attempts.

If no process runs the job on a day, a later run settles what was due on that day.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Final

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.batcher import OrderBatcher
from fundledger.fund.jobs.pacing import Pacing
from fundledger.fund.model import accounts
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.days import cut_of
from fundledger.fund.model.order import State
from fundledger.fund.model.requests import AUTO, Settlement
from fundledger.fund.model.settlement import last_of
from fundledger.fund.store.merchants import Merchants
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.queries import SQL

AT_ONCE: Final = 50
MODULE: Final = "settlement"
AGAIN_S: Final = 10.0
AGAIN_MAX_S: Final = 600.0
"""The first and the longest pause before a settlement that was refused is requested again, in seconds."""
_log = logging.getLogger(__name__)
_WAITS: Final = frozenset({State.POSTING, State.STUCK})
_parts: Final = re.compile(rf"{AUTO}(\d{{4}}-\d\d-\d\d)(?:-(\d+))?").fullmatch


def number_of(day: date, number: int = 1) -> str:
    """Return the order number of a merchant's settlement on a due day. Every run computes the same number."""
    return f"{AUTO}{day.isoformat()}" + (f"-{number}" if number > 1 else "")


def next_number(due_on: date, last_no: str | None, last_state: str | None, *, undone: bool = False) -> str | None:
    """Return the order number of the next settlement. `due_on`: the latest day on which one of its payments is due.
    `last_no`, `last_state`: the last automatic settlement of the merchant. `undone`: it is reversed, so its payments
    wait for the next due day, or for a person. None: no settlement is made now, because the last one of this day is
    reversed, or has no known outcome.
    """
    last = None if last_no is None else _day_of(last_no)
    if last is None or last[0] < due_on:
        return number_of(due_on)
    # A payment that was posted late may be due on a day before that of the last settlement. Numbers never go back.
    if undone or last_state in _WAITS:
        return None
    return number_of(last[0], last[1] + 1)


def _day_of(order_no: str) -> tuple[date, int] | None:
    """Return the day and the number in the order number of an automatic settlement, or None if it has no such form."""
    parts = _parts(order_no)
    try:
        return None if parts is None else (date.fromisoformat(parts[1]), int(parts[2] or 1))
    except ValueError:
        return None


class Settler:
    """The automatic settlements. `settle_at`: a local time of day in the time zone of the calendar.

    Several processes may run the job concurrently: a settlement is an order, and each order number is accepted once.
    """

    def __init__(
        self, pool: Pool, batcher: OrderBatcher, merchants: Merchants, settle_at: time, again_s: float = AGAIN_S
    ) -> None:
        self._pool = pool
        self._batcher = batcher
        self._merchants = merchants
        self._dates = merchants.dates
        self._settle_at = settle_at
        self._pacing = Pacing(again_s, AGAIN_MAX_S)

    async def settle_some(self, now: datetime | None = None) -> tuple[int, float]:
        """Run once and return `(number of settlements made, seconds since the oldest remaining settlement became due)`.
        Raises what asyncpg raises.
        """
        now = now or datetime.now(UTC)
        await self._merchants.look()
        rules = await self._rules(now)
        done, lag_s, after, asked = 0, 0.0, "", 0
        while rules and asked < AT_ONCE:
            rows = await self._pool.fetch(SQL["due_settlements"], *rules, after, AT_ONCE)
            taken = rows[: AT_ONCE - asked]
            after = taken[-1]["id"] if taken else after
            answers = await asyncio.gather(*(self._settle_alone(row) for row in taken))
            asked += sum(answer is not None for answer in answers)
            done += sum(isinstance(answer, Taken) for answer in answers)
            unsettled = [row for row, each in zip(taken, answers, strict=True) if isinstance(each, OrderFault)]
            lag_s = max([lag_s, *(self._late_s(row, now) for row in [*unsettled, *rows[len(taken) :]])])
            if len(rows) < AT_ONCE:
                break
        return done, lag_s

    async def _rules(self, now: datetime) -> Sequence[Sequence[Any]]:
        """Return the rules of open merchants as columns, each with its last due day at the time `now`."""
        days = self._dates.days
        today = days.last_reached(now, self._settle_at)
        rules = []
        for row in await self._pool.fetch(SQL["settlement_rules"]):
            cut = cut_of(row["cut"]) if row["cut"] else None
            working_days = None if row["days"] < 0 else row["days"]
            last_due = self._dates.last_due(cut, working_days, row["region"], now, today)
            if last_due is not None:
                # A payment without a due day is due by the calendar alone.
                calendar_day = last_of(row["settlement"] if working_days is None else "daily", last_due)
                named = row["settlement"], row["days"], row["cut"], row["region"]
                rules.append((*named, last_due, calendar_day, days.beginning_of(calendar_day)))
        return list(zip(*rules, strict=True))

    async def _settle_alone(self, row: Any) -> Answer | None:
        """Request the next settlement of a merchant. A row that cannot be processed does not stop the job."""
        try:
            return await self._settle(row)
        except (ValueError, OverflowError, ArithmeticError) as error:
            _log.exception("merchant %s is not settled", row["id"], extra={"event": "settlement_failed"})
            return OrderFault(str(error))

    async def _settle(self, row: Any) -> Answer | None:
        """Request the next settlement of a merchant. Return None if none can be requested now."""
        id_, number = row["id"], next_number(row["due_on"], row["order_no"], row["state"], undone=row["undone"])
        if number is None or not self._pacing.is_due(id_):
            return None
        if row["state"] == State.REFUSED and not await self._takes(id_):
            return None
        answer = await self._batcher.ask(Settlement(merchant=id_, order_no=number, day=row["due_on"]), MODULE)
        if isinstance(answer, Taken) and answer.order.state is not State.REFUSED:
            self._pacing.succeeded(id_)
        elif not isinstance(answer, OrderFault) or answer.tampered:
            self._pacing.failed(id_)
        return answer

    async def _takes(self, merchant: str) -> bool:
        """Return whether the accounts of a merchant take a settlement now."""
        names = [accounts.pending(merchant), accounts.available(merchant)]
        try:
            found = await self._batcher.gateway.balances(names)
        except GatewayFault:
            return False
        return all(name in found and found[name].status == "open" for name in names)

    def _late_s(self, row: Any, now: datetime) -> float:
        due_at = self._dates.days.moment_in(row["due_on"], self._settle_at)
        return max(0.0, (now - due_at).total_seconds())
