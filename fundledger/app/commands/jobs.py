"""CLI commands `fundledger jobs list` and `run`: background jobs, with or without a running service."""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Final, TypeAlias

import asyncpg
import msgspec

from fundledger.app.account.jobs.table import NAMES, jobs_of, open_books, open_context
from fundledger.app.host.postgres.databases import databases
from fundledger.app.host.preflight import CannotServe
from fundledger.app.host.valkey import EmbeddedValkey
from fundledger.jobs.job import SQL, Job
from fundledger.jobs.run_once import Taken, run_once
from fundledger.jobs.watch import Standing, standings
from fundledger.settings import Settings, url_of

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
FAILED: Final = 1
_AWAY: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


async def run_list(settings: Settings, *, as_json: bool = False) -> int:
    """Print the background jobs of both databases. Return 1 if one is overdue. Raises CannotServe."""
    async with _dsns(settings) as dsns:
        seen = [(database, one) for database, dsn in dsns.items() for one in await _read(database, dsn)]
    failed = FAILED if any(one.overdue for _, one in seen) else 0
    if as_json:
        jobs = [{"database": database, **msgspec.structs.asdict(one)} for database, one in seen]
        print(msgspec.json.encode({"ok": not failed, "jobs": jobs}).decode())
        return failed
    titles = ("DATABASE", "NAME", "HOLDER", "SINCE", "LAST SUCCESS", "LAG", "RUNS", "FAILED", "STATE")
    lines = [titles, *(_line(database, one) for database, one in seen)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(titles))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for _, one in seen:
        if one.last_error is not None:
            print(f"{one.name}: {one.last_error}")
    return failed


async def run_job(settings: Settings, name: str) -> int:
    """Run a background job once and print the result. Return 1 if the run fails or another process holds the lease.

    Raises CannotServe.
    """
    async with _dsns(settings) as dsns:
        if name in NAMES:
            return await _run(name, lambda: _of_account(settings, dsns["account"]))
        if "fund" in dsns:
            return await _run(name, lambda: _of_fund(settings, dsns["fund"]))
    raise CannotServe(f"no background job {name} can be run manually; available: {', '.join(NAMES)}")


@asynccontextmanager
async def _dsns(settings: Settings) -> AsyncIterator[dict[str, str]]:
    """Yield the DSNs of the existing databases by name. Raises CannotServe."""
    async with databases(settings) as dsns:
        found = {"account": dsns.account, "fund": dsns.fund}
        yield {name: dsn for name, dsn in found.items() if dsn is not None}


async def _read(name: str, dsn: str) -> list[Standing]:
    try:
        connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "fundledger jobs"})
        try:
            return standings(await connection.fetch(SQL["look"]))
        finally:
            await connection.close()
    except _AWAY as error:
        raise CannotServe(f"cannot read the background jobs of the {name} database: {error}") from None


@asynccontextmanager
async def _of_account(settings: Settings, dsn: str) -> AsyncIterator[tuple[Pool, list[Job]]]:
    context = await open_context(settings, dsn, await open_books(settings, dsn))
    try:
        yield context.pool, jobs_of(context)
    finally:
        await context.pool.close()


@asynccontextmanager
async def _of_fund(settings: Settings, dsn: str) -> AsyncIterator[tuple[Pool, list[Job]]]:
    from fundledger.app.fund.channel_tokens import channel_tokens
    from fundledger.app.fund.config import FundProcessConfig
    from fundledger.app.fund.jobs import context_of, jobs_of

    token = settings.data_dir / "fund-token"
    url = settings.account_url or url_of(settings.host, settings.port)
    config = FundProcessConfig(
        0,
        dsn,
        str(settings.data_dir),
        settings.model_dump_json(),
        settings.redis_url or EmbeddedValkey(settings.data_dir).url,
        url,
        token.read_text().strip() if token.exists() else "",
        settings.channel_urls(),
        channel_tokens=channel_tokens(settings),
    )
    async with context_of(config) as context:
        yield context.pool, jobs_of(context)


async def _run(name: str, made: Callable[[], AbstractAsyncContextManager[tuple[Pool, list[Job]]]]) -> int:
    holder = f"{socket.gethostname()}:{os.getpid()}:operator"
    try:
        async with made() as (pool, jobs):
            found = next((one for one in jobs if one.name == name), None)
            names = ", ".join(sorted({*NAMES, *(one.name for one in jobs)}))
            outcome = None if found is None else await run_once(pool, found, holder)
    except Exception as error:
        print(f"{name}: failed: {type(error).__name__}: {error}")
        return FAILED
    if outcome is None:
        raise CannotServe(f"no background job {name} can be run manually; available: {names}")
    if isinstance(outcome, Taken):
        print(f"{name}: already running, lease owner {outcome.holder}")
        return FAILED
    print(f"{name}: {outcome.done} done, lag {outcome.lag_s:.1f} s{', there is more' if outcome.more else ''}")
    return 0


def _line(database: str, one: Standing) -> tuple[str, ...]:
    failing = "failing" if one.last_error is not None else "late" if one.late else "well"
    state = "overdue" if one.overdue else failing
    return (
        database,
        one.name,
        one.holder or "-",
        _ago(one.taken_at) if one.holder else "-",
        _ago(one.last_success_at),
        f"{one.lag_s:.1f} s",
        str(one.runs),
        str(one.failures),
        state,
    )


def _ago(moment: datetime | None) -> str:
    return "never" if moment is None else f"{max(0.0, (datetime.now(UTC) - moment).total_seconds()):.0f} s ago"
