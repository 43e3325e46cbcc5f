"""Reconciliation: database access. One snapshot is read row by row, and no content of a row makes a read fail."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import asyncpg

from fundledger.database.statements import load

SQL: Final = load("fundledger.reconciliation")
Connection = asyncpg.Connection
Rows = AsyncIterator[asyncpg.Record]
Names = Callable[[list[int]], Awaitable[dict[int, tuple[str, str]]]]
"""A function that looks up accounts by account number: it returns `{number: (id, currency)}`."""

CONNECT_S: Final = 10.0
SETTINGS: Final = {
    "application_name": "fundledger verify",
    # Only built-in names and operators may be found. A setting of the role or the database may put other schemas first.
    "search_path": "pg_catalog",
    # With this setting, a row security policy that would hide rows causes an error instead. So no row is missing
    # unnoticed.
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "TimeZone": "UTC",
}
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(2000, 1, 1).toordinal()


class BadDsn(Exception):
    """The DSN of a database cannot be used."""


class OutOfRange(NamedTuple):
    """A time or date outside Python's range: `infinity`, or a time before the year 1 or after the year 9999.

    This value has no methods of a time or date. So only the check of its row fails, and not the whole fetch.
    """

    text: str

    def __str__(self) -> str:
        return self.text


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """Open a connection on which each query reads the current data. Raises BadDsn, and what asyncpg raises."""
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_S, server_settings=SETTINGS)
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise BadDsn(f"a DSN cannot be used: {error}") from None
    try:
        await _read_anything(connection)
        yield connection
    finally:
        # A query has already raised the loss of the connection.
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close()


async def _read_anything(connection: Connection) -> None:
    """Install decoders that accept every value. Without them, a single value that asyncpg cannot decode makes the whole
    fetch fail.
    """
    decoders: dict[str, Callable[[Any], object]] = {"timestamptz": _moment, "date": _date}
    for name, decoder in decoders.items():
        await connection.set_type_codec(
            name, schema="pg_catalog", encoder=lambda value: value, decoder=decoder, format="tuple"
        )
    for name in ("text", "varchar", "bpchar", "name", "json"):
        await connection.set_type_codec(name, schema="pg_catalog", encoder=str.encode, decoder=_text, format="binary")


def _moment(value: tuple[int]) -> object:
    try:
        return _EPOCH + timedelta(microseconds=value[0])
    except OverflowError:
        return OutOfRange(f"{value[0]} us after 2000-01-01, which is out of range")


def _date(value: tuple[int]) -> object:
    try:
        return date.fromordinal(_EPOCH_DAY + value[0])
    except (ValueError, OverflowError):
        return OutOfRange(f"{value[0]} days after 2000-01-01, which is out of range")


def _text(value: bytes) -> str:
    """Decode UTF-8. Invalid bytes become lone surrogates. A text with lone surrogates cannot be encoded, so no MAC
    matches it.
    """
    return value.decode("utf-8", "surrogateescape")


@contextlib.asynccontextmanager
async def snapshot(dsn: str) -> AsyncIterator[Connection]:
    """Open a connection that reads one snapshot, which is taken now. Raises BadDsn, and what asyncpg raises."""
    async with connected(dsn) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        # BEGIN takes no snapshot: the first query takes the snapshot.
        await connection.execute(SQL["session"])
        yield connection


async def rows(connection: Connection, statement: str, *arguments: object) -> Rows:
    """Yield the rows of a query. At most a few thousand rows are in memory at a time."""
    async for row in connection.cursor(statement, *arguments, prefetch=5000):
        yield row


def account_names(connection: Connection) -> Names:
    """Return a function that looks up accounts by account number. It has a bounded cache."""
    known: dict[int, tuple[str, str]] = {}

    async def names(numbers: list[int]) -> dict[int, tuple[str, str]]:
        missing = [number for number in numbers if number not in known]
        if missing:
            if len(known) > 200_000:
                known.clear()
                missing = numbers
            for row in await connection.fetch(SQL["account_names"], missing):
                known[row["number"]] = (row["id"], row["currency"])
        return known

    return names
