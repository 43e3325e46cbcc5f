"""Store of the fund service: the sums of closed days, read page by page. `jobs/day_end.py` closes the days."""

from datetime import date, datetime
from typing import NamedTuple

from fundledger.fund.model.days import Days, day_after
from fundledger.fund.store.orders import AnyConnection
from fundledger.fund.store.queries import SQL


class SumKey(NamedTuple):
    """The key of a sum within its day. Sums are in the order of their keys."""

    merchant: str
    kind: str
    currency: str
    state: str


class DaySum(NamedTuple):
    """The sum of a merchant's orders of one kind, currency and state, as they were when the day was closed. `orders`,
    `amount`, `fee`: of the orders that were posted on the day. `ended`, `ended_amount`, `ended_fee`: of the orders
    that ended on the day, also of those that were posted on an earlier day.
    """

    merchant: str
    kind: str
    currency: str
    state: str
    orders: int
    amount: int
    fee: int
    tax: int
    ended: int
    ended_amount: int
    ended_fee: int


class Day(NamedTuple):
    """A page of the sums of a day. `closed_at`, `orders`: None if the day is not closed; then `sums` is empty.
    `begins_at`, `ends_at`: the instants by which the day was closed. `ends`: None if ends were not summed.
    """

    closed_at: datetime | None
    orders: int | None
    sums: list[DaySum]
    begins_at: datetime
    ends_at: datetime
    ends: int | None = None


async def read_day(connection: AnyConnection, days: Days, day: date, after: SumKey | None, limit: int) -> Day:
    """Return at most `limit` sums of a day after the key `after`. A closed day never changes. Raises what asyncpg
    raises.
    """
    end = await connection.fetchrow(SQL["read_day_end"], day)
    begins, ends = days.beginning_of(day), days.beginning_of(day_after(day))
    if end is None:
        return Day(None, None, [], begins, ends)
    if end["begins_at"] is not None:
        begins, ends = end["begins_at"], end["ends_at"]
    rows = await connection.fetch(SQL["read_day_sums"], day, *(after or ("",) * 4), limit)
    sums = [
        DaySum(
            *(row["merchant"], row["kind"], row["currency"], row["state"]),
            *(row["orders"], int(row["amount"]), int(row["fee"]), int(row["tax"])),
            *(row["ended"], int(row["ended_amount"]), int(row["ended_fee"])),
        )
        for row in rows
    ]
    return Day(end["closed_at"], end["orders"], sums, begins, ends, end["ends"])
