"""A model of accounting days and of settlement dates, written from docs/reference/fund.md. It shares no code with the
services. It is exact as long as no change of the clocks is near the cut.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

DAY = timedelta(days=1)


@dataclass(frozen=True)
class CalendarModel:
    """The days of a time zone that end at the local time `cut`."""

    zone: str = "UTC"
    cut: time = time()

    def local(self, at: datetime) -> datetime:
        return at.astimezone(ZoneInfo(self.zone)).replace(tzinfo=None)

    def day(self, at: datetime, cut: time | None = None) -> date:
        """Return the day of an instant. From the cut on, it is the next calendar day."""
        ends, local = self.cut if cut is None else cut, self.local(at)
        return local.date() + (DAY if ends > time() and local.time() >= ends else timedelta())

    def reached(self, at: datetime, moment: time) -> date:
        """Return the last day in which the local clock has shown the time `moment` by now."""
        day, local = self.day(at), self.local(at)
        shown = datetime.combine(day - DAY if self.cut > time() and moment >= self.cut else day, moment)
        return day if local >= shown else day - DAY


@dataclass(frozen=True)
class Terms:
    """The settlement terms of a merchant. `rest`: calendar days without work, in addition to Saturdays and Sundays."""

    calendar: str = "manual"
    days: int | None = None
    cut: time | None = None
    rest: Collection[date] = field(default_factory=frozenset)

    def works(self, day: date) -> bool:
        return day.weekday() < 5 and day not in self.rest

    def due(self, days: CalendarModel, at: datetime) -> date | None:
        """Return the day on which a payment is due."""
        paid = days.day(at, self.cut)
        if self.days is None:
            return None if self.calendar == "manual" else self._first(paid + DAY)
        due, left = paid, self.days
        while left or not self.works(due):
            due += DAY
            left -= self.works(due) and left > 0
        due = self._first(due)
        while not self.works(due):
            due += DAY
        return due

    def _first(self, day: date) -> date:
        while (self.calendar == "weekly" and day.weekday() != 0) or (self.calendar == "monthly" and day.day != 1):
            day += DAY
        return day
