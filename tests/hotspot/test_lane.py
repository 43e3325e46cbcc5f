"""A lane: bounded, in order, one result for each caller, and it continues after any failure of a batch."""

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


class OrderBatcher:
    """Callers of a lane, and the results of each."""

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
async def desk() -> AsyncIterator[OrderBatcher]:
    desk = OrderBatcher()
    yield desk
    desk.lane._task.cancel()
    await asyncio.gather(desk.lane._task, return_exceptions=True)


async def test_what_comes_while_a_batch_is_posted_is_the_next_batch(desk: OrderBatcher) -> None:
    desk.ask()
    await desk.post.started(1)
    desk.ask(5)
    assert desk.lane.statistics() == Statistics(waiting=5, in_flight=1)
    desk.post.finish()
    await desk.post.started(2)
    assert [len(batch) for batch in desk.post.batches] == [1, 5]
    desk.post.finish()
    await desk.answered(6)
    assert desk.meter.sizes == [1, 5]


async def test_each_caller_is_answered_once_with_its_own_outcome_in_order(desk: OrderBatcher) -> None:
    outcomes: list[Outcome | Fault] = [Outcome() for _ in range(8)]
    desk.ask(8)
    await desk.post.started(1)
    desk.post.finish(outcomes)
    await desk.answered(8)
    await desk.lane.drain()
    assert desk.order == list(range(8))
    assert all(desk.answers[i] == [outcomes[i]] and desk.answers[i][0] is outcomes[i] for i in range(8))


async def test_no_caller_is_answered_before_the_batch_has_been_committed(desk: OrderBatcher) -> None:
    desk.ask(3)
    await desk.post.started(1)
    desk.post.on_sent[0](False)
    for _ in range(20):
        await asyncio.sleep(0)
    assert desk.order == []
    desk.post.finish()
    await desk.answered(3)


async def test_a_batch_has_at_most_its_size_and_keeps_the_order(desk: OrderBatcher) -> None:
    commands = [desk.voucher() for _ in range(25)]
    for command in commands:
        desk.ask(command=command)
    for number in range(1, 4):
        await desk.post.started(number)
        desk.post.finish()
    await desk.answered(25)
    assert [len(batch) for batch in desk.post.batches] == [10, 10, 5]
    assert [command for batch in desk.post.batches for command in batch] == commands
    assert desk.order == list(range(25))


async def test_a_group_counts_with_all_its_vouchers(desk: OrderBatcher) -> None:
    group = AtomicGroup([desk.voucher() for _ in range(6)])
    desk.ask()
    await desk.post.started(1)
    desk.ask(5)
    desk.ask(command=group)
    desk.ask(4)
    desk.post.finish()
    await desk.post.started(2)
    desk.post.finish()
    await desk.post.started(3)
    desk.post.finish()
    await desk.answered(11)
    assert [len(batch) for batch in desk.post.batches] == [1, 5, 5]


async def test_a_group_larger_than_a_batch_goes_alone(desk: OrderBatcher) -> None:
    group = AtomicGroup([desk.voucher() for _ in range(50)])
    desk.ask(2)
    desk.ask(command=group)
    desk.ask(2)
    for number in range(1, 4):
        await desk.post.started(number)
        desk.post.finish()
    await desk.answered(5)
    assert [len(batch) for batch in desk.post.batches] == [2, 1, 2]
    assert desk.post.batches[1] == [group]


async def takes_few_lines(monkeypatch: pytest.MonkeyPatch, desk: OrderBatcher) -> None:
    """Send commands of 2, 6, 2, 4, 2, 10 and 2 lines; a batch has at most six, with one line for each 4 bytes of
    metadata.
    """
    monkeypatch.setattr(lane_module, "LINES_MAX", 6)
    monkeypatch.setattr(lane_module, "METADATA_BYTES", 4)
    group, large = (AtomicGroup([desk.voucher() for _ in range(n)]) for n in (3, 5))
    described = desk.voucher()
    described.metadata = '{"a":1}' + " "
    commands = [desk.voucher(), group, desk.voucher(), described, desk.voucher(), large, desk.voucher()]
    desk.ask()
    await desk.post.started(1)
    for command in commands:
        desk.ask(command=command)
    taken = [[commands[0]], [group], commands[2:4], [commands[4]], [large], [commands[6]]]
    for number in range(2, 2 + len(taken)):
        desk.post.finish()
        await desk.post.started(number)
    desk.post.finish()
    await desk.answered(1 + len(commands))
    assert desk.post.batches[1:] == taken


async def test_a_batch_has_few_lines_however_few_vouchers_they_are(
    desk: OrderBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await takes_few_lines(monkeypatch, desk)


async def test_beyond_its_depth_new_work_is_refused_immediately_and_accepted_work_is_answered() -> None:
    desk = OrderBatcher(depth_max=7)
    desk.ask()
    await desk.post.started(1)
    desk.ask(7)
    assert desk.lane.free() == 0
    for _ in range(3):
        with pytest.raises(LaneFull):
            desk.ask()
    assert issubclass(LaneFull, Unavailable)
    desk.post.finish()
    await desk.post.started(2)
    assert desk.lane.free() == 7
    desk.ask()
    desk.post.finish()
    await desk.post.started(3)
    desk.post.finish()
    await desk.answered(9)
    assert all(len(answers) == 1 for answers in desk.answers.values())
    await desk.lane.close()


async def test_a_crash_answers_all_of_its_batch_with_a_fault_and_the_lane_goes_on(
    desk: OrderBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []
    monkeypatch.setattr(desk.session, "drop", lambda: dropped.append(True))
    desk.ask(3)
    await desk.post.started(1)
    desk.ask(2)
    desk.post.crash()
    await desk.post.started(2)
    desk.post.finish()
    await desk.answered(5)
    assert all(isinstance(desk.answers[i][0], GuardHit) for i in range(3))
    assert all(isinstance(desk.answers[i][0], Outcome) for i in range(3, 5))
    assert dropped == [True]


async def test_a_caller_that_fails_to_take_its_answer_harms_no_other(desk: OrderBatcher) -> None:
    def gone(index: int, outcome: Outcome | Fault) -> None:
        raise ConnectionResetError("gone")

    desk.ask()
    desk.lane.post(desk.voucher(), gone)
    desk.ask()
    await desk.post.started(1)
    desk.post.finish()
    await desk.answered(2)
    desk.ask()
    await desk.post.started(2)
    desk.post.finish()
    await desk.answered(3)


async def test_drain_waits_until_everything_accepted_has_been_answered(desk: OrderBatcher) -> None:
    desk.ask(15)
    await desk.post.started(1)
    drained = asyncio.ensure_future(desk.lane.drain())
    desk.post.finish()
    await desk.post.started(2)
    assert not drained.done()
    desk.post.finish()
    await drained
    assert len(desk.order) == 15
    await desk.lane.drain()


async def test_a_committed_batch_is_answered_while_the_next_one_waits(desk: OrderBatcher) -> None:
    """The next batch may wait for a lock, or for a database that is down: known results are sent in the meantime."""
    desk.ask(3)
    await desk.post.started(1)
    desk.ask()
    desk.post.finish()
    await desk.post.started(2)
    await desk.answered(3)
    assert desk.order == [0, 1, 2]
    desk.post.finish()
    await desk.answered(4)


async def test_a_committed_batch_is_answered_when_the_next_one_was_sent(desk: OrderBatcher) -> None:
    desk.ask(3)
    await desk.post.started(1)
    desk.ask()
    desk.post.finish()
    await desk.post.started(2)
    desk.post.on_sent[1](False)
    await desk.answered(3)
    desk.post.finish()
    await desk.answered(4)
    assert all(len(answers) == 1 for answers in desk.answers.values())


async def test_callers_that_wait_for_a_close_are_answered_first(desk: OrderBatcher) -> None:
    desk.ask(12)
    await desk.post.started(1)
    closed = asyncio.ensure_future(desk.lane.close())
    desk.post.finish()
    await desk.post.started(2)
    desk.post.finish()
    await closed
    assert len(desk.order) == 12


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
    """A substitute for `prepare`."""

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
    desk: OrderBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing = Preparing(monkeypatch)
    desk.ask(3)
    await desk.post.started(1)
    desk.post.on_sent[0](True)
    desk.ask(2)
    await asyncio.sleep(0)
    assert preparing.batches == []
    desk.ask(2)
    await eventually(lambda: preparing.batches, "the next batch is prepared")
    desk.ask(5)
    assert [len(batch) for batch in preparing.batches] == [4]
    assert desk.lane.statistics() == Statistics(waiting=9, in_flight=3)
    desk.post.finish()
    await desk.post.started(2)
    assert desk.post.prepared == [None, 1]
    assert desk.post.batches[1] == preparing.batches[0]
    desk.post.finish()
    await desk.post.started(3)
    assert (len(desk.post.batches[2]), desk.post.prepared[2]) == (5, None)
    desk.post.finish()
    await desk.answered(12)
    assert desk.order == list(range(12))


async def test_nothing_is_prepared_beside_a_batch_that_locks(
    desk: OrderBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    preparing = Preparing(monkeypatch)
    desk.ask(1)
    await desk.post.started(1)
    desk.post.on_sent[0](False)
    desk.ask(5)
    for _ in range(20):
        await asyncio.sleep(0)
    assert preparing.batches == []


async def test_drain_waits_for_what_was_prepared(desk: OrderBatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    preparing = Preparing(monkeypatch)
    desk.ask(1)
    await desk.post.started(1)
    desk.post.on_sent[0](True)
    desk.ask(1)
    await eventually(lambda: preparing.batches, "the next batch is prepared")
    draining = asyncio.create_task(desk.lane.drain())
    desk.post.finish()
    await desk.post.started(2)
    assert not draining.done()
    desk.post.finish()
    await draining
    assert desk.order == [0, 1]


async def test_preparing_that_crashes_answers_its_callers(desk: OrderBatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    preparing = Preparing(monkeypatch)
    preparing.fails = True
    desk.ask(1)
    await desk.post.started(1)
    desk.post.on_sent[0](True)
    desk.ask(1)
    await eventually(lambda: preparing.batches, "the next batch is prepared")
    desk.post.finish()
    await desk.answered(2)
    assert codes(desk.answers[1]) == ["GuardHit"]
