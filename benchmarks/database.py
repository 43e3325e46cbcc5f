"""Direct access of the benchmarks to Postgres: bare inserts, databases for reference servers, and rows that make a
ledger look old.
"""

import asyncio
import secrets
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import uvloop

from benchmarks.runs import Run, summary

CHUNK = 100_000
_SQL = {path.stem: path.read_text() for path in Path(__file__).with_name("sql").glob("*.sql")}


def with_database(dsn: str, name: str) -> str:
    """Return the DSN of another database on the same server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


def create_database(dsn: str, name: str) -> str:
    """Create an empty database on the same server. Return its DSN."""

    async def create() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(_SQL["create_database"].replace("NAME", name))
        finally:
            await connection.close()

    asyncio.run(create())
    return with_database(dsn, name)


def prepare_bare_inserts(dsn: str) -> str:
    """Create a database with the table of `bare_inserts`. Return its DSN."""
    bare = create_database(dsn, f"bare_{secrets.token_hex(4)}")

    async def prepare() -> None:
        connection = await asyncpg.connect(bare)
        try:
            await connection.execute(_SQL["bare_table"])
        finally:
            await connection.close()

    asyncio.run(prepare())
    return bare


def bare_inserts(dsn: str, seconds: float) -> Run:
    """Measure, on one connection, transactions that contain one insert each."""

    async def insert() -> Run:
        connection = await asyncpg.connect(dsn)
        latencies: list[int] = []
        try:
            statement = await connection.prepare(_SQL["bare_insert"])
            started = now = time.perf_counter_ns()
            while now < started + seconds * 1e9:
                before = time.perf_counter_ns()
                async with connection.transaction():
                    await statement.fetch(uuid.uuid4(), "merchant:1:available", 100)
                now = time.perf_counter_ns()
                latencies.append(now - before)
        finally:
            await connection.close()
        return Run("asyncpg", (now - started) / 1e9, len(latencies), 0, 0, **summary(latencies))

    return uvloop.run(insert())


def facts(dsn: str) -> tuple[str, int]:
    """Return `(version of the server, number of checkpoints so far)`."""

    async def read() -> tuple[str, int]:
        connection = await asyncpg.connect(dsn)
        try:
            version = await connection.fetchval(_SQL["server_version"])
            return str(version), int(await connection.fetchval(_SQL["checkpoints"]))
        finally:
            await connection.close()

    return asyncio.run(read())


async def moving_orders(dsn: str) -> int:
    """Count the orders of a fund database that are `posting`, and the withdrawals whose recorded end is not posted yet.

    Raises asyncpg's exceptions, OSError and TimeoutError.
    """
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        count: int = await connection.fetchval(_SQL["moving_orders"], timeout=10)
    finally:
        connection.terminate()
    return count


def fill(dsn: str, entries: int, advance: Callable[[int], None]) -> None:
    """Insert the entries of an old ledger and vacuum the tables. After each insert of `n` entries, call
    `advance(n)`.
    """

    async def load() -> None:
        connection = await asyncpg.connect(dsn, server_settings={"synchronous_commit": "off"})
        try:
            for first in range(0, entries // 2, CHUNK):
                last = min(first + CHUNK, entries // 2) - 1
                await connection.execute(_SQL["old_vouchers"], first, last)
                await connection.execute(_SQL["old_entries"], first, last)
                advance(2 * (last - first + 1))
            await connection.execute(_SQL["vacuum"])
            await connection.execute(_SQL["checkpoint"])
        finally:
            await connection.close()

    asyncio.run(load())


def slow_commits(dsn: str, milliseconds: int) -> None:
    """Delay each commit of the Postgres server, as a slow disk or a synchronous standby would."""

    async def change() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(_SQL["slow_commits"].replace("MICROSECONDS", str(milliseconds * 1000)))
            await connection.execute(_SQL["slow_alone"])
            await connection.execute(_SQL["reload"])
        finally:
            await connection.close()

    asyncio.run(change())
