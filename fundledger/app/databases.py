"""Where the two databases are, and what brings them up to date."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import asyncpg

from fundledger.app.claims import CannotServe, lock
from fundledger.app.identity import ACCOUNT, FUND, expect_keys, expect_own, keys_folder, remember_own
from fundledger.app.postgres import EmbeddedPostgres, PostgresFault
from fundledger.app.settings import PREFIX, BadSetting, Settings
from fundledger.fund.migrate import migrate as migrate_orders
from fundledger.ledger.accounts import Layout
from fundledger.ledger.migrate import migrate as migrate_ledger

CONNECT_S = 10.0


class Dsns(NamedTuple):
    """`fund` is None where the fund service is switched off, or has never run."""

    account: str
    fund: str | None


class NoLedger(CannotServe):
    """The configuration names no database, and the data directory has none."""


@contextlib.asynccontextmanager
async def databases(settings: Settings, *, make_fund: bool = False, any_database: bool = False) -> AsyncIterator[Dsns]:
    """The databases: the configured ones, those of a running `serve`, or the embedded ones, started for this purpose.
    `make_fund`: the embedded fund database is made where it is missing, and a schema that is not there yet is no fault.

    Each is one of this data directory, and has its keys; with `any_database`, the caller looks. Raises CannotServe.
    """
    wanted = settings.fund == "on"
    account = settings.account_dsn or await _running(_told(settings.data_dir / "account-dsn"))
    fund = (settings.fund_dsn or await _running(_told(settings.data_dir / "fund-dsn"))) if wanted else None
    there = (settings.data_dir / "postgres").exists()
    # A `serve` that runs has told of all that it has.
    complete = fund or not wanted or not settings.account_dsn or not (there or make_fund)
    if account and complete:
        found = Dsns(account, fund or None)
        if not any_database:
            await _expect_own(settings.data_dir, found)
        yield found
        return
    if not (account or there):
        raise NoLedger(
            f"there is no ledger in {settings.data_dir}: start `fundledger serve` or set FUNDLEDGER_DATA_DIR"
        )
    held = lock(settings.data_dir)
    postgres = EmbeddedPostgres(settings.data_dir, settings.postgres_memory_mb, fund=wanted and make_fund and not fund)
    try:
        await postgres.start()
        if wanted and not fund and await _answers(postgres.fund_dsn):
            fund = postgres.fund_dsn
        found = Dsns(account or postgres.dsn, fund or None)
        if not any_database:
            await _expect_own(settings.data_dir, found)
        yield found
    except PostgresFault as fault:
        raise CannotServe(str(fault)) from None
    finally:
        await postgres.stop()
        held.close()


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[str]:
    """The account database alone, as `databases` finds it. Raises CannotServe."""
    async with databases(settings) as dsns:
        yield dsns.account


async def migrate_account(dsn: str, settings: Settings) -> list[str]:
    """Bring the schema up to date; answers what was applied. Raises BadSetting when the ledger has another layout,
    SchemaFault, KeyFault, CannotServe.
    """
    folder = settings.data_dir
    async with _connected(dsn, ACCOUNT) as connection:
        await expect_own(connection, folder, ACCOUNT)
        wanted = Layout(settings.shards or 1, settings.platform_slots or 8)
        layout, done = await migrate_ledger(connection, wanted, keys_folder(folder, ACCOUNT))
        await remember_own(connection, folder, ACCOUNT)
    for name, asked, fixed in (
        ("SHARDS", settings.shards, layout.shards),
        ("PLATFORM_SLOTS", settings.platform_slots, layout.platform_slots),
    ):
        if asked is not None and asked != fixed:
            raise BadSetting(f"{PREFIX}{name}={asked}: this ledger was initialised with {fixed}, accepted is {fixed}")
    return done


async def migrate_fund(dsn: str, settings: Settings) -> list[str]:
    """Bring the schema up to date; answers what was applied. Raises SchemaFault, KeyFault, CannotServe."""
    folder = settings.data_dir
    async with _connected(dsn, FUND) as connection:
        await expect_own(connection, folder, FUND)
        done = await migrate_orders(connection, keys_folder(folder, FUND))
        await remember_own(connection, folder, FUND)
        return done


async def _expect_own(data_dir: Path, dsns: Dsns) -> None:
    """Raises CannotServe."""
    for which, dsn in ((ACCOUNT, dsns.account), (FUND, dsns.fund)):
        if dsn is not None:
            async with _connected(dsn, which) as connection:
                await expect_own(connection, data_dir, which)
                await expect_keys(connection, data_dir, which)


@contextlib.asynccontextmanager
async def _connected(dsn: str, which: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_S)
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise CannotServe(f"the {which} database cannot be reached: {error or type(error).__name__}") from None
    try:
        yield connection
    finally:
        await connection.close()


def _told(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


async def _running(dsn: str) -> str:
    """What the last `serve` told, empty when it does not run."""
    return dsn if dsn and await _answers(dsn) else ""


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return False
    await connection.close()
    return True
