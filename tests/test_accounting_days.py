"""Accounting days: each instant belongs to one day, also where the clock is set, and days begin in order."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundledger.accounting_days import AccountingDays, first_instant_at
from tests.support.calendar_model import CalendarModel

MINUTE = timedelta(minutes=1)
MICROSECOND = timedelta(microseconds=1)
ZONES = ("UTC", "Asia/Shanghai", "America/New_York", "Europe/London", "Australia/Lord_Howe", "Pacific/Apia")
CUTS = st.builds(time, st.integers(0, 23), st.integers(0, 59))
MOMENTS = st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given(st.sampled_from(ZONES), CUTS, MOMENTS)
def test_an_instant_belongs_to_the_day_that_has_begun_last(zone: str, cut: time, at: datetime) -> None:
    days = AccountingDays(ZoneInfo(zone), cut)
    day = days.day_of(at)
    assert days.beginning_of(day) <= at < days.beginning_of(day + timedelta(days=1))


@given(st.sampled_from(ZONES), CUTS, st.dates(date(1990, 1, 1), date(2030, 1, 1)))
def test_days_begin_in_order_at_the_cut(zone: str, cut: time, day: date) -> None:
    days = AccountingDays(ZoneInfo(zone), cut)
    begins, following = days.beginning_of(day), days.beginning_of(day + timedelta(days=1))
    assert begins <= following
    shown = begins.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    before = (begins - MICROSECOND).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    wanted = datetime.combine(day - timedelta(days=cut > time()), cut)
    assert before < wanted <= shown


@given(st.sampled_from(("UTC", "Asia/Shanghai", "Asia/Kolkata")), CUTS, MOMENTS, CUTS)
def test_without_changes_of_the_clock_days_are_those_of_the_model(
    zone: str, cut: time, at: datetime, moment: time
) -> None:
    days, model = AccountingDays(ZoneInfo(zone), cut), CalendarModel(zone, cut)
    if zone == "Asia/Shanghai" and at.year < 1992:
        at = at.replace(year=1992)
    day = days.day_of(at)
    assert day == model.day(at)
    assert (days.moment_in(day, moment) <= at) == (model.reached(at, moment) == day)


@pytest.mark.parametrize(
    ("zone", "cut", "day", "begins"),
    [
        # The clock is set forward from 02:00 to 03:00, and back from 02:00 to 01:00.
        ("America/New_York", time(2, 30), date(2026, 3, 9), "2026-03-08T07:00+00:00"),
        ("America/New_York", time(2, 0), date(2026, 3, 9), "2026-03-08T07:00+00:00"),
        ("America/New_York", time(1, 30), date(2026, 11, 2), "2026-11-01T05:30+00:00"),
        ("America/New_York", time(0, 0), date(2026, 3, 8), "2026-03-08T05:00+00:00"),
        ("America/New_York", time(0, 0), date(2026, 3, 9), "2026-03-09T04:00+00:00"),
        ("Asia/Shanghai", time(23, 0), date(2026, 3, 1), "2026-02-28T15:00+00:00"),
        # The clock is set forward at midnight: this day has no 00:00.
        ("America/Havana", time(0, 0), date(2026, 3, 8), "2026-03-08T05:00+00:00"),
        # A whole day is left out: 30 December 2011 has no instant.
        ("Pacific/Apia", time(0, 0), date(2011, 12, 30), "2011-12-30T10:00+00:00"),
        ("Pacific/Apia", time(0, 0), date(2011, 12, 31), "2011-12-30T10:00+00:00"),
    ],
)
def test_a_day_begins_at_the_first_instant_that_shows_the_cut(zone: str, cut: time, day: date, begins: str) -> None:
    assert AccountingDays(ZoneInfo(zone), cut).beginning_of(day) == datetime.fromisoformat(begins)


def test_a_time_that_the_clock_shows_twice_is_reached_the_first_time() -> None:
    zone = ZoneInfo("Europe/London")
    assert first_instant_at(datetime(2026, 10, 25, 1, 30), zone) == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert first_instant_at(datetime(2026, 3, 29, 1, 30), zone) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
