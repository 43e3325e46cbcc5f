"""A fund database, and a bank to pay out through."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.fund.migrate import migrate
from tests.fund.bank import RunningBank, here
from tests.support.database import Databases


@pytest.fixture(scope="session")
async def fund_template(postgres: Databases) -> str:
    dsn = await postgres.empty()
    connection = await asyncpg.connect(dsn)
    try:
        await migrate(connection)
    finally:
        await connection.close()
    return dsn.partition("@/")[2].partition("?")[0]


@pytest.fixture
async def fund_database(postgres: Databases, fund_template: str) -> AsyncIterator[str]:
    """The DSN of a migrated, empty fund database."""
    dsn = await postgres.empty(fund_template)
    yield dsn
    await postgres.drop(dsn)


@pytest.fixture(scope="session")
async def shared_pool(postgres: Databases, fund_template: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    dsn = await postgres.empty(fund_template)
    async with asyncpg.create_pool(dsn, min_size=4, max_size=4) as pool:
        yield pool
    await postgres.drop(dsn)


@pytest.fixture
async def fund_pool(shared_pool: "asyncpg.Pool[asyncpg.Record]") -> "asyncpg.Pool[asyncpg.Record]":
    """Of one database for all tests of channels: each has a channel of its own, so what it asks for is its own."""
    here.next()
    return shared_pool


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[RunningBank]:
    """The simulator in this process, on a free port."""
    async with RunningBank(tmp_path) as bank:
        yield bank
