"""Early lock release: locks are released before the commit is on disk, and callers are answered after it is."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from fundledger.faults import Fault, OutcomeUnknown
from fundledger.hotspot.flusher import Flusher
from fundledger.hotspot.lane import FLUSH_ATTEMPTS, Lane
from fundledger.ledger.model.batch import AtomicGroup, Command, Outcome
from tests.support.ledger import Ledger, code, codes, new_id, transfer
from tests.support.waiting import eventually


class Held(Flusher):
    """A flusher that waits until the test releases it."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, "test flush")
        self.gate = asyncio.Event()
        self.fails = 0

    async def _flush(self, connection) -> None:
        await self.gate.wait()
        if self.fails:
            self.fails -= 1
            waiting, self._waiting = self._waiting, []
            self._idle.append(connection)
            for then in waiting:
                then(False)
            return
        await super()._flush(connection)


class Meter:
    def batch(self, size: int, seconds: float) -> None:
        pass


class Counter:
    """A lane whose flusher waits for the test, and the outcomes that its callers have received."""

    def __init__(self, ledger: Ledger) -> None:
        ledger.lock_always()
        self.flusher = Held(ledger.dsn)
        self.lane = Lane(ledger.session, ledger.books, Meter(), 100, 10, flusher=self.flusher)
        self.told: list[Outcome | Fault] = []

    def ask(self, *commands: Command) -> None:
        for command in commands:
            self.lane.post(command, lambda _, outcome: self.told.append(outcome))

    async def close(self) -> None:
        self.flusher.gate.set()
        await self.lane.close()
        await self.flusher.close()


@pytest.fixture
async def counter(ledger: Ledger) -> AsyncIterator[Counter]:
    counter = Counter(ledger)
    yield counter
    await counter.close()


async def test_a_batch_frees_its_locks_and_is_answered_after_the_flush(ledger: Ledger, counter: Counter) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    other = await ledger.worker(1)
    counter.ask(transfer(a, b, 1), transfer(a, b, 2))

    async def committed() -> bool:
        return await ledger.posted(b) == 3

    await eventually(committed, "the batch is committed")
    assert code(await other.post_one(transfer(a, b, 4))) == "posted"  # otherwise it would wait for the lock time-out
    assert counter.told == []
    counter.flusher.gate.set()
    await eventually(lambda: len(counter.told) == 2, "both are answered")
    assert codes(counter.told) == ["posted", "posted"]
    assert (await ledger.prove()).ok


async def test_the_commit_of_a_batch_does_not_wait_for_the_disk(ledger: Ledger, monkeypatch) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    ledger.lock_always()
    seen = []
    real = asyncpg.Connection.execute

    async def execute(self, query, *arguments, **more):
        if query.startswith("COMMIT"):
            seen.append(await self.fetchval("SHOW synchronous_commit"))
        return await real(self, query, *arguments, **more)

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    for early in (True, False, True, False):
        ledger.session.unflushed = False
        await post_early(ledger, early, transfer(a, b, 1))
        assert ledger.session.unflushed is early
    assert seen == ["off", "on", "off", "on"]


async def post_early(ledger: Ledger, early: bool, *commands: Command) -> list[Outcome | Fault]:
    from fundledger.ledger.posting import post_vouchers

    return await post_vouchers(ledger.session, ledger.books, commands, early=early)


async def test_a_repeat_of_what_another_has_not_flushed_waits_for_the_flush(ledger: Ledger, counter: Counter) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    other = await ledger.worker(1)
    other.lock_always()
    id_ = new_id()
    await post_early(other, True, transfer(a, b, 1, id_=id_))
    counter.ask(transfer(a, b, 1, id_=id_))
    await eventually(lambda: counter.lane._unflushed == 1, "the lane waits for a flush")
    assert counter.told == []
    counter.flusher.gate.set()
    await eventually(lambda: counter.told, "it is answered")
    assert [outcome.replay for outcome in counter.told] == [True]


async def test_a_refusal_waits_for_the_flush(ledger: Ledger, counter: Counter) -> None:
    a, b = await ledger.account("m:1"), await ledger.account("m:2")
    counter.ask(transfer(a, b, 1))
    await eventually(lambda: counter.lane._unflushed == 1, "the lane waits for a flush")
    assert counter.told == []
    counter.flusher.gate.set()
    await eventually(lambda: counter.told, "it is answered")
    assert codes(counter.told) == ["insufficient-funds"]


async def test_after_a_flush_that_failed_each_caller_gets_the_true_outcome(ledger: Ledger, counter: Counter) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    counter.flusher.fails = 2
    counter.ask(transfer(a, b, 1), transfer(a, b, 1000), transfer(a, b, 2))
    await eventually(lambda: counter.lane._unflushed == 1, "the lane waits for a flush")
    counter.flusher.gate.set()
    await eventually(lambda: len(counter.told) == 3, "all are answered")
    assert codes(counter.told) == ["posted", "insufficient-funds", "posted"]
    assert [outcome.replay for outcome in counter.told] == [False] * 3
    assert await ledger.posted(b) == 3
    assert (await ledger.prove()).ok


async def test_after_a_flush_that_failed_only_earlier_vouchers_of_a_group_are_replays(
    ledger: Ledger, counter: Counter
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    earlier = transfer(a, b, 1)
    assert code(await ledger.post_one(earlier)) == "posted"
    counter.flusher.fails = 1
    # There are two commands, because the commit of a single command waits for the disk.
    counter.ask(AtomicGroup([transfer(a, b, 2), earlier, transfer(a, b, 3)]), transfer(a, b, 4))
    await eventually(lambda: counter.lane._unflushed == 1, "the lane waits for a flush")
    counter.flusher.gate.set()
    await eventually(lambda: len(counter.told) == 2, "both are answered")
    assert counter.flusher.fails == 0
    group, other = counter.told
    assert isinstance(group, Outcome)
    assert [(code(part), part.replay) for part in group.parts or ()] == [
        ("posted", False),
        ("posted", True),
        ("posted", False),
    ]
    assert (code(other), await ledger.posted(b)) == ("posted", 10)
    assert (await ledger.prove()).ok


async def test_while_no_flush_succeeds_the_outcome_of_what_is_committed_is_unknown(
    ledger: Ledger, counter: Counter
) -> None:
    """The fault must not be `Unavailable`, which states that nothing was written: the caller would pay again."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    asked = [transfer(a, b, 1), transfer(a, b, 2)]
    counter.flusher.fails = 100
    counter.flusher.gate.set()
    counter.ask(*asked)
    await eventually(lambda: len(counter.told) == 2, "both are answered")
    assert counter.flusher.fails == 100 - FLUSH_ATTEMPTS - 1
    assert [type(fault) for fault in counter.told] == [OutcomeUnknown, OutcomeUnknown]
    assert await ledger.posted(b) == 3
    counter.told.clear()
    counter.flusher.fails = 0
    counter.ask(*asked)
    await eventually(lambda: len(counter.told) == 2, "both are answered again")
    assert [outcome.replay for outcome in counter.told] == [True, True]
    assert (await ledger.prove()).ok


async def test_a_group_that_another_has_not_flushed_waits_for_the_flush(ledger: Ledger, counter: Counter) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    other = await ledger.worker(1)
    group = AtomicGroup([transfer(a, b, 1), transfer(a, b, 2)])
    await post_early(other, True, group)
    counter.ask(group)
    await eventually(lambda: counter.lane._unflushed == 1, "the lane waits for a flush")
    assert counter.told == []


async def test_a_batch_found_after_its_flush_failed_is_flushed_before_it_is_answered(
    ledger: Ledger, counter: Counter
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    counter.flusher.fails = 1
    counter.ask(transfer(a, b, 1), transfer(a, b, 2))
    flushed = []
    real = Flusher._flush

    async def flush(self: Flusher, connection: object) -> None:
        flushed.append(len(counter.told))
        await real(self, connection)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flusher, "_flush", flush)
        counter.flusher.gate.set()
        await eventually(lambda: len(counter.told) == 2, "both are answered")
    assert flushed, "it was flushed again"
    assert set(flushed) == {0}, "before anybody was answered"
    assert codes(counter.told) == ["posted", "posted"]


async def test_drain_waits_for_the_flush(ledger: Ledger, counter: Counter) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    counter.ask(transfer(a, b, 1), transfer(a, b, 2))
    await eventually(lambda: counter.lane._unflushed == 1, "the lane waits for a flush")
    draining = asyncio.create_task(counter.lane.drain())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not draining.done()
    counter.flusher.gate.set()
    await draining
    assert codes(counter.told) == ["posted", "posted"]


async def test_a_flush_makes_what_was_committed_durable(ledger: Ledger) -> None:
    """The test reads the durable end of the log from the server."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    ledger.lock_always()
    await post_early(ledger, True, transfer(a, b, 1))
    at = await ledger.connection.fetchval("SELECT pg_current_wal_insert_lsn()")
    flusher = Flusher(ledger.dsn, "test flush")
    await flusher.open()
    assert await flusher.flush()
    assert await ledger.connection.fetchval("SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn", at)
    await flusher.close()


async def test_a_flusher_whose_connection_broke_says_so_and_goes_on(ledger: Ledger) -> None:
    flusher = Flusher(ledger.dsn, "test flush")
    await flusher.open()
    assert await flusher.flush()
    end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'test flush%'"
    assert await ledger.connection.fetchval(end) == len(flusher._all)

    async def gone() -> bool:
        return not await ledger.connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'test flush%'"
        )

    await eventually(gone, "its connection has ended")
    told = [await flusher.flush() for _ in range(3)]
    assert not told[0], "it vouches for nothing that was committed before it was opened again"
    assert told[-1]
    await flusher.close()


async def test_concurrent_callers_share_a_flush(ledger: Ledger, monkeypatch) -> None:
    flusher = Flusher(ledger.dsn, "test flush")
    await flusher.open()
    flushed = []
    real = Flusher._flush

    async def counted(self, connection) -> None:
        flushed.append(len(self._waiting))
        await real(self, connection)

    monkeypatch.setattr(Flusher, "_flush", counted)
    await asyncio.gather(*(flusher.flush() for _ in range(50)))
    assert flushed == [50]
    await flusher.close()
