"""Model of the fund service: the rolling reserve. A part of a merchant's credits of a day is held, and released after
some days. Pure.

A hold has the order number `auto-2026-03-02-1`: the day whose credits it covers, and its number among the holds of this
day.
"""

import re
from datetime import date, timedelta
from typing import Final

from fundledger.fund.model.days import LAST
from fundledger.fund.model.merchant import Rolling
from fundledger.fund.model.requests import AUTO

LOOK_BACK: Final = timedelta(days=7)
"""Until so long after a day, its missing holds are posted from later credits."""
OPEN_BACK: Final = timedelta(days=60)
"""Until so long after a day, its missing holds are posted if the day is not closed."""
_parts: Final = re.compile(rf"{AUTO}(\d{{4}}-\d\d-\d\d)-\d+").fullmatch


def part_of_day(base: int, basis_points: int) -> int:
    """Return the part of the credits of a day that is held, rounded down to minor units."""
    return base * basis_points // 10_000


def number_of_hold(day: date, number: int) -> str:
    """Return the order number of a hold. Every process computes the same number, so a hold is posted once."""
    return f"{AUTO}{day.isoformat()}-{number}"


def day_of_hold(order_no: str) -> date | None:
    """Return the day whose credits a hold covers, or None for an order number of another form."""
    parts = _parts(order_no)
    try:
        return None if parts is None else date.fromisoformat(parts[1])
    except ValueError:
        return None


def days_of(rule: Rolling, today: date, last_closed: date | None) -> list[date]:
    """Return the days whose credits may still be held, oldest first: the days of LOOK_BACK, and earlier days that are
    not closed, for OPEN_BACK. `last_closed`: the last closed day, or None.
    """
    earliest = today - OPEN_BACK
    first_open = earliest if last_closed is None else max(earliest, last_closed + timedelta(days=1))
    first = max(rule.from_day, min(today - LOOK_BACK, first_open))
    return [first + timedelta(days=i) for i in range((today - first).days + 1)]


def release_day(rule: Rolling, day: date) -> date:
    """Return the day on which the hold of a day is released."""
    return min(LAST, day + timedelta(days=rule.days))
