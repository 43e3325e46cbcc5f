"""Model of the fund service: the days of bills, day sums, withdrawal limits and settlements. Pure.

This module alone decides to which day an instant belongs. A day is an accounting date of the account service: both
services compute it with `fundledger.accounting_days`, from the same time zone and cut.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from fundledger.accounting_days import AccountingDays

FIRST: Final = date(1970, 1, 1)
LAST: Final = date(9999, 11, 30)
"""FIRST and LAST: the first and the last day that a request can name. The month after it must exist."""
NOTICE: Final = timedelta(minutes=10)
"""The time between the recording of another calendar and the first day to which it applies. In this time, all processes
read the calendar.
"""
_DAY: Final = timedelta(days=1)
_EARLIEST: Final = datetime(1, 1, 2, tzinfo=UTC)
_PLACES_MAX: Final = 2000


class Era(msgspec.Struct, frozen=True):
    """A row of fund.calendars: from the day `from_day` on, a day ends when the clock of the time zone `timezone` shows
    the time of day `cut`.
    """

    from_day: date
    timezone: str
    cut: time
    recorded_at: datetime

    @property
    def shown(self) -> str:
        return f"{self.timezone}, cut {cut_text(self.cut)}"


UTC_ERA: Final = Era(FIRST, "UTC", time(), datetime(1970, 1, 1, tzinfo=UTC))


class Days:
    """The days of a fund database. Another time zone or cut applies from a recorded day on, so that no day that has
    begun is changed. At such a day, a day may be shorter or longer than others, or empty.

    `is_recorded`: the calendar is recorded in the database. Until then, days are days in UTC.
    """

    def __init__(self, eras: Sequence[Era] = ()) -> None:
        self.use(eras)

    def use(self, eras: Sequence[Era]) -> None:
        """Use these calendars, in the order of their days. Raises KeyError or ValueError for an unknown time zone."""
        used = list(eras) or [UTC_ERA]
        calendars = [AccountingDays(ZoneInfo(era.timezone), era.cut) for era in used]
        floors: list[datetime] = []
        for i, era in enumerate(used):
            # A day never begins before the day before it, whose calendar may have another time zone.
            before = _begins(calendars[i - 1], floors[i - 1], era.from_day - _DAY) if i else _EARLIEST
            floors.append(before)
        self.is_recorded = bool(eras)
        self.eras = tuple(used)
        self._calendars, self._floors = calendars, floors
        self._begins = [
            _begins(calendar, floor, era.from_day) for calendar, floor, era in zip(calendars, floors, used, strict=True)
        ]
        self._places: dict[tuple[int, time | None], tuple[datetime, datetime, date]] = {}

    @property
    def current(self) -> Era:
        """The calendar that was recorded last."""
        return self.eras[-1]

    def beginning_of(self, day: date) -> datetime:
        """Return the instant at which a day begins, which is the end of the day before."""
        i = self._era_of(day)
        return _begins(self._calendars[i], self._floors[i], day)

    def day_of(self, moment: datetime) -> date:
        """Return the day to which an instant belongs."""
        return self._place(moment, None)

    def trade_day(self, moment: datetime, cut: time | None) -> date:
        """Return the day to which an instant belongs if days end at the time of day `cut` of the same time zone. None:
        the cut of the calendar.
        """
        return self._place(moment, cut)

    def moment_in(self, day: date, at: time) -> datetime:
        """Return the first instant of a day at which the local clock shows the time of day `at` or a later one."""
        i = self._era_of(day)
        return max(self._calendars[i].moment_in(day, at), self.beginning_of(day))

    def last_reached(self, moment: datetime, at: time) -> date:
        """Return the last day whose time of day `at` has been reached."""
        day = self.day_of(moment)
        while self.moment_in(day, at) > moment:
            day -= _DAY
        return day

    def _era_of(self, day: date) -> int:
        return next((i for i in range(len(self.eras) - 1, 0, -1) if self.eras[i].from_day <= day), 0)

    def _place(self, moment: datetime, cut: time | None) -> date:
        i = next((i for i in range(len(self.eras) - 1, 0, -1) if self._begins[i] <= moment), 0)
        found = self._places.get((i, cut))
        if found is not None and found[0] <= moment < found[1]:
            return found[2]
        calendar = self._calendars[i]
        if cut is not None:
            calendar = AccountingDays(ZoneInfo(self.eras[i].timezone), cut)
        day = calendar.day_of(moment)
        if cut is None and i + 1 < len(self.eras) and day >= self.eras[i + 1].from_day:
            # The last day of a calendar lasts until the first day of the next one begins.
            return self.eras[i + 1].from_day - _DAY
        if len(self._places) >= _PLACES_MAX:
            self._places.clear()
        self._places[i, cut] = calendar.beginning_of(day), calendar.beginning_of(day + _DAY), day
        return day


def _begins(calendar: AccountingDays, floor: datetime, day: date) -> datetime:
    return max(calendar.beginning_of(day), floor)


def first_free(days: Days, timezone: str, cut: time, now: datetime, closed: date | None) -> date:
    """Return the first day to which another calendar can apply from now on: it begins at least NOTICE after `now`. It
    follows each day that has begun by then, the last closed day `closed`, and the first day of each recorded calendar.
    """
    calendar = AccountingDays(ZoneInfo(timezone), cut)
    taken = [days.day_of(now + NOTICE), *([] if closed is None else [closed])]
    if days.is_recorded:
        taken.append(days.current.from_day)
    day = max(taken) + _DAY
    while calendar.beginning_of(day) < now + NOTICE:
        day += _DAY
    return day


def day_after(day: date) -> date:
    return day + _DAY


def after_month(month: date) -> date:
    """Return the first day of the month after the month that begins on the day `month`."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def cut_of(text: str) -> time:
    """Return the cut that `cut_text` returned. Raises ValueError."""
    return time.fromisoformat(text)


def cut_text(cut: time) -> str:
    return f"{cut:%H:%M}"
