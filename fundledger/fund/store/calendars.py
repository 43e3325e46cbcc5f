"""Store of the fund service: the calendars of its days, which are those of the account service. Each row has a MAC.

A calendar is recorded before it applies, and is never changed. Another calendar gets a row of its own, from a later day
on. ADR 33 has the reasons.
"""

from collections.abc import Sequence
from datetime import date, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

from fundledger.accounting_days import CalendarDiffers
from fundledger.fund.model.days import FIRST, Days, Era, cut_of, cut_text, first_free
from fundledger.fund.store.mac_layouts import CALENDAR, calendar_fields
from fundledger.fund.store.queries import SQL
from fundledger.security.keys import KeyFault
from fundledger.security.row_macs import RowMacs

UTC_TERMS: Final = ("UTC", time())


async def read_eras(connection: Any, macs: RowMacs) -> list[Era]:
    """Return the recorded calendars, the earliest first. Raises KeyFault if a row does not match its MAC, or if this
    host does not know its time zone. Raises what asyncpg raises.
    """
    return [era_of(row, macs) for row in await connection.fetch(SQL["read_calendars"])]


def era_of(row: Any, macs: RowMacs) -> Era:
    """Return the calendar of a row. Raises KeyFault."""
    name = f"the calendar from {row['from_day']} (fund.calendars)"
    if not macs.agree(CALENDAR, calendar_fields, row):
        raise KeyFault(f"{name} does not match its MAC")
    try:
        ZoneInfo(row["timezone"])
        return Era(row["from_day"], row["timezone"], cut_of(row["cut"]), row["recorded_at"])
    except (KeyError, ValueError) as error:
        raise KeyFault(f"{name} has the time zone {row['timezone']}, which this host does not know: {error}") from None


async def record_first(connection: Any, macs: RowMacs, days: Days, timezone: str, cut: time) -> list[Era]:
    """Record the calendar of a fund database that has none, and return the recorded calendars. If it has one, return
    that. A database with orders, which belong to days in UTC, changes to another calendar on a later day.

    `connection`: a connection, not in a transaction. Raises KeyFault, and what asyncpg raises.
    """
    async with connection.transaction():
        await connection.execute(SQL["lock_calendars"])
        there = await read_eras(connection, macs)
        if there:
            return there
        facts = await connection.fetchrow(SQL["calendar_facts"])
        new = [Era(FIRST, timezone, cut, facts["now"])]
        if facts["has_orders"] and (timezone, cut) != UTC_TERMS:
            from_day = first_free(days, timezone, cut, facts["now"], facts["closed"])
            new = [Era(FIRST, *UTC_TERMS, facts["now"]), Era(from_day, timezone, cut, facts["now"])]
        await _write(connection, macs, new)
        return new


async def adopt(connection: Any, macs: RowMacs, days: Days, timezone: str, cut: time) -> Era | None:
    """Record another calendar, from the first free day on. Return the new row, or None if it is recorded already.
    Raises what `record_first` raises.
    """
    async with connection.transaction():
        await connection.execute(SQL["lock_calendars"])
        days.use(await read_eras(connection, macs))
        if not differs(days, timezone, cut):
            return None
        facts = await connection.fetchrow(SQL["calendar_facts"])
        from_day = first_free(days, timezone, cut, facts["now"], facts["closed"])
        new = Era(from_day, timezone, cut, facts["now"])
        await _write(connection, macs, [new])
        return new


def differs(days: Days, timezone: str, cut: time) -> bool:
    """Return whether the calendar that was recorded last has another time zone or cut."""
    return (days.current.timezone, days.current.cut) != (timezone, cut)


def require_same(days: Days, timezone: str, cut: time, whose: str) -> None:
    """Raise CalendarDiffers unless the calendar that was recorded last has this time zone and cut."""
    if differs(days, timezone, cut):
        raise CalendarDiffers(
            f"the fund database has the calendar {days.current.shown}, {whose} {timezone}, cut {cut_text(cut)}: "
            "restore the settings, or run `fundledger calendar adopt` to change the calendar from a later day on"
        )


async def _write(connection: Any, macs: RowMacs, eras: Sequence[Era]) -> None:
    for era in eras:
        row: dict[str, date | str | datetime] = {
            "from_day": era.from_day,
            "timezone": era.timezone,
            "cut": cut_text(era.cut),
            "recorded_at": era.recorded_at,
        }
        await connection.execute(SQL["write_calendar"], *row.values(), *macs.tag(CALENDAR, calendar_fields(row)))
