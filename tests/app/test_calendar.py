"""The calendar of both services: the route, the commands, and starts that are refused because the calendars differ."""

import json
from collections.abc import AsyncIterator
from datetime import time
from pathlib import Path

import asyncpg
import pytest

from fundledger.accounting_days import CalendarDiffers
from fundledger.app.commands.books import run_migrate
from fundledger.app.commands.calendars import run_adopt, run_show
from fundledger.app.commands.doctor import run_doctor
from fundledger.app.host.calendars import agree_on_calendar
from fundledger.app.host.preflight import CannotServe
from fundledger.client import AccountService, Calendar
from fundledger.settings import Settings
from tests.support.client import Client
from tests.support.database import Databases
from tests.support.running import RunningService, run

SHANGHAI = {"accounting_timezone": "Asia/Shanghai", "accounting_cut": time(23)}


async def test_the_account_service_publishes_its_calendar(service: RunningService, client: Client) -> None:
    answer = await client.get("/v1/calendar")
    assert (answer.status, answer.json) == (200, {"timezone": "UTC", "cut": "00:00"})
    async with AccountService(service.base_url, service.token) as accounts:
        assert await accounts.calendar() == Calendar("UTC", "00:00")


async def test_a_service_that_was_started_has_its_calendar_recorded(platform: RunningService) -> None:
    for extra, status, differs in (({}, 0, False), ({"FUNDLEDGER_ACCOUNTING_CUT": "23:00"}, 1, True)):
        environment = {**platform.environment, **extra}
        done = await run("calendar", "show", "--json", env=environment, cwd=platform.folder)
        assert done.returncode == status, done
        shown = json.loads(done.stdout)
        assert (shown["differs"], shown["account_service"]["cut"]) == (differs, (extra and "23:00") or "00:00")
        (era,) = shown["calendars"]
        assert (era["from_day"], era["timezone"], era["cut"]) == ("1970-01-01", "UTC", "00:00")
        done = await run("doctor", "--json", env=environment, cwd=platform.folder)
        (check,) = [each for each in json.loads(done.stdout)["checks"] if each["what"] == "calendar"]
        assert check["well"] is not differs, check
        done = await run("verify", "--json", env=environment, cwd=platform.folder)
        report = json.loads(done.stdout)
        (found,) = [each for each in report["checks"] if each["name"] == "fund_calendar_agrees"]
        assert (found["findings"] != [], report["ok"]) == (differs, not differs), found


@pytest.fixture
async def settings(postgres: Databases, tmp_path: Path) -> Settings:
    """Return the settings of two migrated databases."""
    made = Settings(data_dir=tmp_path / "data", account_dsn=await postgres.empty(), fund_dsn=await postgres.empty())
    assert await run_migrate(made) == 0
    return made


async def test_another_calendar_is_shown_and_adopted_from_a_later_day_on(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    other = settings.model_copy(update=SHANGHAI)
    assert await run_show(settings) == 0
    assert "no calendar is recorded yet" in capsys.readouterr().out
    await agree_on_calendar(settings.fund_dsn, settings)
    await agree_on_calendar(settings.fund_dsn, settings)
    with pytest.raises(CalendarDiffers, match="UTC, cut 00:00, the settings have Asia/Shanghai, cut 23:00"):
        await agree_on_calendar(settings.fund_dsn, other)
    capsys.readouterr()
    assert await run_show(other) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "account service: Asia/Shanghai, cut 23:00 (DIFFERENT)"
    await run_doctor(other)
    assert "fundledger calendar adopt" in capsys.readouterr().out
    assert await run_adopt(other) == 0
    assert "recorded: Asia/Shanghai, cut 23:00, from " in capsys.readouterr().out
    assert await run_adopt(other) == 0
    assert "is recorded already" in capsys.readouterr().out
    assert await run_show(other) == 0
    await agree_on_calendar(settings.fund_dsn, other)
    with pytest.raises(CalendarDiffers):
        await agree_on_calendar(settings.fund_dsn, settings)


async def test_a_first_calendar_can_be_adopted_before_the_first_start(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    other = settings.model_copy(update=SHANGHAI)
    assert await run_adopt(other) == 0
    assert "from 1970-01-01" in capsys.readouterr().out
    await agree_on_calendar(settings.fund_dsn, other)


async def test_an_edited_calendar_is_one_line(settings: Settings) -> None:
    await agree_on_calendar(settings.fund_dsn, settings)
    connection = await asyncpg.connect(settings.fund_dsn)
    await connection.execute("ALTER TABLE fund.calendars DISABLE TRIGGER ALL; UPDATE fund.calendars SET cut = '23:00'")
    await connection.close()
    with pytest.raises(CannotServe, match="does not match its MAC"):
        await run_show(settings)


async def test_an_account_service_that_does_not_answer_is_one_line(settings: Settings) -> None:
    away = settings.model_copy(update={"account_url": "http://127.0.0.1:1"})
    with pytest.raises(CannotServe, match=r"http://127\.0\.0\.1:1 does not report its calendar"):
        await run_show(away)


async def test_serve_with_another_calendar_ends_with_one_line(platform_of_its_own: RunningService) -> None:
    platform = platform_of_its_own
    assert await platform.stop() == 0
    environment = {**platform.environment, "FUNDLEDGER_ACCOUNTING_TIMEZONE": "Asia/Shanghai"}
    done = await run("serve", env=environment, cwd=platform.folder)
    assert done.returncode == 2, done
    (line,) = done.stderr.splitlines()[-1:]
    assert "the fund database has the calendar UTC, cut 00:00, the settings have Asia/Shanghai, cut 00:00" in line
    done = await run("calendar", "adopt", env=environment, cwd=platform.folder)
    assert (done.returncode, "Asia/Shanghai" in done.stdout) == (0, True), done


@pytest.fixture
async def platform_of_its_own() -> AsyncIterator[RunningService]:
    async with RunningService(fund=True) as platform:
        yield platform
