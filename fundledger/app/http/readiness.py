"""Readiness of an HTTP worker for `GET /readyz`: whether its database takes reads and writes."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import asyncpg

from fundledger.database.failures import PASSING, severity
from fundledger.database.statements import load

SQL: Final = load("fundledger.app.http")
WRITE_EVERY_S: Final = 1.0
_MOMENTARY: Final = (asyncpg.QueryCanceledError, asyncpg.LockNotAvailableError)
_AWAY: Final = (*PASSING, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)


class Readiness:
    """Probes of the database, made on request. All callers share at most one read and one write in progress.

    No statement is cancelled, because cancelling a statement would wait for the server. The write is tried at most once
    in WRITE_EVERY_S seconds. It puts 2 MB into a temporary file and flushes a WAL record. Like a growing table, the
    temporary file needs free disk space. A failed write makes the worker unready. A slow write does not, because it
    means that the disk is busy, not that the disk is full.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._read: asyncio.Task[str | None] | None = None
        self._write: asyncio.Task[str | None] | None = None
        self._wrote_at = float("-inf")
        self._cannot_write: str | None = None

    async def why_not(self, within_s: float) -> str | None:
        """Return the reason why the worker is not ready, or None if it is ready. Returns within `within_s` seconds."""
        read = self._read = self._running_or_new(self._read, self._try_read)
        write = self._write
        if write is None or (write.done() and time.monotonic() - self._wrote_at > WRITE_EVERY_S):
            write = self._write = self._running_or_new(write, self._try_write)
        await asyncio.wait([read, write], timeout=within_s)
        if not read.done():
            return "the database does not answer"
        return read.result() or self._cannot_write

    def _running_or_new(
        self, before: "asyncio.Task[str | None] | None", attempt: Callable[[], Coroutine[Any, Any, str | None]]
    ) -> "asyncio.Task[str | None]":
        if before is not None and not before.done():
            return before
        return asyncio.get_running_loop().create_task(attempt())

    async def _try_read(self) -> str | None:
        try:
            await self._pool.fetchval(SQL["ping"])
        except _AWAY:
            return "the database does not answer"
        return None

    async def _try_write(self) -> str | None:
        try:
            async with self._pool.acquire() as connection, connection.transaction():
                await connection.execute(SQL["little_memory"])
                read_only = await connection.fetchval(SQL["try_to_write"])
            self._cannot_write = "the database takes no writes: it is read only" if read_only else None
        except asyncpg.PostgresError as error:
            # If an error ends the connection or passes in a moment, it does not show that writes fail.
            counts = severity(error) == "ERROR" and not isinstance(error, _MOMENTARY)
            # A full disk may also prevent new connections, while open connections still read.
            counts = counts or isinstance(error, asyncpg.DiskFullError)
            self._cannot_write = f"the database takes no writes: {type(error).__name__}" if counts else None
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError):
            # The read probe reports these errors.
            self._cannot_write = None
        self._wrote_at = time.monotonic()
        return self._cannot_write
