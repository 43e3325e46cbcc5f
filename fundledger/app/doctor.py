"""`fundledger doctor`: what is wrong with this installation, and what to do about it."""

import os
import resource
import shutil
import socket
import stat
import sys

import asyncpg
import msgspec

from fundledger.app.claims import CannotServe
from fundledger.app.databases import database
from fundledger.app.postgres import EmbeddedPostgres, PostgresFault
from fundledger.app.settings import Settings
from fundledger.app.valkey import EmbeddedValkey, ValkeyFault, ask
from fundledger.database.migrations import migrations
from fundledger.database.statements import load
from fundledger.ledger.migrate import PACKAGE
from fundledger.ledger.statements import SQL as LEDGER

SQL = load("fundledger.app")
REDIS_MIN = 6


class Symptom(msgspec.Struct):
    """One thing that was looked at; `advice` says what to do when it is not well."""

    what: str
    well: bool
    found: str
    advice: str = ""


async def run_doctor(settings: Settings) -> int:
    """Prints what was looked at; 0 when all is well, 1 otherwise."""
    symptoms = [_python(), _files(), *_data_dir(settings), _port(settings), await _binaries(settings)]
    symptoms += await _database(settings)
    symptoms += await _redis(settings)
    for s in symptoms:
        print(f"{'ok ' if s.well else 'BAD'}  {s.what:24} {s.found}" + ("" if s.well else f"\n     -> {s.advice}"))
    return 0 if all(s.well for s in symptoms) else 1


def _python() -> Symptom:
    version = ".".join(map(str, sys.version_info[:3]))
    return Symptom("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer")


def _files() -> Symptom:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Symptom("open files", soft >= 4096, f"{soft} allowed", "raise it: ulimit -n 65536")


def _data_dir(settings: Settings) -> list[Symptom]:
    folder = settings.data_dir
    if not folder.exists():
        return [Symptom("data directory", True, f"{folder} (made on first start)")]
    free = shutil.disk_usage(folder).free >> 20
    symptoms = [
        Symptom(
            "data directory", os.access(folder, os.W_OK), str(folder), "make it writable, or set FUNDLEDGER_DATA_DIR"
        ),
        Symptom("free disk space", free > 2048, f"{free} MB", "free some: Postgres stops when the disk is full"),
    ]
    for path in [*sorted((folder / "keys").glob("*.key")), folder / "dev-token", folder / "account-dsn"]:
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            advice = f"chmod 600 {path}, and change the secret: others may have read it"
            symptoms.append(Symptom(path.name, not mode & 0o077, f"mode {mode:04o}", advice))
    return symptoms


def _port(settings: Settings) -> Symptom:
    with socket.socket() as probe:
        probe.settimeout(1)
        taken = probe.connect_ex((settings.host, settings.port)) == 0
    return Symptom("port", True, f"{settings.port} {'is being served' if taken else 'is free'}")


async def _binaries(settings: Settings) -> Symptom:
    if settings.account_dsn:
        return Symptom("embedded Postgres", True, "not used: FUNDLEDGER_ACCOUNT_DSN is set")
    try:
        found = await EmbeddedPostgres(settings.data_dir, settings.postgres_memory_mb).version()
    except (PostgresFault, OSError) as fault:
        return Symptom("embedded Postgres", False, "does not run", str(fault))
    return Symptom("embedded Postgres", True, found)


async def _database(settings: Settings) -> list[Symptom]:
    if not settings.account_dsn and not (settings.data_dir / "postgres").exists():
        return [Symptom("account database", True, "not there yet: made on first start")]
    try:
        async with database(settings) as dsn:
            connection = await asyncpg.connect(dsn, timeout=10)
            try:
                return await _server(connection)
            finally:
                await connection.close()
    except (OSError, CannotServe, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TimeoutError) as error:
        return [Symptom("account database", False, "does not answer", str(error))]


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
            "set noeviction: each count that is evicted gives a burst away",
        ),
    ]


async def _server(connection: "asyncpg.Connection[asyncpg.Record]") -> list[Symptom]:
    server = {row["name"]: row["setting"] for row in await connection.fetch(SQL["durability"])}
    version = int(server["server_version_num"])
    symptoms = [
        Symptom("Postgres", version >= 180000, f"{version // 10000}.{version % 10000}", "use Postgres 18 or newer")
    ]
    for name in ("fsync", "full_page_writes", "synchronous_commit"):
        well = server[name] not in ("off", "local")
        symptoms.append(
            Symptom(name, well, server[name], "switch it on: without it a crash loses what was acknowledged")
        )
    try:
        applied = {row["number"] for row in await connection.fetch(LEDGER["migrations_applied"])}
    except asyncpg.UndefinedTableError:
        applied = set()
    missing = [name for number, name, _ in migrations(PACKAGE) if number not in applied]
    found = "up to date" if not missing else f"missing {', '.join(missing)}"
    symptoms.append(Symptom("schema", not missing, found, "fundledger migrate"))
    return symptoms
