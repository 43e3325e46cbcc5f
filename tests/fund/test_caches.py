"""The cache of a worker never goes back: a read that ends late does not replace the rows of a read that began after it."""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from fundledger.fund.model.person import Role
from fundledger.fund.store.channels import Channels
from fundledger.fund.store.persons import Persons, add_person
from tests.support.fund_ids import MACS

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class LatePool:
    """A pool whose first answer is withheld until `arrive` is set."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._reads = 0
        self.read = asyncio.Event()
        self.arrive = asyncio.Event()

    async def fetch(self, *args: Any) -> Any:
        first = self._reads == 0
        self._reads += 1
        rows = await self._pool.fetch(*args)
        if first:
            self.read.set()
            await self.arrive.wait()
        return rows


class OfPersons:
    def __init__(self, pool: Any, late: Any) -> None:
        self.pool, self.name = pool, f"n{uuid.uuid4().hex[:10]}"
        self.cache = Persons(late, MACS)

    async def change(self) -> None:
        assert await add_person(self.pool, MACS, self.name, [Role.AUDITOR], "tests", NOW, self.name)

    def has_it(self) -> bool:
        return self.cache.identity(f"Bearer {self.name}") == f"person:{self.name}"


class OfChannels:
    def __init__(self, pool: Any, late: Any) -> None:
        self.pool, self.name = pool, f"n{uuid.uuid4().hex[:10]}"
        self.cache = Channels(late, MACS, {})

    async def change(self) -> None:
        assert await Channels(self.pool, MACS, {self.name: True}).get(self.name, "CNY")

    def has_it(self) -> bool:
        return self.cache.known(self.name, "CNY") is not None


@pytest.mark.parametrize("of", [OfPersons, OfChannels])
async def test_a_read_that_ends_late_replaces_no_later_one(
    fund_pool: "asyncpg.Pool[asyncpg.Record]", of: type[OfPersons] | type[OfChannels]
) -> None:
    late = LatePool(fund_pool)
    case = of(fund_pool, late)
    old = asyncio.create_task(case.cache.look())
    await late.read.wait()
    await case.change()
    await case.cache.look()
    assert case.has_it()
    late.arrive.set()
    await old
    assert case.has_it()
