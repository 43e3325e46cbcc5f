"""Lanes: the queue is bounded and ordered, each caller gets one outcome, and a lane continues after a failed batch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from fundledger.faults import Fault, GuardHit, Unavailable
from fundledger.hotspot import lane as lane_module
from fundledger.hotspot.lane import Lane, LaneFull, Statistics
from fundledger.ledger.model.batch import AtomicGroup, Command, Outcome
from fundledger.ledger.store.session import Session
from tests.support.ledger import Ledger, codes, transfer
from tests.support.waiting import eventually
from tests.support.world import World


class Post:
    """A substitute for `post_vouchers`: the test ends each batch."""

    def __init__(self) -> None:
        self.batches: list[list[Command]] = []
        self.on_sent: list[Callable[[bool], None]] = []
        self.prepared: list[Any] = []
        self.more: list[dict[str, Any]] = []
        self._done: list[asyncio.Future[list[Outcome | Fault]]] = []

    async def __call__(
        self,
        session: Session,
        books: Any,
        commands: Sequence[Command],
        on_sent: Callable[[bool], None],
        prepared: Any = None,
        **more: Any,
    ) -> list[Outcome | Fault]:
        self.batches.append(list(commands))
        self.on_sent.append(on_sent)
        self.prepared.append(prepared)
        self.more.append(more)
        self._done.append(asyncio.get_running_loop().create_future())
        return await self._done[-1]

    async def started(self, batches: int) -> None:
        await eventually(lambda: len(self.batches) >= batches, f"batch {batches} has started")

    def finish(self, outcomes: list[Outcome | Fault] | None = None) -> None:
        """End the running batch as committed."""
        self._done[-1].set_result(outcomes or [Outcome() for _ in self.batches[-1]])

    def crash(self) -> None:
        self._done[-1].set_exception(RuntimeError("a bug"))


class Meter:
    def __init__(self) -> None:
        self.sizes: list[int] = []

    def batch(self, size: int, seconds: float) -> None:
        self.sizes.append(size)


class Callers:
    """Callers of a lane, and the outcomes that each has received."""

    def __init__(self, depth_max: int = 100, batch_size_max: int = 10) -> None:
        self.post = Post()
        self.meter = Meter()
        self.answers: dict[int, list[Outcome | Fault]] = {}
        self.order: list[int] = []
        self.session = Session("postgresql://nowhere", "test")
        self.lane = Lane(self.session, None, self.meter, depth_max, batch_size_max, self.post)  # type: ignore[arg-type]
        self._asked = 0
        self._world = World()
        self._pair = self._world.account("a"), self._world.account("b")

    def voucher(self) -> Command:
        return transfer(*self._pair, 1)

    def ask(self, count: int = 1, command: Command | None = None) -> None:
        for _ in range(count):
            self.lane.post(command or self.voucher(), self._answer, self._asked)
            self._asked += 1

    def _answer(self, index: int, outcome: Outcome | Fault) -> None:
        self.answers.setdefault(index, []).append(outcome)
        self.order.append(index)

    async def answered(self, count: int) -> None:
        await eventually(lambda: len(self.order) >= count, f"{count} answers")


@pytest.fixture
async def callers() -> AsyncIterator[Callers]:
    callers = Callers()
    yield callers
    callers.lane._task.cancel()
    await asyncio.gather(callers.lane._task, return_exceptions=True)


async def test_what_comes_while_a_batch_is_posted_is_the_next_batch(callers: Callers) -> None:
    callers.ask()
    await callers.post.started(1)
    callers.ask(5)
    assert callers.lane.statistics() == Statistics(waiting=5, in_flight=1)
    callers.post.finish()
    await callers.post.started(2)
    assert [len(batch) for batch in callers.post.batches] == [1, 5]
    callers.post.finish()
    await callers.answered(6)
    assert callers.meter.sizes == [1, 5]


async def test_each_caller_is_answered_once_with_its_own_outcome_in_order(callers: Callers) -> None:
    outcomes: list[Outcome | Fault] = [Outcome() for _ in range(8)]
    callers.ask(8)
    await callers.post.started(1)
    callers.post.finish(outcomes)
    await callers.answered(8)
    await callers.lane.drain()
    assert callers.order == list(range(8))
    assert all(callers.answers[i] == [outcomes[i]] and callers.answers[i][0] is outcomes[i] for i in range(8))


async def test_no_caller_is_answered_before_the_batch_has_been_committed(callers: Callers) -> None:
    callers.ask(3)
    await callers.post.started(1)
    callers.post.on_sent[0](False)
    for _ in range(20):
        await asyncio.sleep(0)
    assert callers.order == []
    callers.post.finish()
    await callers.answered(3)


async def test_a_batch_has_at_most_its_size_and_keeps_the_order(callers: Callers) -> None:
    commands = [callers.voucher() for _ in range(25)]
    for command in commands:
        callers.ask(command=command)
    for number in range(1, 4):
        await callers.post.started(number)
        callers.post.finish()
    await callers.answered(25)
    assert [len(batch) for batch in callers.post.batches] == [10, 10, 5]
    assert [command for batch in callers.post.batches for command in batch] == commands
    assert callers.order == list(range(25))


async def test_a_group_counts_with_all_its_vouchers(callers: Callers) -> None:
    group = AtomicGroup([callers.voucher() for _ in range(6)])
    callers.ask()
    await callers.post.started(1)
    callers.ask(5)
    callers.ask(command=group)
    callers.ask(4)
    callers.post.finish()
    await callers.post.started(2)
    callers.post.finish()
    await callers.post.started(3)
    callers.post.finish()
    await callers.answered(11)
    assert [len(batch) for batch in callers.post.batches] == [1, 5, 5]


async def test_a_group_larger_than_a_batch_goes_alone(callers: Callers) -> None:
    group = AtomicGroup([callers.voucher() for _ in range(50)])
    callers.ask(2)
    callers.ask(command=group)
    callers.ask(2)
    for number in range(1, 4):
        await callers.post.started(number)
        callers.post.finish()
    await callers.answered(5)
    assert [len(batch) for batch in callers.post.batches] == [2, 1, 2]
    assert callers.post.batches[1] == [group]


async def takes_few_lines(monkeypatch: pytest.MonkeyPatch, callers: Callers) -> None:
    """Send commands of 2, 6, 2, 4, 2, 10 and 2 lines. A batch has at most 6; 4 bytes of metadata count as a line."""
    monkeypatch.setattr(lane_module, "LINES_MAX", 6)
    monkeypatch.setattr(lane_module, "METADATA_BYTES", 4)
    group, large = (AtomicGroup([callers.voucher() for _ in range(n)]) for n in (3, 5))
    described = callers.voucher()
    described.metadata = '{"a":1}' + " "
    commands = [callers.voucher(), group, callers.voucher(), described, callers.voucher(), large, callers.voucher()]
    callers.ask()
    await callers.post.started(1)
    for command in commands:
        callers.ask(command=command)
    taken = [[commands[0]], [group], commands[2:4], [commands[4]], [large], [commands[6]]]
    for number in range(2, 2 + len(taken)):
        callers.post.finish()
        await callers.post.started(number)
    callers.post.finish()
    await callers.answered(1 + len(commands))
    assert callers.post.batches[1:] == taken


async def test_a_batch_has_few_lines_however_few_vouchers_they_are(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await takes_few_lines(monkeypatch, callers)


async def test_beyond_its_depth_new_work_is_refused_immediately_and_accepted_work_is_answered() -> None:
    callers = Callers(depth_max=7)
    callers.ask()
    await callers.post.started(1)
    callers.ask(7)
    assert callers.lane.free() == 0
    for _ in range(3):
        with pytest.raises(LaneFull):
            callers.ask()
    assert issubclass(LaneFull, Unavailable)
    callers.post.finish()
    await callers.post.started(2)
    assert callers.lane.free() == 7
    callers.ask()
    callers.post.finish()
    await callers.post.started(3)
    callers.post.finish()
    await callers.answered(9)
    assert all(len(answers) == 1 for answers in callers.answers.values())
    await callers.lane.close()


async def test_a_crash_answers_all_of_its_batch_with_a_fault_and_the_lane_goes_on(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []
    monkeypatch.setattr(callers.session, "drop", lambda: dropped.append(True))
    callers.ask(3)
    await callers.post.started(1)
    callers.ask(2)
    callers.post.crash()
    await callers.post.started(2)
    callers.post.finish()
    await callers.answered(5)
    assert all(isinstance(callers.answers[i][0], GuardHit) for i in range(3))
    assert all(isinstance(callers.answers[i][0], Outcome) for i in range(3, 5))
    assert dropped == [True]


async def test_a_caller_that_fails_to_take_its_answer_harms_no_other(callers: Callers) -> None:
    def gone(index: int, outcome: Outcome | Fault) -> None:
        raise ConnectionResetError("gone")

    callers.ask()
    callers.lane.post(callers.voucher(), gone)
    callers.ask()
    await callers.post.started(1)
    callers.post.finish()
    await callers.answered(2)
    callers.ask()
    await callers.post.started(2)
    callers.post.finish()
    await callers.answered(3)


async def test_drain_waits_until_everything_accepted_has_been_answered(callers: Callers) -> None:
    callers.ask(15)
    await callers.post.started(1)
    drained = asyncio.ensure_future(callers.lane.drain())
    callers.post.finish()
    await callers.post.started(2)
    assert not drained.done()
    callers.post.finish()
    await drained
    assert len(callers.order) == 15
    await callers.lane.drain()


async def test_a_committed_batch_is_answered_while_the_next_one_waits(callers: Callers) -> None:
    """The next batch may wait for a lock or for the database. Outcomes that are known are sent meanwhile."""
    callers.ask(3)
    await callers.post.started(1)
    callers.ask()
    callers.post.finish()
    await callers.post.started(2)
    await callers.answered(3)
    assert callers.order == [0, 1, 2]
    callers.post.finish()
    await callers.answered(4)


async def test_a_committed_batch_is_answered_when_the_next_one_was_sent(callers: Callers) -> None:
    callers.ask(3)
    await callers.post.started(1)
    callers.ask()
    callers.post.finish()
    await callers.post.started(2)
    callers.post.on_sent[1](False)
    await callers.answered(3)
    callers.post.finish()
    await callers.answered(4)
    assert all(len(answers) == 1 for answers in callers.answers.values())


async def test_callers_that_wait_for_a_close_are_answered_first(callers: Callers) -> None:
    callers.ask(12)
    await callers.post.started(1)
    closed = asyncio.ensure_future(callers.lane.close())
    callers.post.finish()
    await callers.post.started(2)
    callers.post.finish()
    await closed
    assert len(callers.order) == 12


async def test_a_lane_posts_on_a_real_database(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=30), await ledger.account("m:2")
    answers: dict[int, Outcome | Fault] = {}
    lane = Lane(ledger.session, ledger.books, Meter(), 1000, 8)
    for i in range(40):
        lane.post(transfer(a, b, 1), lambda index, outcome: answers.update({index: outcome}), i)
    await lane.drain()
    assert codes([answers[i] for i in range(40)]) == ["posted"] * 30 + ["insufficient-funds"] * 10
    await lane.close()
    await ledger.prove()


class Preparing:
    """A substitute for `prepare`, which records the batches and returns their number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[Command]] = []
        self.fails = False
        monkeypatch.setattr(lane_module, "prepare", self._prepare)

    async def _prepare(self, session: Session, books: Any, commands: Sequence[Command]) -> Any:
        self.batches.append(list(commands))
        if self.fails:
            raise RuntimeError("a bug")
        return len(self.batches)


async def test_as_many_as_are_being_written_are_prepared_meanwhile(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing = Preparing(monkeypatch)
    callers.ask(3)
    await callers.post.started(1)
    callers.post.on_sent[0](True)
    callers.ask(2)
    await asyncio.sleep(0)
    assert preparing.batches == []
    callers.ask(2)
    await eventually(lambda: preparing.batches, "the next batch is prepared")
    callers.ask(5)
    assert [len(batch) for batch in preparing.batches] == [4]
    assert callers.lane.statistics() == Statistics(waiting=9, in_flight=3)
    callers.post.finish()
    await callers.post.started(2)
    assert callers.post.prepared == [None, 1]
    assert callers.post.batches[1] == preparing.batches[0]
    callers.post.finish()
    await callers.post.started(3)
    assert (len(callers.post.batches[2]), callers.post.prepared[2]) == (5, None)
    callers.post.finish()
    await callers.answered(12)
    assert callers.order == list(range(12))


async def test_nothing_is_prepared_beside_a_batch_that_locks(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    preparing = Preparing(monkeypatch)
    callers.ask(1)
    await callers.post.started(1)
    callers.post.on_sent[0](False)
    callers.ask(5)
    for _ in range(20):
        await asyncio.sleep(0)
    assert preparing.batches == []


async def test_drain_waits_for_what_was_prepared(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    preparing = Preparing(monkeypatch)
    callers.ask(1)
    await callers.post.started(1)
    callers.post.on_sent[0](True)
    callers.ask(1)
    await eventually(lambda: preparing.batches, "the next batch is prepared")
    draining = asyncio.create_task(callers.lane.drain())
    callers.post.finish()
    await callers.post.started(2)
    assert not draining.done()
    callers.post.finish()
    await draining
    assert callers.order == [0, 1]


async def test_preparing_that_crashes_answers_its_callers(callers: Callers, monkeypatch: pytest.MonkeyPatch) -> None:
    preparing = Preparing(monkeypatch)
    preparing.fails = True
    callers.ask(1)
    await callers.post.started(1)
    callers.post.on_sent[0](True)
    callers.ask(1)
    await eventually(lambda: preparing.batches, "the next batch is prepared")
    callers.post.finish()
    await callers.answered(2)
    assert codes(callers.answers[1]) == ["GuardHit"]
