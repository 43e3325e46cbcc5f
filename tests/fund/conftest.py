"""A worker of the fund service, a database for all tests of channels, and a bank for payouts."""

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.fund.bank import RunningBank, here
from tests.support.database import Databases
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    """Return a worker of the fund service. At the end of the test, the books of both services are proved."""
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        yield worker
    await prove_fund(fund_database, service.dsn, worker.salt)


@pytest.fixture(scope="session")
async def shared_pool(postgres: Databases) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    dsn = await postgres.new_fund()
    async with asyncpg.create_pool(dsn, min_size=4, max_size=4) as pool:
        yield pool
    await postgres.drop(dsn)


@pytest.fixture
async def fund_pool(shared_pool: "asyncpg.Pool[asyncpg.Record]") -> "asyncpg.Pool[asyncpg.Record]":
    """Return a pool on one database for all tests of channels. Each test reads only the rows of its own channel."""
    here.next()
    return shared_pool


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[RunningBank]:
    """Start the simulator in this process, on a free port."""
    async with RunningBank(tmp_path) as bank:
        yield bank
