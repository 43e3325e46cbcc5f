"""Fixtures of the tests in this folder: one fund service that the tests share."""

from collections.abc import AsyncIterator

import pytest

from tests.support.database import Databases
from tests.support.fund_http import FundClient, a_fund_service
from tests.support.running import RunningService


@pytest.fixture(scope="package")
async def fund_url(
    postgres: Databases, service: RunningService, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    dsn = await postgres.new_fund()
    async with a_fund_service(dsn, tmp_path_factory.mktemp("fund"), service) as (_, url):
        yield url
    await postgres.drop(dsn)


@pytest.fixture
async def fund(fund_url: str) -> AsyncIterator[FundClient]:
    async with FundClient(fund_url) as client:
        yield client
