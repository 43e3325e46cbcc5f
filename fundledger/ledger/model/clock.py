"""Model of time in the ledger: microseconds since 1970, and the accounting date of a moment."""

import time
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import time as time_of_day

from fundledger.accounting_days import AccountingDays

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def now_us() -> int:
    return time.time_ns() // 1000


def us(moment: datetime) -> int:
    return (moment - EPOCH) // _MICROSECOND


def moment(us_: int) -> datetime:
    return EPOCH + timedelta(microseconds=us_)


class AccountingCalendar:
    """Calendar of accounting dates: the days of `fundledger.accounting_days`, with a cache of the last minute.

    With a cut of 23:00, a voucher of 23:30 on the 1st belongs to the 2nd. With a cut of 00:00, the accounting date is
    the calendar date.
    """

    def __init__(self, zone: tzinfo, cut: time_of_day) -> None:
        self._days = AccountingDays(zone, cut)
        self._from_us = self._until_us = 0
        self._date = date.min

    def date_of(self, us_: int) -> date:
        # The date is cached for one minute, because cuts and changes of the zone's offset fall on whole minutes.
        if not self._from_us <= us_ < self._until_us:
            self._from_us = us_ - us_ % 60_000_000
            self._until_us = self._from_us + 60_000_000
            self._date = self._days.day_of(moment(self._from_us))
        return self._date
