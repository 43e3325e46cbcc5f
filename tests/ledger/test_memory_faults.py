"""Faults while a batch is posted from the write cache: it is posted once, and never upon rows that have changed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import asyncpg
import pytest
from asyncpg.prepared_stmt import PreparedStatement

from fundledger.faults import GuardHit
from fundledger.ledger import optimistic as unlocked
from fundledger.ledger.model import clock
from fundledger.ledger.rules import decide as rules
from tests.support.halfway import is_waiting_for_a_lock
from tests.support.ledger import Ledger, code, codes, new_id, posted, transfer
from tests.support.waiting import eventually


async def believed(ledger: Ledger) -> tuple:
    """Open two accounts, and post until the lane decides from the write cache without reading them."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    for _ in range(3):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    assert ledger.session._unlocked is not None, "nothing was posted from memory"
    return a, b


@pytest.mark.parametrize("executed", [True, False], ids=["after it was committed", "before it arrived"])
async def test_a_connection_that_breaks_around_the_write_posts_once_and_is_no_replay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, executed: bool
) -> None:
    a, b = await believed(ledger)
    real, cuts = PreparedStatement.fetch, []

    async def fetch(self, *arguments, **more):
        unlocked = ledger.session._unlocked
        if self is ledger.session._unlocked_write and not cuts:
            cuts.append(1)
            if executed:
                await real(self, *arguments, **more)
            unlocked.terminate()
            raise ConnectionResetError("cut")
        return await real(self, *arguments, **more)

    monkeypatch.setattr(PreparedStatement, "fetch", fetch)
    outcomes = await ledger.post(transfer(a, b, 1), transfer(a, b, 2))
    assert cuts
    assert codes(outcomes) == ["posted", "posted"]
    assert [outcome.replay for outcome in outcomes] == [False, False]
    assert await ledger.posted(b) == 6
    await ledger.prove()


@contextlib.asynccontextmanager
async def locked(ledger: Ledger, number: int) -> AsyncIterator[None]:
    """Lock the row of an account on another connection, during the block."""
    holder = await asyncpg.connect(ledger.dsn)
    try:
        async with holder.transaction():
            await holder.fetch("SELECT 1 FROM ledger.sub_accounts WHERE account_number = $1 FOR UPDATE", number)
            yield
    finally:
        await holder.close()


async def test_a_write_that_goes_on_without_its_client_and_its_repeat_count_once(ledger: Ledger) -> None:
    """The server still executes the query of a lost connection, after the lane has posted the batch again."""
    a, b = await believed(ledger)
    async with locked(ledger, a.number):
        posting = asyncio.create_task(ledger.post(transfer(a, b, 1)))
        await eventually(lambda: is_waiting_for_a_lock(ledger), "the write waits")
        ledger.session._unlocked.terminate()

        async def both_wait() -> bool:
            query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = $1"
            return bool(await ledger.connection.fetchval(query, ledger.session._name))

        await eventually(both_wait, "the lane waits on its other connection")
    outcome = (await posting)[0]
    assert posted(outcome)
    assert not outcome.replay
    assert await ledger.posted(b) == 4
    await ledger.prove()


async def test_a_post_that_is_cancelled_leaves_a_memory_that_is_right(ledger: Ledger) -> None:
    a, b = await believed(ledger)
    id_ = new_id()
    async with locked(ledger, a.number):
        posting = asyncio.create_task(ledger.post(transfer(a, b, 5, id_=id_)))
        await eventually(lambda: is_waiting_for_a_lock(ledger), "the write waits")
        posting.cancel()
        await asyncio.gather(posting, return_exceptions=True)
    assert posted(await ledger.post_one(transfer(a, b, 5, id_=id_)))
    for _ in range(4):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    assert await ledger.posted(b) == 12
    await ledger.prove()


async def test_a_row_that_was_deleted_hurts_no_neighbour(ledger: Ledger) -> None:
    a, b = await believed(ledger)
    c = await ledger.account("m:3", balance=10)
    for _ in range(3):
        await ledger.post(transfer(c, b, 1), transfer(a, b, 1))
    await ledger.tamper("DELETE FROM ledger.sub_accounts WHERE account_number = $1", a.number)
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 1), transfer(c, b, 1))
    assert codes(outcomes) == ["posted", "account-frozen", "posted"]
    assert await ledger.posted(b) == 11


async def test_an_item_that_the_database_refuses_stands_alone(ledger: Ledger) -> None:
    a, b = await believed(ledger)
    await ledger.connection.execute("ALTER TABLE ledger.vouchers ADD CONSTRAINT poison CHECK (type <> 'poison')")
    outcomes = await ledger.post(transfer(a, b, 1), transfer(a, b, 1, type_="poison"), transfer(a, b, 1))
    assert [isinstance(outcome, GuardHit) for outcome in outcomes] == [False, True, False]
    assert await ledger.posted(b) == 5
    assert posted(await ledger.post_one(transfer(a, b, 1)))
    await ledger.connection.execute("ALTER TABLE ledger.vouchers DROP CONSTRAINT poison")
    await ledger.prove()


@pytest.mark.parametrize(
    "edit",
    [
        "seq = seq - 1",
        "seq = seq + 1",
        "posted_at_us = posted_at_us + 1",
        "last_entry_mac = sha256('x')",
        "key_version = 9",
    ],
)
async def test_an_edit_that_is_not_compared_does_not_survive(ledger: Ledger, edit: str) -> None:
    """The edit is in a column that the write does not compare. The next write restores the value of the lane."""
    a, b = await believed(ledger)
    await ledger.tamper(f"UPDATE ledger.sub_accounts SET {edit} WHERE account_number = $1", b.number)
    assert posted(await ledger.post_one(transfer(a, b, 1)))
    assert await ledger.posted(b) == 4
    await ledger.prove()


async def test_two_workers_that_both_remember_lose_nothing(ledger: Ledger) -> None:
    a, b = await believed(ledger)
    other = await ledger.worker(1)

    async def paying(worker: Ledger) -> list[str]:
        return [code(await worker.post_one(transfer(a, b, 1))) for _ in range(40)]

    said = await asyncio.gather(paying(ledger), paying(other))
    assert said == [["posted"] * 40] * 2
    assert await ledger.posted(b) == 83
    await ledger.prove()


async def test_posted_at_never_falls_when_the_clock_does(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await believed(ledger)
    start = clock.now_us()
    for offset in (50_000_000, 20_000_000, -3_000_000, 60_000_000):
        monkeypatch.setattr(clock, "now_us", lambda offset=offset: start + offset)
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    query = "SELECT posted_at FROM ledger.entries WHERE account_number = $1 ORDER BY seq DESC LIMIT 4"
    times = [clock.us(row["posted_at"]) - start for row in await ledger.connection.fetch(query, b.number)]
    assert times == [60_000_000, 50_000_000, 50_000_000, 50_000_000]
    await ledger.prove()


async def test_a_bug_while_deciding_from_memory_leaves_nothing_of_it(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The changes that `decide` has made in the cache are discarded, and the command is decided again under locks."""
    a, b = await believed(ledger)
    real, crashes = rules.decide, []

    def decide(batch, commands):
        if not crashes:
            crashes.append(1)
            real(batch, commands)
            raise ZeroDivisionError
        return real(batch, commands)

    monkeypatch.setattr(unlocked, "decide", decide)
    assert codes(await ledger.post(transfer(a, b, 1), transfer(a, b, 1))) == ["posted", "posted"]
    assert crashes
    assert posted(await ledger.post_one(transfer(a, b, 1)))
    assert await ledger.posted(b) == 6
    await ledger.prove()
