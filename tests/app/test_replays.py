"""The look-up of replays: a request that waits for a database read is answered in time, whatever the read does."""

import asyncio
import uuid
from typing import Any

import asyncpg
import pytest
from asyncpg.pgproto.pgproto import UUID

from fundledger.app.http.admission import replays as module
from fundledger.app.http.admission.replays import IDS_AT_ONCE, Replays
from tests.support.waiting import eventually


class Reads:
    """A pool whose reads return results of the test, when the test releases them."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[list[UUID]] = []
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def fetch(self, query: str, ids: list[UUID]) -> list[dict[str, UUID]]:
        self.asked.append(ids)
        await self.goes_on.wait()
        answer = self.answers.pop(0) if self.answers else ids
        if isinstance(answer, BaseException):
            raise answer
        return [{"id": id_} for id_ in answer]


def new() -> UUID:
    return UUID(uuid.uuid4().hex)


async def within(replays: Replays, id_: UUID) -> bool:
    async with asyncio.timeout(60):
        return await replays.known(id_)


async def test_what_is_recorded_is_known_and_nothing_else() -> None:
    recorded, other = new(), new()
    found = Replays(Reads([recorded]), "known")  # type: ignore[arg-type]
    assert await asyncio.gather(found.known(recorded), found.known(other)) == [True, False]


@pytest.mark.parametrize(
    "fault",
    [
        asyncpg.InternalClientError("got result for unknown protocol state"),
        asyncpg.InterfaceError("x"),
        OSError(),
        ValueError(),
    ],
    ids=lambda fault: type(fault).__name__,
)
async def test_a_read_that_fails_in_whatever_way_answers_all_who_wait_and_the_next_one_is_made(
    fault: Exception,
) -> None:
    reads = Reads(fault)
    lookup = Replays(reads, "known")  # type: ignore[arg-type]
    ids = [new(), new()]
    assert await asyncio.gather(*(within(lookup, id_) for id_ in ids)) == [False, False]
    assert await within(lookup, ids[0])
    assert len(reads.asked) == 2


async def test_requests_that_wait_for_a_hanging_read_are_answered_in_time_and_no_other_read_is_made() -> None:
    reads = Reads()
    reads.goes_on.clear()
    lookup = Replays(reads, "known")  # type: ignore[arg-type]
    # Each of these requests is answered although the read still hangs.
    assert await asyncio.gather(*(within(lookup, new()) for _ in range(5))) == [False] * 5
    assert await asyncio.gather(*(within(lookup, new()) for _ in range(2 * IDS_AT_ONCE))) == [False] * 2 * IDS_AT_ONCE
    assert len(reads.asked) == 1
    # Reads without waiting requests are still running. The look-up reports immediately that it has no room for more.
    assert not lookup.has_room()
    assert await lookup.known(new()) is False
    reads.goes_on.set()
    await eventually(lookup.has_room, "those that waited are looked up")
    assert await within(lookup, new())


async def test_a_lookup_that_is_ended_answers_those_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 60.0)
    reads = Reads()
    reads.goes_on.clear()
    lookup = Replays(reads, "known")  # type: ignore[arg-type]
    waiting = asyncio.create_task(lookup.known(new()))
    await eventually(lambda: reads.asked, "it is read")
    assert lookup._reading is not None
    lookup._reading.cancel()
    assert await asyncio.wait_for(waiting, 60) is False
