"""Process groups: a dead process is restarted, with growing delays if it dies soon, and all processes end on a stop."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fundledger.app.host.processes.group import DIED, UNRESPONSIVE, ProcessGroup, ProcessSpec, _answers
from tests.support.running import short_folder
from tests.support.waiting import eventually

Kept = Callable[..., contextlib.AbstractAsyncContextManager["Watched"]]


class Watched(ProcessGroup):
    """A process group that records what a test checks: the processes that ended, and the ids of running ones."""

    def __init__(self, folder: Path, size: int, *arguments: str, unresponsive_s: float | None = None) -> None:
        self.ended: list[int] = []
        self.replaced: list[tuple[int, str]] = []
        self.folder = folder

        def line(ordinal: int) -> bytes:
            self.place(ordinal).unlink(missing_ok=True)
            return str(self.place(ordinal)).encode()

        spec = ProcessSpec(
            "group process",
            "tests.support.group_process",
            self.place,
            line,
            arguments,
            self.ended.append,
            unresponsive_s,
            lambda ordinal, reason: self.replaced.append((ordinal, reason)),
        )
        super().__init__(spec, size)

    def place(self, ordinal: int) -> Path:
        return self.folder / f"{ordinal}.sock"

    def pid(self, ordinal: int) -> int:
        return self._processes[ordinal].pid

    async def accepts(self, ordinal: int) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(str(self.place(ordinal)))
        except OSError:
            return False
        writer.close()
        return True


@pytest.fixture
async def kept() -> AsyncIterator[Kept]:
    folder = short_folder()

    @contextlib.asynccontextmanager
    async def keep(size: int, *arguments: str, unresponsive_s: float | None = None) -> AsyncIterator[Watched]:
        group = Watched(folder, size, *arguments, unresponsive_s=unresponsive_s)
        group.start()
        try:
            yield group
        finally:
            await group.stop(0)

    yield keep
    shutil.rmtree(folder)


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def test_a_process_that_died_is_replaced_and_the_others_are_left_alone(kept: Kept) -> None:
    async with kept(2) as group:
        assert await group.serves(60)
        first, other = group.pid(0), group.pid(1)
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: group.ended == [0] and group.pid(0) != first, "another one is started")
        await eventually(lambda: group.accepts(0), "it serves")
        assert group.pid(1) == other
        assert group.ended == [0]
        assert group.replaced == [(0, DIED)]


async def test_a_process_that_hangs_is_killed_and_replaced_and_the_others_are_left_alone(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(2, unresponsive_s=1.0) as group:
        assert await group.serves(60)
        first, other = group.pid(0), group.pid(1)
        os.kill(first, signal.SIGSTOP)
        await eventually(lambda: group.replaced == [(0, UNRESPONSIVE)], "it is replaced", 60)
        await eventually(lambda: group.pid(0) != first and group.accepts(0), "another one serves")
        assert is_gone(first)
        assert group.pid(1) == other
    events = [record.__dict__.get("event") for record in caplog.records]
    assert events.count("worker_unresponsive") == 1
    assert "worker_died" not in events


async def test_a_process_that_hangs_for_less_than_its_time_is_left_alone(kept: Kept) -> None:
    async with kept(1, unresponsive_s=600.0) as group:
        assert await group.serves(60)
        pid = group.pid(0)
        os.kill(pid, signal.SIGSTOP)
        answers = asyncio.create_task(_answers(group.place(0), 60))
        assert not await _answers(group.place(0), 0.2)
        os.kill(pid, signal.SIGCONT)
        assert await answers
        assert group.pid(0) == pid
        assert group.replaced == []


async def test_a_process_is_not_judged_before_it_serves_nor_while_all_stop(kept: Kept) -> None:
    async with kept(1, "silent", unresponsive_s=0.2) as group:
        await eventually(lambda: group._processes, "it runs")
        pid = group.pid(0)
        assert not await group.serves(2)
        assert group.pid(0) == pid
        assert group.replaced == []
    async with kept(1, "stubborn", unresponsive_s=1.0) as group:
        assert await group.serves(60)
        stopping = asyncio.create_task(group.stop(2))
        await asyncio.sleep(0)
        os.kill(group.pid(0), signal.SIGSTOP)
        await stopping
        assert group.replaced == []


async def test_one_that_ends_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    assert await _answers(tmp_path / "nothing.sock", 1)


async def test_a_process_that_always_dies_young_is_restarted_and_delays_no_other(kept: Kept) -> None:
    async with kept(1, "young") as group:
        assert not await group.serves(60, tries=2)
        tried = len(group.ended)
        await eventually(lambda: len(group.ended) > tried, "it is tried again")


async def test_one_that_cannot_even_be_started_is_tried_again(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with kept(1) as group:
        assert not await group.serves(60, tries=1)
        monkeypatch.undo()
        assert await group.serves(60)


async def test_all_end_on_a_stop_and_none_is_started_again(kept: Kept) -> None:
    async with kept(2) as group:
        assert await group.serves(60)
        pids = [group.pid(0), group.pid(1)]
        await group.stop(60)
        assert all(is_gone(pid) for pid in pids)
        assert sorted(group.ended) == [0, 1]


async def test_who_does_not_end_in_time_is_killed(kept: Kept) -> None:
    async with kept(1, "stubborn") as group:
        assert await group.serves(60)
        pid = group.pid(0)
        await group.stop(0)
        assert is_gone(pid)


async def test_no_process_is_left_after_a_stop_during_the_start(kept: Kept) -> None:
    async with kept(3) as group:
        await asyncio.sleep(0)
        await group.stop(60)
        assert not any(await asyncio.gather(*(group.accepts(ordinal) for ordinal in range(3))))
        assert all(is_gone(process.pid) for process in group._processes.values())


async def test_an_empty_process_group_serves_and_ends_immediately() -> None:
    group = ProcessGroup(ProcessSpec("nobody", "this", lambda _: Path("/nowhere")), 0)
    group.start()
    assert await group.serves(60)
    await group.stop(60)
