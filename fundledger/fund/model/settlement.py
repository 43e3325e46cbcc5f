"""Model of the fund service: the days on which payments are due for settlement. Pure.

A payment belongs to the day of payments on which it was created, which ends at the cut of its merchant. Its due day is
computed once, when it is created, so that a later change of the calendar moves no date that the merchant knows.
"""

from collections.abc import Collection, Mapping
from datetime import date, datetime, time, timedelta
from typing import Final

from fundledger.fund.model.days import Days, after_month
from fundledger.fund.model.merchant import Merchant

WEEKEND: Final = frozenset({5, 6})
"""The weekend, if the settings name no other: Saturday and Sunday."""
_REST_MAX: Final = 366
"""The maximum number of days that are no working days, one after the other. The next day counts as a working day."""
_DAY: Final = timedelta(days=1)
Holidays = Mapping[str, Mapping[date, bool]]
"""By region: days that differ from the rule of weekends, and whether such a day is a working day."""


class SettlementDates:
    """The due days of payments. `days`: the days of the fund database. `weekend`: days of the week that are no working
    days, 0 for Monday. `holidays` may be replaced at any time.
    """

    def __init__(self, days: Days, weekend: Collection[int] = WEEKEND) -> None:
        self.days = days
        self.holidays: Holidays = {}
        self._weekend = frozenset(weekend)

    def is_working(self, region: str, day: date) -> bool:
        """Return whether a day is a working day in a region."""
        known = self.holidays.get(region, {}).get(day)
        return day.weekday() not in self._weekend if known is None else known

    def due(self, merchant: Merchant, created_at: datetime) -> date | None:
        """Return the day on which a payment of this merchant is due. None: the merchant is settled manually, without a
        number of days.
        """
        paid_on = self.days.trade_day(created_at, merchant.settlement_cut)
        if merchant.settlement_days is None:
            return None if merchant.settlement == "manual" else _on_or_after(merchant.settlement, paid_on + _DAY)
        due = self._working_from(merchant.region, paid_on)
        if merchant.settlement_days:
            due = paid_on
            for _ in range(merchant.settlement_days):
                due = self._working_from(merchant.region, due + _DAY)
        return self._working_from(merchant.region, _on_or_after(merchant.settlement, due))

    def last_due(
        self, cut: time | None, working_days: int | None, region: str, now: datetime, today: date
    ) -> date | None:
        """Return the last due day whose payments are settled automatically on the day `today`, at the time `now`. None:
        no automatic settlement is made on this day. Payments of a day of payments that has not ended are not settled.

        `cut`, `working_days`, `region`: the members of a merchant (`model.merchant.Merchant`).
        """
        if working_days is not None and not self.is_working(region, today):
            return None
        paying = self.days.trade_day(now, cut)
        return min(today, paying - _DAY if working_days == 0 else paying)

    def _working_from(self, region: str, day: date) -> date:
        for ahead in range(_REST_MAX):
            if self.is_working(region, day + ahead * _DAY):
                return day + ahead * _DAY
        return day + _REST_MAX * _DAY


def _on_or_after(settlement: str, day: date) -> date:
    """Return the first day of a settlement calendar that is not before `day`."""
    if settlement == "weekly":
        return day + (-day.weekday() % 7) * _DAY
    if settlement == "monthly" and day.day > 1:
        return after_month(day)
    return day


def last_of(settlement: str, today: date) -> date:
    """Return the last day of a settlement calendar that is not after `today`."""
    if settlement == "weekly":
        return today - today.weekday() * _DAY
    return today.replace(day=1) if settlement == "monthly" else today
