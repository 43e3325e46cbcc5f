"""How a verification reads: one snapshot of a database, row by row."""

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from fundledger.database.statements import load

SQL: Final = load("fundledger.reconciliation")
Connection = asyncpg.Connection
Rows = AsyncIterator[asyncpg.Record]


@contextlib.asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Connection]:
    """A connection on which each statement reads what stands by then. Raises what asyncpg raises."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "fundledger verify"})
    try:
        yield connection
    finally:
        await connection.close()


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
