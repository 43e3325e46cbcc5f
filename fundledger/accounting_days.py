"""Accounting days: the instants at which days begin, in a time zone with a cut. Pure. Both services use this module, so
that the accounting date of a voucher and the day of its order cannot differ.
"""

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Final

_DAY: Final = timedelta(days=1)
_SECOND: Final = timedelta(seconds=1)


class CalendarDiffers(Exception):
    """The fund service and the account service have different calendars, so a service must not start."""


class AccountingDays:
    """The accounting days of a time zone. A day ends when the local clock first shows the time of day `cut`.

    With a cut of 23:00, 23:30 on the 1st belongs to the 2nd. With a cut of 00:00, a day is a calendar day. The cut has
    whole minutes. If the local clock is set back over the cut, the day ends at the first of the two moments. If the
    clock is set forward over the cut, the day ends when the clock is set.
    """

    __slots__ = ("_cut", "_zone")

    def __init__(self, zone: tzinfo, cut: time) -> None:
        self._zone = zone
        self._cut = cut

    def beginning_of(self, day: date) -> datetime:
        """Return the instant at which a day begins, in UTC. The day before ends at this instant."""
        first = day - _DAY if self._cut > time() else day
        return first_instant_at(datetime.combine(first, self._cut), self._zone)

    def day_of(self, moment: datetime) -> date:
        """Return the day to which an instant belongs."""
        local = moment.astimezone(self._zone)
        day = local.date()
        while self.beginning_of(day + _DAY) <= moment:
            day += _DAY
        while self.beginning_of(day) > moment:
            day -= _DAY
        return day

    def moment_in(self, day: date, at: time) -> datetime:
        """Return the first instant of a day at which the local clock shows the time of day `at` or a later one, in
        UTC. A time of day from the cut on is on the calendar day before.
        """
        is_before = self._cut > time() and at >= self._cut
        reached = first_instant_at(datetime.combine(day - _DAY if is_before else day, at), self._zone)
        return max(reached, self.beginning_of(day))


def first_instant_at(local: datetime, zone: tzinfo) -> datetime:
    """Return the first instant at which the clock of a time zone shows the local time or a later one, in UTC. The clock
    skips a local time if it is set forward, and shows it twice if it is set back.
    """
    found = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _shown(found, zone) == local:
        return found
    # The clock skips this time. It is set between the instants by the offsets after and before the change.
    low, high = local.replace(tzinfo=zone, fold=1).astimezone(UTC), found
    while high - low > _SECOND:
        middle = low + (high - low) // (2 * _SECOND) * _SECOND
        low, high = (low, middle) if _shown(middle, zone) >= local else (middle, high)
    return high


def _shown(moment: datetime, zone: tzinfo) -> datetime:
    """Return the time that the clock of a time zone shows at an instant."""
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)
