"""Reconciliation of the fund service: compares its calendar with its closed days, and with the accounting dates of its
vouchers.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

import asyncpg

from fundledger.fund.model.days import FIRST, Days, Era, cut_of, cut_text, day_after
from fundledger.fund.store.calendars import differs
from fundledger.reconciliation.report import Check, Difference

ADOPTED_WITHIN: Final = timedelta(days=1)
"""The time before the record of another calendar in which the account service may have used this calendar."""
LATER_MAX: Final = timedelta(days=366)
"""The maximum time by which a withdrawal is expected to be later than the clock of this process."""
Calendar = tuple[str, time]


def check_calendar(check: Check, days: Days, closed: Sequence[Any], there: Calendar | None) -> None:
    """Compare the recorded calendars with each other, with closed days, and with the calendar `there` of the account
    service, None if it is not known. A database without a calendar has not been used yet.
    """
    if not days.is_recorded:
        return
    for i, era in enumerate(days.eras):
        check.rows += 1
        begins = days.beginning_of(era.from_day)
        if i == 0 and era.from_day != FIRST:
            check.differs(f"calendar from {era.from_day}", f"the first calendar from {FIRST}", str(era.from_day))
        if i > 0 and begins < era.recorded_at:
            check.differs(f"calendar from {era.from_day}", f"a first day after {era.recorded_at}", str(begins))
    for row in closed:
        check.examine(row, lambda row: f"day {row['day']}", _against_days, days)
    if there is not None and differs(days, *there):
        found = f"{there[0]}, cut {cut_text(there[1])}"
        check.differs("the calendar of the account service", days.current.shown, found)


def _against_days(row: asyncpg.Record, days: Days) -> Difference:
    expected = days.beginning_of(row["day"]), days.beginning_of(day_after(row["day"]))
    if (row["begins_at"], row["ends_at"]) != expected:
        yield " to ".join(map(str, expected)), f"{row['begins_at']} to {row['ends_at']}"


class AccountingDates:
    """The comparison of accounting dates of vouchers with the days of the fund service."""

    def __init__(self, days: Days) -> None:
        self._days = days
        # While a calendar is recorded and does not apply yet, the account service uses it already.
        self._skipped = [(era.recorded_at - ADOPTED_WITHIN, days.beginning_of(era.from_day)) for era in days.eras[1:]]

    def differences(self, row: Any) -> Difference:
        """Yield the difference of a voucher. A voucher that is older than the recorded calendar is not compared."""
        posted_at, accounting_date = row["posted_at"], row["accounting_date"]
        if not isinstance(posted_at, datetime) or not isinstance(accounting_date, date):
            yield "a posting time and an accounting date", f"{posted_at}, {accounting_date}"
            return
        if not self._days.is_recorded or posted_at < self._days.eras[0].recorded_at:
            return
        if any(begin <= posted_at < end for begin, end in self._skipped):
            return
        day = self._days.day_of(posted_at)
        if day != accounting_date:
            yield f"accounting date {day}, posted at {posted_at}", str(accounting_date)


def unverified_days(rows: Sequence[Any]) -> Days:
    """Return the days by rows of fund.calendars whose MACs cannot be verified. Raises KeyError, ValueError."""
    return Days([Era(row["from_day"], row["timezone"], cut_of(row["cut"]), row["recorded_at"]) for row in rows])


def day_columns(days: Days, first: datetime | None, last: datetime | None) -> tuple[list[str], list[str]]:
    """Return the days between two instants, and their beginnings, both as text for the statement
    withdrawal_days_equal_orders.sql.
    """
    if first is None or last is None:
        first = last = days.beginning_of(day_after(FIRST))
    # An order of a later time was edited, and does not match its MAC.
    last = min(last, max(first, datetime.now(UTC) + LATER_MAX))
    found, day, end = [], days.day_of(first), day_after(days.day_of(last))
    while day <= end:
        found.append(day)
        day = day_after(day)
    return [str(each) for each in found], [days.beginning_of(each).isoformat() for each in found]
