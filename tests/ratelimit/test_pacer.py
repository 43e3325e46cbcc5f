"""The pacer: turns are evenly spaced and single. A caller that gets no turn in time is rejected and counted once."""

import asyncio
import time

import pytest

from fundledger.ratelimit.pacer import Pacer, TooMuch
from tests.support.waiting import eventually


async def test_turns_come_at_the_rate_and_without_a_burst() -> None:
    pacer = Pacer(200)
    started = time.monotonic()
    for _ in range(11):
        await pacer.turn()
    # The first turn is free. The bound is a lower one, so that a slow machine changes nothing.
    assert time.monotonic() - started >= 10 / 200 * 0.98


async def test_an_idle_pacer_saves_nothing_up() -> None:
    pacer = Pacer(200)
    await pacer.turn()
    idle_until = time.monotonic() + 0.1
    await eventually(lambda: time.monotonic() > idle_until, "idle for twenty turns")
    started = time.monotonic()
    for _ in range(6):
        await pacer.turn()
    assert time.monotonic() - started >= 5 / 200 * 0.98


async def test_no_more_wait_than_may() -> None:
    pacer = Pacer(0.001, waiters_max=3)
    await pacer.turn()
    waiting = [asyncio.create_task(pacer.turn()) for _ in range(3)]
    await eventually(lambda: pacer.waiting == 3, "three wait")
    with pytest.raises(TooMuch, match="3 are waiting"):
        await pacer.turn()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert pacer.waiting == 0


async def test_a_caller_that_waited_for_too_long_gets_an_error_and_no_turn() -> None:
    pacer = Pacer(0.001, turn_s=0.01)
    await pacer.turn()
    with pytest.raises(TooMuch, match=r"no turn within 0\.01 s"):
        await pacer.turn()
    assert pacer.waiting == 0


async def test_a_turn_that_was_given_up_goes_to_the_next() -> None:
    pacer = Pacer(20)
    await pacer.turn()
    given_up = [asyncio.create_task(pacer.turn()) for _ in range(10)]
    await eventually(lambda: pacer.waiting == 10, "ten wait")
    for task in given_up:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*given_up, return_exceptions=True)
    )
    assert pacer.waiting == 0
    # Eleven turns from now would take half a second: a turn time-out of less would be TooMuch.
    pacer._turn_s = 0.4
    await pacer.turn()


@pytest.mark.parametrize("per_second", [500, 20_000], ids=["timers in turn", "timers that are due together"])
async def test_a_waiting_caller_gets_a_turn_before_a_later_one(per_second: float) -> None:
    pacer = Pacer(per_second)
    order: list[int] = []

    async def one(i: int) -> None:
        await pacer.turn()
        order.append(i)

    await asyncio.gather(*(one(i) for i in range(50)))
    assert order == list(range(50))
