"""The way to Redis or Valkey: scripts, many to a round trip, with a deadline, and a breaker for when it is away.

Whoever asks gets an answer within `DEADLINE_S` or a StoreAway; the round trip itself goes on without him, so that a
caller who goes away leaves nobody else's reply on the wire. Each reply carries the nonce of what was asked.
"""

import asyncio
import contextlib
import hashlib
import itertools
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from fundledger.ratelimit.bucket import SPACE
from fundledger.ratelimit.counted import Limits, Times

DEADLINE_S: Final = 0.005
ROUND_TRIP_S: Final = 0.05
"""After so long (or ten deadlines) a connection is given up."""
SHORT_S: Final = 1.0
"""What was away for less is only told what was admitted meanwhile; what was for longer counts as spent at first."""
FAILURES_IN_ROW: Final = 3
SILENT_S: Final = 0.1
"""A machine that is busy for some milliseconds is not a store that is away."""
CALLS_MIN: Final = 10
MISSED_SHARE: Final = 0.2
PROBE_EVERY_S: Final = (0.1, 0.2)
HEARTBEAT_S: Final = 1.0
WORKER_LIVES_S: Final = 5
CALLS_AT_ONCE: Final = 256
SINCE: Final = f"{{{SPACE}}}:since"
BACK: Final = f"{{{SPACE}}}:back"
_SCRIPTS: Final = {
    name: (files("fundledger.ratelimit") / f"{name}.lua").read_text() for name in ("decide", "mark", "heartbeat")
}
_SHAS: Final = {name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()}
_log = logging.getLogger(__name__)

Late = Callable[[list[int] | None], None]


class _NoReply(NamedTuple):
    """The result of a call that failed, and why.

    It is no exception of the future: that would refer by its traceback to the frame that waits, which refers to the
    future. Such cycles, one for each request, made the garbage collector stop a worker for 0.2 s.
    """

    why: str


Call = tuple[str, Sequence[str], list[Any], "asyncio.Future[Any]", Callable[[Any], None]]
"""Which script, its keys and arguments, who waits for its reply, and whom to tell when he does not any more."""


class StoreAway(Exception):
    """No answer in time, an error instead of one, or it is known to be away. What was asked may have been done."""


class Breaker:
    """Closed until three round trips in a row fail and none succeeds for `SILENT_S`, or a fifth of those of a second
    fail; then open until a probe succeeds.
    """

    def __init__(self) -> None:
        self.open = False
        self._in_row = 0
        self._failing_since = 0.0
        self._window = 0.0
        self._calls = 0
        self._failures = 0

    def succeeded(self, now: float) -> None:
        self._in_row = 0
        self._count(now)

    def failed(self, now: float) -> None:
        """A failure: an error, or an answer that came too late."""
        if self._in_row == 0:
            self._failing_since = now
        self._in_row += 1
        self._count(now)
        self._failures += 1
        is_silent = self._in_row >= FAILURES_IN_ROW and now - self._failing_since >= SILENT_S
        if is_silent or (self._calls >= CALLS_MIN and self._failures > MISSED_SHARE * self._calls):
            self.open = True

    def close(self) -> None:
        self.open = False
        self._in_row = self._calls = self._failures = 0

    def _count(self, now: float) -> None:
        if now - self._window > 1.0:
            self._window = now
            self._calls = self._failures = 0
        self._calls += 1


class Store:
    """One connection of one worker. `name` tells it from all other workers. `workers` is how many live, as last heard,
    and at least those that it is told of at first. `outages` counts how often it went away.

    `run` has to be running for `call` to be answered. Cancelling a `call` withdraws nothing.
    """

    def __init__(
        self,
        url: str,
        name: str,
        counts: Limits,
        workers: int,
        deadline_s: float | None = None,
        *,
        space: str = SPACE,
    ) -> None:
        self._deadline_s = deadline_s or DEADLINE_S
        self._round_trip_s = max(ROUND_TRIP_S, 10 * self._deadline_s)
        self._redis = redis.asyncio.Redis.from_url(
            url,
            max_connections=4,
            socket_connect_timeout=self._round_trip_s,
            protocol=2,
            retry=None,
            decode_responses=True,
        )
        self._name = name
        self._since, self._back, self._probed, self._workers = [
            f"{{{space}}}:{what}" for what in ("since", "back", "probe", "workers")
        ]
        self._counts = counts
        self.workers = self._siblings = max(1, workers)
        self.breaker = Breaker()
        self.away_since: float | None = None
        self.outages = 0
        self._met = False
        self._trip = 0
        self._failed_trip = -1
        self._fewer = 0
        self._queue: deque[Call] = deque()
        self._wake = asyncio.Event()
        self._nonces = itertools.count(random.getrandbits(32))

    async def decide(
        self, keys: Sequence[str], numbers: Sequence[int], late: Late, deadline_s: float | None = None
    ) -> list[int]:
        """The reply of decide.lua without its nonce: admitted, then four numbers for each key. Raises StoreAway.

        Whoever does not get it here (away, too late, cancelled) has `late` called once: with the reply, if it comes
        after all; with None when it was never run, or nobody will ever know.
        """
        nonce = str(next(self._nonces))

        def without_nonce(reply: Any) -> None:
            late(reply[1:] if reply is not None and reply[0] == nonce else None)

        reply = await self.call(
            "decide", [self._since, self._back, *keys], [nonce, *numbers], deadline_s, without_nonce
        )
        if reply[0] != nonce:
            late(None)
            _log.critical("the store answered something that was not asked")
            self._failed("decide", "error")
            if not self.breaker.open:
                self._went_away()
            # What else comes over this connection is somebody else's, too.
            await self._drop_connection()
            raise StoreAway("a wrong reply")
        return reply[1:]  # type: ignore[no-any-return]

    async def call(
        self,
        op: str,
        keys: Sequence[str],
        arguments: list[Any],
        deadline_s: float | None = None,
        late: Callable[[Any], None] = lambda _: None,
    ) -> Any:
        """Run a script. Raises StoreAway after `deadline_s` (`DEADLINE_S`), at once while the breaker is open.

        `late`: as of `decide`.
        """
        if self.breaker.open:
            late(None)
            raise StoreAway("the breaker is open")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.append((op, keys, arguments, future, late))
        self._wake.set()
        started = time.monotonic()

        def overdue() -> None:
            # A loop that was busy sees the reply only now: once more around before it counts as late.
            loop.call_later(0.0005, give_up)

        def give_up() -> None:
            if not future.done():
                future.set_result(_NoReply("no answer in time"))
                self._failed(op, "timeout")

        timer = loop.call_later(deadline_s or self._deadline_s, overdue)
        try:
            reply = await future
        finally:
            timer.cancel()
        if type(reply) is _NoReply:
            raise StoreAway(reply.why)
        self._observe(op, time.monotonic() - started)
        return reply

    def _observe(self, op: str, seconds: float) -> None:
        key = f"{op} ok"
        self._counts.store_calls[key] = self._counts.store_calls.get(key, 0) + 1
        self._counts.store_s.setdefault(op, Times()).observe(seconds)

    def _failed(self, op: str, outcome: str) -> None:
        key = f"{op} {outcome}"
        self._counts.store_calls[key] = self._counts.store_calls.get(key, 0) + 1
        # Many may wait for one round trip; it fails once.
        if self.breaker.open or self._failed_trip == self._trip:
            return
        self._failed_trip = self._trip
        self.breaker.failed(time.monotonic())
        if self.breaker.open:
            self._went_away()

    def _went_away(self) -> None:
        self.breaker.open = True
        self.outages += 1
        self.away_since = time.monotonic()
        _log.error("the limiter's store is away: this worker goes on with its share of each limit")
        waiting, self._queue = self._queue, deque()
        for call in waiting:
            _end(call, StoreAway("the breaker opened"))
        # `run` may be waiting for a call, and there will be none until it has looked for the store.
        self._wake.set()

    async def run(self) -> None:
        """For ever: send what waits, beat the heart, and look for a store that was away. Cancelling ends it."""
        beating = asyncio.create_task(self._beat())
        try:
            while True:
                if self.breaker.open:
                    await self._probe()
                    continue
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                await self._send([self._queue.popleft() for _ in range(min(CALLS_AT_ONCE, len(self._queue)))])
        finally:
            beating.cancel()
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self._redis.aclose()

    async def _send(self, calls: list[Call]) -> None:
        given_up = [call for call in calls if call[3].done()]
        for call in given_up:
            call[4](None)
        calls = [call for call in calls if not call[3].done()]
        if not calls:
            return
        try:
            async with asyncio.timeout(self._round_trip_s):
                replies = await self._round_trip(calls)
        except (RedisError, OSError, TimeoutError) as error:
            await self._drop_connection()
            # Without its traceback, which refers to this call of `_send`: see _NoReply.
            replies = [StoreAway(str(error))] * len(calls)
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, BaseException) and not call[3].done():
                self._failed(call[0], "error")
            _end(call, reply)
        if isinstance(replies[0], BaseException):
            # Also when everybody who waited has been told before.
            self._failed("connection", "error")
        if self._failed_trip != self._trip:
            self.breaker.succeeded(time.monotonic())
        self._trip += 1

    async def _round_trip(self, calls: list[Call]) -> list[Any]:
        replies = await self._pipeline(calls)
        # The store was restarted, or its scripts were flushed: none of the calls that failed has run. They are sent
        # with their script, so that however often it is flushed, this time it is there.
        again = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if again:
            for i, reply in zip(again, await self._pipeline([calls[i] for i in again], whole=True), strict=True):
                replies[i] = reply
        return replies

    async def _pipeline(self, calls: list[Call], *, whole: bool = False) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for op, keys, arguments, _, _ in calls:
            if whole:
                pipeline.eval(_SCRIPTS[op], len(keys), *keys, *arguments)
            else:
                pipeline.evalsha(_SHAS[op], len(keys), *keys, *arguments)
        return await pipeline.execute(raise_on_error=False)

    async def _drop_connection(self) -> None:
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._redis.connection_pool.disconnect()

    async def _beat(self) -> None:
        while True:
            try:
                if not self._met and not self.breaker.open:
                    async with asyncio.timeout(self._round_trip_s):
                        await self._meet()
                self._heard(int(await self.call("heartbeat", [self._workers], [self._name, WORKER_LIVES_S])))
            except (StoreAway, RedisError, OSError, TimeoutError):
                # Counted where it failed; the next one is soon.
                self._fewer = 0
            except Exception:
                _log.exception("a heartbeat failed")
            await asyncio.sleep(HEARTBEAT_S)

    def _heard(self, workers: int) -> None:
        """More are believed at once; fewer, after all of those who are alive must have been heard of again."""
        self._fewer = 0 if workers >= self.workers else self._fewer + 1
        if workers > self.workers or self._fewer > WORKER_LIVES_S:
            self.workers = max(1, self._siblings, workers)

    async def _meet(self) -> None:
        """A store that is met for the first time has nothing to be sorry for: unless it says else, all is full."""
        await self._redis.set(self._since, 0, nx=True)
        self._met = True

    async def _probe(self) -> None:
        await asyncio.sleep(random.uniform(*PROBE_EVERY_S))  # noqa: S311 - spreads the workers' probes
        try:
            async with asyncio.timeout(self._round_trip_s):
                if not self._met:
                    await self._meet()
                elif time.monotonic() - (self.away_since or 0.0) < SHORT_S:
                    # A write: a store that is full answers, and cannot count.
                    await self._redis.set(self._probed, 1, px=1000)
                else:
                    await self._redis.eval(_SCRIPTS["mark"], 1, self._back)
        except (RedisError, OSError, TimeoutError):
            await self._drop_connection()
            return
        self.breaker.close()
        away_s = time.monotonic() - (self.away_since or 0.0)
        self.away_since = None
        _log.warning("the limiter's store is back", extra={"away_s": round(away_s, 1)})


def _end(call: Call, reply: Any) -> None:
    """The waiter gets a reply; where he has gone, or it is a failure, the other one is told."""
    future, late = call[3], call[4]
    is_failure = isinstance(reply, BaseException)
    if future.done() or is_failure:
        late(None if is_failure else reply)
    if future.done():
        return
    if is_failure:
        future.set_result(_NoReply(str(reply)))
    else:
        future.set_result(reply)
