"""How a verification reads: one snapshot of a database, row by row, whatever the rows contain."""

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
"""Looks up `{number: (id, currency)}` of accounts."""

CONNECT_S: Final = 10.0
SETTINGS: Final = {
    "application_name": "fundledger verify",
    # Names and operators mean what Postgres ships: a setting of the role or the database may put others before them.
    "search_path": "pg_catalog",
    # A policy that hides rows is an error, not a smaller ledger.
    "row_security": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "TimeZone": "UTC",
}
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = date(2000, 1, 1).toordinal()


class BadDsn(Exception):
    """A DSN that names no database."""


class OutOfRange(NamedTuple):
    """A time or date that Python has no value for: `infinity`, before the year 1, after the year 9999. It has none of
    their methods: the check of its row fails, and that of no other row.
    """

    text: str

    def __str__(self) -> str:
        return self.text


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """A connection on which each statement reads what stands by then. Raises BadDsn and what asyncpg raises."""
    try:
        connection = await asyncpg.connect(dsn, timeout=CONNECT_S, server_settings=SETTINGS)
    except (ValueError, asyncpg.ClientConfigurationError) as error:
        raise BadDsn(f"a DSN cannot be used: {error}") from None
    try:
        await _read_anything(connection)
        yield connection
    finally:
        # A connection that is gone has nothing to close, and its loss is what is raised already.
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close()


async def _read_anything(connection: Connection) -> None:
    """Decode every value of a row: one that asyncpg cannot decode fails the whole fetch that it is in."""
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
        return OutOfRange(f"{value[0]} us after 2000-01-01, which is no time")


def _date(value: tuple[int]) -> object:
    try:
        return date.fromordinal(_EPOCH_DAY + value[0])
    except (ValueError, OverflowError):
        return OutOfRange(f"{value[0]} days after 2000-01-01, which is no date")


def _text(value: bytes) -> str:
    """Bytes that are no UTF-8 become lone surrogates, which no encoding accepts: no MAC verifies over them."""
    return value.decode("utf-8", "surrogateescape")


@contextlib.asynccontextmanager
async def snapshot(dsn: str) -> AsyncIterator[Connection]:
    """A connection on which everything is read as it stands now. Raises what asyncpg raises."""
    async with connected(dsn) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        # The first statement takes the snapshot, not the beginning of the transaction.
        await connection.execute(SQL["session"])
        yield connection


async def rows(connection: Connection, statement: str, *arguments: object) -> Rows:
    """The rows of a statement, a few thousand in memory at a time."""
    async for row in connection.cursor(statement, *arguments, prefetch=5000):
        yield row


def account_names(connection: Connection) -> Names:
    """Looks up `{number: (id, currency)}`, remembering a bounded number."""
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
