"""Feeds on a server with several databases: a feed waits for transactions of its database only, also prepared ones."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from fundledger.app.host.postgres.server import EmbeddedPostgres
from fundledger.outbox import watermark as horizon
from fundledger.outbox.watermark import FUND, VisibilityWatermark, any_precedes
from tests.support.database import Databases
from tests.support.orders import an_order
from tests.support.running import short_folder
from tests.support.waiting import eventually

Pool = asyncpg.Pool


class TwoPhase(EmbeddedPostgres):
    """A Postgres that accepts prepared transactions, and does not wait for the disk."""

    def _options(self, folder: Path) -> dict[str, str]:
        return {**super()._options(folder), "fsync": "off", "max_prepared_transactions": "8"}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[Databases]:
    folder = short_folder()
    postgres = TwoPhase(folder, memory_mb=128)
    await postgres.start()
    try:
        yield Databases(postgres, folder / "postgres.log")
    finally:
        await postgres.stop()


@pytest.fixture
async def dsns(server: Databases) -> AsyncIterator[tuple[str, str]]:
    """Create two fund databases on one server."""
    one, other = await server.new_fund(), await server.new_fund()
    yield one, other
    for dsn in (one, other):
        await server.drop(dsn)


@pytest.fixture
async def pool(dsns: tuple[str, str]) -> AsyncIterator[Pool]:
    async with asyncpg.create_pool(dsns[0], min_size=1, max_size=12) as pool:
        yield pool


@pytest.fixture
async def line(dsns: tuple[str, str]) -> AsyncIterator[VisibilityWatermark]:
    line = VisibilityWatermark(dsns[0], FUND, "test")
    yield line
    line.close()


@contextlib.asynccontextmanager
async def open_elsewhere(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Open a transaction that has written in another database, and keep it open."""
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    await an_order(connection)
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def test_a_transaction_of_another_database_holds_up_nothing(
    pool: Pool, line: VisibilityWatermark, dsns: tuple[str, str]
) -> None:
    async with open_elsewhere(dsns[1]):
        seq = await an_order(pool)
        await eventually(line.look, "it is safe")
        assert line.safe == seq
        assert line.lag_s == 0


async def test_a_prepared_transaction_of_another_database_holds_up_nothing(
    pool: Pool, line: VisibilityWatermark, dsns: tuple[str, str]
) -> None:
    other = await asyncpg.connect(dsns[1])
    await other.execute("BEGIN")
    await an_order(other)
    await other.execute("PREPARE TRANSACTION 'elsewhere'")
    try:
        seq = await an_order(pool)
        await eventually(line.look, "it is safe")
        assert line.safe == seq
    finally:
        await other.execute("ROLLBACK PREPARED 'elsewhere'")
        await other.close()


async def test_a_late_commit_of_this_database_is_waited_for_beside_one_of_another(
    pool: Pool, line: VisibilityWatermark, dsns: tuple[str, str]
) -> None:
    async with open_elsewhere(dsns[1]), pool.acquire() as late:
        async with late.transaction():
            first = await an_order(late)
            second = await an_order(pool)
            for _ in range(5):
                assert await line.look() is False
            assert line.safe < first < second
            assert line.lag_s > 0
        await eventually(line.look, "it has ended")
        assert line.safe == second
        assert line.lag_s == 0


async def test_a_prepared_transaction_of_this_database_is_waited_for(
    pool: Pool, line: VisibilityWatermark, dsns: tuple[str, str]
) -> None:
    async with open_elsewhere(dsns[1]), pool.acquire() as connection:
        await connection.execute("BEGIN")
        first = await an_order(connection)
        assert await line.look() is False
        await connection.execute("PREPARE TRANSACTION 'here'")
        second = await an_order(pool)
        for _ in range(5):
            assert await line.look() is False
        assert line.safe < first < second
        await connection.execute("COMMIT PREPARED 'here'")
        await eventually(line.look, "it has ended")
        assert line.safe == second


@pytest.mark.parametrize("forgotten", ["running", "prepared"])
async def test_without_one_of_the_two_lists_a_late_commit_would_be_lost(
    pool: Pool, line: VisibilityWatermark, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    """The broken twin ignores one of the lists."""
    monkeypatch.setitem(horizon.SQL, forgotten, "SELECT 1::bigint AS xid WHERE false")
    async with open_elsewhere(dsns[1]), pool.acquire() as connection:
        await connection.execute("BEGIN")
        seq = await an_order(connection)
        if forgotten == "prepared":
            await connection.execute("PREPARE TRANSACTION 'twin'")
        await eventually(line.look, "it looks safe")
        assert line.safe >= seq, "and so its event would be lost"
        await connection.execute("ROLLBACK PREPARED 'twin'" if forgotten == "prepared" else "ROLLBACK")


async def test_what_moves_from_a_connection_to_the_prepared_ones_is_never_missed(
    pool: Pool, dsns: tuple[str, str]
) -> None:
    """Writers commit, roll back, prepare, and end prepared transactions at random moments.

    A transaction of another database is open meanwhile. No row appears below a watermark that a reader has got.
    """
    chance = random.Random(20)
    seen: set[int] = set()
    line = VisibilityWatermark(dsns[0], FUND, "test")
    written = passed = 0

    async def write(writer: int) -> None:
        nonlocal written
        async with pool.acquire() as connection:
            for turn in range(25):
                name = f"w{writer}_{turn}"
                await connection.execute("BEGIN")
                if chance.random() < 0.3:
                    await connection.execute("SET LOCAL synchronous_commit = off")
                for _ in range(chance.randint(1, 3)):
                    await an_order(connection)
                how = chance.random()
                if how < 0.2:
                    await connection.execute("ROLLBACK")
                elif how < 0.6:
                    await connection.execute("COMMIT")
                else:
                    await connection.execute(f"PREPARE TRANSACTION '{name}'")
                    for _ in range(chance.randint(0, 3)):
                        await pool.fetchval("SELECT 1")
                    await connection.execute(f"{chance.choice(('COMMIT', 'ROLLBACK'))} PREPARED '{name}'")
                written += 1

    async with open_elsewhere(dsns[1]):
        writers = asyncio.gather(*(write(writer) for writer in range(6)))
        while not writers.done():
            await line.look()
            safe = line.safe
            rows = await pool.fetch("SELECT seq FROM fund.events WHERE seq <= $1", safe)
            late = [row["seq"] for row in rows if row["seq"] not in seen and row["seq"] <= passed]
            assert late == [], "it appeared behind a mark that was passed"
            seen.update(row["seq"] for row in rows)
            passed = safe
        await writers
        await eventually(line.look, "all is safe")
        total = await pool.fetchval("SELECT count(*) FROM fund.events")
        assert len(await pool.fetch("SELECT seq FROM fund.events WHERE seq <= $1", line.safe)) == total > 50
        assert written == 150
    line.close()


class Between(VisibilityWatermark):
    """A watermark that runs `between` once, after the first of the two lists was read."""

    between = "SELECT 1"
    pool: Pool

    async def _open(self) -> "Between.Connection":  # type: ignore[override]
        return Between.Connection(self, await super()._open())

    class Connection:
        def __init__(self, line: "Between", connection: asyncpg.Connection) -> None:
            self._line = line
            self._connection = connection
            self.fetchval, self.fetchrow, self.execute = connection.fetchval, connection.fetchrow, connection.execute

        async def fetch(self, statement: str) -> list[asyncpg.Record]:
            rows = await self._connection.fetch(statement)
            between, self._line.between = self._line.between, "SELECT 1"
            await self._line.writer.execute(between)
            return rows

    writer: asyncpg.Connection


@pytest.mark.parametrize("reversed_", [False, True])
async def test_the_order_of_the_two_lists_matters(
    pool: Pool, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch, reversed_: bool
) -> None:
    """A transaction is prepared between the two reads.

    The broken twin reads the lists in the opposite order, and the transaction is in neither of them.
    """
    if reversed_:
        running, prepared = horizon.SQL["running"], horizon.SQL["prepared"]
        monkeypatch.setitem(horizon.SQL, "running", prepared)
        monkeypatch.setitem(horizon.SQL, "prepared", running)
    line = Between(dsns[0], FUND, "test")
    async with open_elsewhere(dsns[1]), pool.acquire() as line.writer:
        await line.writer.execute("BEGIN")
        seq = await an_order(line.writer)
        line.between = "PREPARE TRANSACTION 'between'"
        await line.look()
        assert line.between == "SELECT 1"
        if not reversed_:
            assert await line.look() is False
        else:
            await eventually(line.look, "it looks safe")
        assert (line.safe >= seq) is reversed_
        await line.writer.execute("COMMIT PREPARED 'between'")
    line.close()


async def test_nothing_is_reported_that_a_crash_could_undo(
    pool: Pool, line: VisibilityWatermark, dsns: tuple[str, str]
) -> None:
    """A commit did not wait for the disk. Its WAL record is flushed before the watermark passes it."""
    async with open_elsewhere(dsns[1]), pool.acquire() as connection:
        for _ in range(20):
            await connection.execute("SET synchronous_commit = off")
            seq = await an_order(connection)
            end = await connection.fetchval("SELECT pg_current_wal_insert_lsn()")
            await connection.execute("SET synchronous_commit = on")
            await eventually(line.look, "it is safe")
            assert line.safe >= seq
            assert await connection.fetchval("SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn", end)


@pytest.mark.parametrize(
    ("one", "before", "precedes"),
    [
        (5, 6, True),
        (6, 6, False),
        (7, 6, False),
        (0xFFFF_FFFF, (1 << 32) + 3, True),
        (3, (1 << 32) + 3, False),
        (4, (1 << 32) + 3, False),
        (2, (7 << 32) + 0xFFFF_FFF0, False),
        (0xFFFF_FFEF, (7 << 32) + 0xFFFF_FFF0, True),
    ],
)
def test_ids_of_32_bits_are_compared_around_their_end(one: int, before: int, precedes: bool) -> None:
    assert any_precedes([one], before) is precedes
