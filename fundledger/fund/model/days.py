"""Model of the fund service: the days of bills and day sums. Pure."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

FIRST: Final = date(1970, 1, 1)
LAST: Final = date(9999, 11, 30)
"""FIRST and LAST: the first and the last day that a request can name. The month after it must exist."""
_DAY: Final = timedelta(days=1)


def beginning_of(day: date) -> datetime:
    """Return the instant at which a day begins, which is the end of the day before. Days are days in UTC.

    This function alone decides where a day begins.
    """
    return datetime.combine(day, time(), UTC)


def day_of(moment: datetime) -> date:
    """Return the day to which an instant belongs."""
    near = moment.astimezone(UTC).date()
    return next(day for day in (near + _DAY, near, near - _DAY) if beginning_of(day) <= moment)


def day_after(day: date) -> date:
    return day + _DAY


def after_month(month: date) -> date:
    """Return the first day of the month after the month that begins on the day `month`."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)
