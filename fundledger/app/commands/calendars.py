"""CLI commands `fundledger calendar show` and `adopt`: the calendar of the fund service, with or without a running
service.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, time
from typing import Final, NamedTuple

import asyncpg
import msgspec

from fundledger.app.host.postgres.databases import databases
from fundledger.app.host.postgres.identity import FUND, keys_folder
from fundledger.app.host.preflight import CannotServe
from fundledger.client.account_service import AccountService
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.model.days import Era, cut_text
from fundledger.fund.store.calendars import adopt, differs, record_first
from fundledger.fund.store.macs import OrderMacs, open_macs
from fundledger.security.keys import FileKeys, KeyFault
from fundledger.settings import Settings

ANSWER_S: Final = 5.0
DIFFERENT: Final = 1
_AWAY: Final = (OSError, KeyFault, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class _Fund(NamedTuple):
    connection: "asyncpg.Connection[asyncpg.Record]"
    macs: OrderMacs


async def account_calendar(settings: Settings) -> tuple[str, time]:
    """Return the time zone and the cut of the account service that the fund service uses: those of the settings, or of
    the account service at `account_url`. Raises CannotServe.
    """
    if not settings.account_url:
        return settings.accounting_timezone, settings.accounting_cut
    token = settings.data_dir / "fund-token"
    try:
        secret = token.read_text().strip() if token.exists() else ""
        async with AccountService(settings.account_url, secret, timeout_s=ANSWER_S) as service:
            return await AccountGateway(service).calendar()
    except (GatewayFault, OSError) as error:
        raise CannotServe(f"{settings.account_url} does not report its calendar: {error}") from None


async def run_show(settings: Settings, *, as_json: bool = False) -> int:
    """Print the recorded calendars, and that of the account service. Return 1 if they differ. Raises CannotServe."""
    timezone, cut = await account_calendar(settings)
    async with _opened(settings) as fund:
        days = fund.macs.days
    is_different = days.is_recorded and differs(days, timezone, cut)
    if as_json:
        eras = [_members(days.beginning_of(era.from_day), era) for era in days.eras if days.is_recorded]
        there = {"timezone": timezone, "cut": cut_text(cut)}
        print(msgspec.json.encode({"calendars": eras, "account_service": there, "differs": is_different}).decode())
        return DIFFERENT if is_different else 0
    for era in days.eras if days.is_recorded else ():
        print(f"from {era.from_day}, which begins at {_at(days.beginning_of(era.from_day))}: {era.shown}")
    if not days.is_recorded:
        print("no calendar is recorded yet: it is recorded when the fund service starts")
    print(f"account service: {timezone}, cut {cut_text(cut)}{' (DIFFERENT)' if is_different else ''}")
    return DIFFERENT if is_different else 0


async def run_adopt(settings: Settings) -> int:
    """Record the calendar of the account service, from the first free day on. Print this day. Raises CannotServe."""
    timezone, cut = await account_calendar(settings)
    async with _opened(settings) as fund:
        macs = fund.macs
        if not macs.days.is_recorded:
            new: Era | None = (await record_first(fund.connection, macs.rows, macs.days, timezone, cut))[-1]
        else:
            new = await adopt(fund.connection, macs.rows, macs.days, timezone, cut)
        await macs.read_days(fund.connection)
    if new is None:
        print(f"the calendar is recorded already: {timezone}, cut {cut_text(cut)}")
    else:
        begins = _at(macs.days.beginning_of(new.from_day))
        print(f"recorded: {new.shown}, from {new.from_day}, which begins at {begins}")
    return 0


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[_Fund]:
    """Open the fund database with its keys. Raises CannotServe."""
    try:
        async with databases(settings) as dsns:
            if dsns.fund is None:
                raise CannotServe("there is no fund database: start `fundledger serve` with the fund service first")
            connection = await asyncpg.connect(
                dsns.fund, timeout=10, server_settings={"application_name": "fundledger calendar"}
            )
            try:
                yield _Fund(connection, await open_macs(connection, FileKeys(keys_folder(settings.data_dir, FUND))))
            finally:
                await connection.close()
    except asyncpg.UndefinedTableError:
        raise CannotServe("the schema is older than calendars: run `fundledger migrate` first") from None
    except _AWAY as error:
        raise CannotServe(f"cannot read or write the calendar: {error}") from None


def _members(begins: datetime, era: Era) -> dict[str, object]:
    named = {"from_day": era.from_day, "timezone": era.timezone, "cut": cut_text(era.cut)}
    return {**named, "begins_at": begins, "recorded_at": era.recorded_at}


def _at(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
