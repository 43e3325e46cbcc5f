"""CLI command `fundledger doctor`: check the installation and print advice for each problem."""

import asyncio
import os
import resource
import socket
import stat
import sys
import sysconfig
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
import asyncpg
import msgspec

from fundledger.app.commands.calendars import account_calendar
from fundledger.app.host.dev_persons import DEV_PERSON_FILES
from fundledger.app.host.disk_space import free_mb, needed_mb
from fundledger.app.host.postgres.databases import databases
from fundledger.app.host.postgres.identity import FUND as FUND_DATABASE
from fundledger.app.host.postgres.identity import OtherDatabase, keys_folder
from fundledger.app.host.postgres.server import EmbeddedPostgres, PostgresFault
from fundledger.app.host.postgres.shared_memory import NEEDED_MB, room_mb
from fundledger.app.host.preflight import CannotServe
from fundledger.app.host.valkey import EmbeddedValkey, ValkeyFault, ask
from fundledger.database.migrations import migrations
from fundledger.database.statements import load
from fundledger.fund.model.days import cut_text
from fundledger.fund.store.calendars import differs
from fundledger.fund.store.macs import open_macs
from fundledger.fund.store.migrate import PACKAGE as FUND_PACKAGE
from fundledger.fund.store.queries import SQL as FUND
from fundledger.ledger.store.migrate import PACKAGE as LEDGER_PACKAGE
from fundledger.ledger.store.queries import SQL as LEDGER
from fundledger.security.keys import FileKeys, KeyFault
from fundledger.settings import Settings

SQL = load("fundledger.app.commands")
REDIS_MIN = 6
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
SERVER = ("Postgres", *DURABLE)
"""Names of the checks of a database server. For the fund database, these checks are printed only if that database has a
DSN of its own.
"""
SECRET_FILES = ("dev-token", *DEV_PERSON_FILES, "fund-token", "simulator-token", "account-dsn", "fund-dsn")
ANSWER_S = 3.0
LIMIT_S = 30.0
"""Time limit in seconds of all checks that wait for a server, taken together."""


class Symptom(msgspec.Struct):
    """Result of one check. `advice`: how to fix it if `well` is false."""

    what: str
    well: bool
    found: str
    advice: str = ""


async def run_doctor(settings: Settings, *, as_json: bool = False) -> int:
    """Print the checks. Return 0 if all pass, 1 otherwise."""
    symptoms = [_python(), _files(), *_data_dir(settings), *_ports(settings)]
    give_up_at = asyncio.get_running_loop().time() + LIMIT_S
    steps = {
        "embedded Postgres": _binaries,
        "databases": _databases,
        "Redis": _redis,
        "account service": _account_service,
    }
    for name, look in steps.items():
        try:
            async with asyncio.timeout_at(give_up_at):
                symptoms += await look(settings)
        except TimeoutError:
            advice = "find out which service does not respond, see postgres.log first; later checks were skipped"
            symptoms.append(Symptom(name, False, f"not known: the time limit of {LIMIT_S:.0f} s was reached", advice))
            break
    symptoms.append(_shared_memory())
    if as_json:
        print(msgspec.json.encode({"ok": all(s.well for s in symptoms), "checks": symptoms}).decode())
    for s in symptoms if not as_json else ():
        print(f"{'ok ' if s.well else 'BAD'}  {s.what:24} {s.found}" + ("" if s.well else f"\n     -> {s.advice}"))
    return 0 if all(s.well for s in symptoms) else 1


def _python() -> Symptom:
    version = ".".join(map(str, sys.version_info[:3]))
    how = "with" if _has_profile_guided_optimisation() else "without"
    found = f"{version}, built {how} profile-guided optimisation"
    return Symptom("Python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _has_profile_guided_optimisation() -> bool:
    """Return whether the build record of the interpreter shows profile-guided optimisation.

    Debian builds Python with this optimisation, but removes the option from the record. So a compiler flag is also
    checked.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return "--enable-optimizations" in arguments or sysconfig.get_config_var("PGO_PROF_USE_FLAG") == ""


def _files() -> Symptom:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Symptom("open files", soft >= 4096, f"limit {soft}", "raise the limit: ulimit -n 65536")


def _data_dir(settings: Settings) -> list[Symptom]:
    folder = settings.data_dir
    if not folder.exists():
        free, needed = free_mb(folder), needed_mb(settings.postgres_memory_mb == 0)
        advice = f"free disk space, or set FUNDLEDGER_DATA_DIR to a larger disk: a new ledger needs {needed} MB"
        return [
            Symptom("data directory", True, f"{folder} (created on first start)"),
            Symptom("free disk space", free >= needed, f"{free} MB", advice),
        ]
    free = free_mb(folder)
    symptoms = [
        Symptom(
            "data directory",
            os.access(folder, os.W_OK),
            str(folder),
            "make the directory writable, or set FUNDLEDGER_DATA_DIR",
        ),
        Symptom("free disk space", free > 2048, f"{free} MB", "free disk space: Postgres stops when the disk is full"),
    ]
    for path in [*sorted((folder / "keys").glob("*.key")), *(folder / name for name in SECRET_FILES)]:
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            advice = f"chmod 600 {path}, and replace the secret: other users may have read it"
            symptoms.append(Symptom(path.name, not mode & 0o077, f"mode {mode:04o}", advice))
    return symptoms


def _shared_memory() -> Symptom:
    """Report the free shared memory. This check never fails, because Postgres can use files instead."""
    room = room_mb()
    found = f"{room} MB in /dev/shm"
    return Symptom("shared memory", True, found if room >= NEEDED_MB else f"{found}: files are used instead")


def _ports(settings: Settings) -> list[Symptom]:
    ports = {"port": settings.port}
    if settings.fund == "on":
        ports["fund port"] = settings.fund_port
        if not settings.channels:
            ports["simulator port"] = settings.simulator_port
    symptoms = []
    for what, port in ports.items():
        with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
            probe.settimeout(1)
            taken = probe.connect_ex((settings.host, port)) == 0
        symptoms.append(Symptom(what, True, f"{port} {'is in use' if taken else 'is free'}"))
    return symptoms


async def _binaries(settings: Settings) -> list[Symptom]:
    if settings.account_dsn and (settings.fund_dsn or settings.fund == "off"):
        return [Symptom("embedded Postgres", True, "not used: FUNDLEDGER_ACCOUNT_DSN is set")]
    try:
        found = await EmbeddedPostgres(settings.data_dir, settings.postgres_memory_mb).version()
    except (PostgresFault, OSError) as fault:
        return [Symptom("embedded Postgres", False, "does not run", str(fault))]
    return [Symptom("embedded Postgres", True, found)]


async def _databases(settings: Settings) -> list[Symptom]:
    if not settings.account_dsn and not (settings.data_dir / "postgres").exists():
        return [Symptom("account database", True, "not created yet: created on first start")]
    try:
        async with databases(settings) as dsns:
            symptoms = await _database("account database", dsns.account, (LEDGER_PACKAGE, LEDGER, "schema"))
            if dsns.fund is not None:
                fund = await _database("fund database", dsns.fund, (FUND_PACKAGE, FUND, "fund schema"))
                symptoms += [s for s in fund if settings.fund_dsn or s.what not in SERVER]
                symptoms += await _calendar(settings, dsns.fund)
            elif settings.fund == "on":
                symptoms.append(Symptom("fund database", True, "not created yet: created when `serve` starts"))
            return symptoms
    except OtherDatabase as error:
        return [Symptom("database and keys", False, "do not belong together", str(error))]
    except (OSError, CannotServe) as error:
        return [Symptom("account database", False, "does not answer", str(error))]


async def _calendar(settings: Settings, dsn: str) -> list[Symptom]:
    """Compare the calendar of the fund database with that of the account service."""
    advice = "restore the settings of the account service, or run: fundledger calendar adopt"
    try:
        timezone, cut = await account_calendar(settings)
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            macs = await open_macs(connection, FileKeys(keys_folder(settings.data_dir, FUND_DATABASE)))
        finally:
            await connection.close()
    except asyncpg.UndefinedTableError:
        # The check of the schema reports that a migration is missing.
        return []
    except (CannotServe, KeyFault, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        return [Symptom("calendar", False, f"not known: {error or type(error).__name__}", "see the other checks")]
    if not macs.days.is_recorded:
        return [Symptom("calendar", True, f"not recorded yet; account service: {timezone}, cut {cut_text(cut)}")]
    found, is_same = macs.days.current.shown, not differs(macs.days, timezone, cut)
    if not is_same:
        found = f"{found}; account service: {timezone}, cut {cut_text(cut)}"
    return [Symptom("calendar", is_same, found, advice)]


async def _database(what: str, dsn: str, schema: tuple[str, Mapping[str, str], str]) -> list[Symptom]:
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            return [*await _server(connection), await _schema(connection, *schema)]
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TimeoutError) as error:
        return [Symptom(what, False, "does not answer", str(error) or type(error).__name__)]


async def _account_service(settings: Settings) -> list[Symptom]:
    if settings.fund == "off" or not settings.account_url:
        return []
    advice = "start it, or set FUNDLEDGER_ACCOUNT_URL; it must accept the token in fund-token as the module fund"
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{settings.account_url}/readyz") as answer,
        ):
            found = f"{settings.account_url} answers {answer.status}"
            return [Symptom("account service", answer.status == HTTPStatus.OK, found, advice)]
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        found = f"{settings.account_url} does not answer: {error or type(error).__name__}"
        return [Symptom("account service", False, found, advice)]


async def _redis(settings: Settings) -> list[Symptom]:
    if not settings.redis_url:
        try:
            found = await EmbeddedValkey(settings.data_dir).version()
        except ValkeyFault as fault:
            return [Symptom("embedded Valkey", False, "does not run", str(fault))]
        return [Symptom("embedded Valkey", True, found)]
    symptoms = [Symptom("embedded Valkey", True, "not used: FUNDLEDGER_REDIS_URL is set")]
    try:
        server = await ask(settings.redis_url)
    except ValkeyFault as fault:
        return [*symptoms, Symptom("Redis", False, "does not answer", str(fault))]
    return [
        *symptoms,
        Symptom("Redis", server.major >= REDIS_MIN, f"{server.name} {server.version}", f"use {REDIS_MIN} or newer"),
        Symptom(
            "maxmemory-policy",
            server.eviction == "noeviction",
            server.eviction,
            "set noeviction: each evicted counter grants an additional burst",
        ),
    ]


async def _server(connection: "asyncpg.Connection[asyncpg.Record]") -> list[Symptom]:
    server = {row["name"]: row["setting"] for row in await connection.fetch(SQL["durability"])}
    version = int(server["server_version_num"])
    symptoms = [
        Symptom("Postgres", version >= 180000, f"{version // 10000}.{version % 10000}", "use Postgres 18 or newer")
    ]
    for name in DURABLE:
        well = server[name] not in ("off", "local")
        symptoms.append(Symptom(name, well, server[name], "enable it: without it, a crash loses acknowledged data"))
    return symptoms


async def _schema(
    connection: "asyncpg.Connection[asyncpg.Record]", package: str, statements: Mapping[str, str], what: str
) -> Symptom:
    try:
        applied = {row["number"] for row in await connection.fetch(statements["migrations_applied"])}
    except asyncpg.UndefinedTableError:
        applied = set()
    missing = [name for number, name, _ in migrations(package) if number not in applied]
    found = "up to date" if not missing else f"missing {', '.join(missing)}"
    return Symptom(what, not missing, found, "run: fundledger migrate")
