"""The account and fund databases, on the embedded Postgres or by DSN: look-up, identity check, migration."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import asyncpg

from fundledger.app.console.terminal import complain
from fundledger.app.host.postgres.identity import ACCOUNT, FUND, expect_keys, expect_own, keys_folder, remember_own
from fundledger.app.host.postgres.own_server import own_socket_folder
from fundledger.app.host.postgres.server import DATABASE, FUND_DATABASE, EmbeddedPostgres, PostgresFault, dsn_of
from fundledger.app.host.preflight import CannotServe, lock
from fundledger.fund.store.migrate import migrate as migrate_orders
from fundledger.ledger.store.accounts import Layout
from fundledger.ledger.store.migrate import migrate as migrate_ledger
from fundledger.settings import PREFIX, BadSetting, Settings

CONNECT_S = 10.0


class Dsns(NamedTuple):
    """DSNs of the databases. `fund` is None if the fund service is switched off, or has never run."""

    account: str
    fund: str | None


class NoLedger(CannotServe):
    """The configuration specifies no database, and the data directory contains none."""


@contextlib.asynccontextmanager
async def databases(settings: Settings, *, make_fund: bool = False, any_database: bool = False) -> AsyncIterator[Dsns]:
    """Yield the DSNs of the databases.

    A database with a configured DSN is used. Otherwise the database of a running `serve` is used. If no `serve` runs,
    the embedded server is started, and stopped on exit.
    `make_fund`: create the embedded fund database if it is missing; a missing schema is not an error.
    `any_database`: check neither that each database belongs to this data directory, nor that its keys are present. The
    caller checks both. Raises CannotServe.
    """
    wanted = settings.fund == "on"
    account, fund = settings.account_dsn, settings.fund_dsn if wanted else ""
    home = settings.data_dir / "postgres"
    own = None if account and (fund or not wanted) else own_socket_folder(settings.data_dir)
    if own is not None:
        account = account or await _running(settings.data_dir, DATABASE, own)
        fund = fund or (await _running(settings.data_dir, FUND_DATABASE, own) if wanted else "")
    # A running embedded server has all embedded databases that exist.
    complete = fund or not wanted or own is not None or not (home.exists() or make_fund)
    if account and complete:
        found = Dsns(account, fund or None)
        if not any_database:
            await _expect_own(settings.data_dir, found)
        _say(settings, found, f"{home} (running)")
        yield found
        return
    if not (account or home.exists()):
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
        _say(settings, found, f"{home} (not running: started for this command)")
        yield found
    except PostgresFault as fault:
        raise CannotServe(str(fault)) from None
    finally:
        await postgres.stop()
        held.close()


@contextlib.asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[str]:
    """Yield the DSN of the account database, found by `databases`. Raises CannotServe."""
    async with databases(settings) as dsns:
        yield dsns.account


async def migrate_account(dsn: str, settings: Settings) -> list[str]:
    """Migrate the account database and return the applied migrations.

    Raises BadSetting if the number of shards or slots in the settings differs from that of the ledger. Also raises
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
            raise BadSetting(f"{PREFIX}{name}={asked}: this ledger was initialised with {fixed}; set {fixed}")
    return done


async def migrate_fund(dsn: str, settings: Settings) -> list[str]:
    """Migrate the fund database and return the applied migrations. Raises SchemaFault, KeyFault, CannotServe."""
    folder = settings.data_dir
    async with _connected(dsn, FUND) as connection:
        await expect_own(connection, folder, FUND)
        done = await migrate_orders(connection, keys_folder(folder, FUND))
        await remember_own(connection, folder, FUND)
        return done


async def _expect_own(data_dir: Path, dsns: Dsns) -> None:
    """Raise CannotServe unless each database belongs to the data directory and its keys are present."""
    for which, dsn in ((ACCOUNT, dsns.account), (FUND, dsns.fund)):
        if dsn is not None:
            async with _connected(dsn, which) as connection:
                await expect_own(connection, data_dir, which)
                await expect_keys(connection, data_dir, which)


@contextlib.asynccontextmanager
async def _connected(dsn: str, which: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_S)
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise BadSetting(f"{PREFIX}{which.upper()}_DSN: a DSN cannot be used: {error}") from None
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise CannotServe(f"the {which} database cannot be reached: {why}") from None
    try:
        yield connection
    finally:
        await connection.close()


def _say(settings: Settings, dsns: Dsns, own: str) -> None:
    """Print one line with the databases on standard error, because a program may read standard output."""
    places = {"account": "FUNDLEDGER_ACCOUNT_DSN" if settings.account_dsn else own}
    if dsns.fund is not None:
        places["fund"] = "FUNDLEDGER_FUND_DSN" if settings.fund_dsn else own
    if len(set(places.values())) == 1:
        complain(f"fundledger: database: {places['account']}")
    else:
        complain("fundledger: databases: " + ", ".join(f"{name}: {place}" for name, place in places.items()))


async def _running(data_dir: Path, database: str, folder: Path) -> str:
    """Return the DSN of a database on the server with its socket in `folder`, empty if the database does not answer."""
    try:
        dsn = dsn_of(data_dir, database, folder)
    except OSError as error:
        raise CannotServe(
            f"{error.filename}: {error.strerror}; the file contains the password of the database"
        ) from None
    return dsn if await _answers(dsn) else ""


async def _answers(dsn: str) -> bool:
    try:
        connection = await asyncpg.connect(dsn, timeout=5)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        return False
    await connection.close()
    return True
