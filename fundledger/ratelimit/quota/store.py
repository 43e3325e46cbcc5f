"""Client of the rate limiter's store (Redis or Valkey): pipelined scripts with a deadline and a circuit breaker.

A call returns within `DEADLINE_S` or raises StoreAway. The round trip to the store continues after the deadline, so
that no unread reply is left on the connection. Each reply contains the nonce of its request.
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

from fundledger.ratelimit.quota.bucket import SPACE
from fundledger.ratelimit.stats import Limits, Times

DEADLINE_S: Final = 0.005
ROUND_TRIP_S: Final = 0.05
"""Minimum timeout (s) of a round trip. The timeout is ten deadlines if that is longer. After the timeout the connection
is dropped."""
SHORT_S: Final = 1.0
"""Threshold (s) for the duration of an outage. After a shorter outage, the tokens spent meanwhile are charged in the
store. After a longer outage, buckets also start nearly empty (`mark.lua`)."""
FAILURES_IN_ROW: Final = 3
SILENT_S: Final = 0.1
"""Minimum duration (s) of failures before the breaker opens. A machine that is busy for milliseconds does not open
it."""
CALLS_MIN: Final = 10
MISSED_SHARE: Final = 0.2
PROBE_EVERY_S: Final = (0.1, 0.2)
HEARTBEAT_S: Final = 1.0
WORKER_LIVES_S: Final = 5
CALLS_AT_ONCE: Final = 256
SINCE: Final = f"{{{SPACE}}}:since"
BACK: Final = f"{{{SPACE}}}:back"
_SCRIPTS: Final = {
    name: (files("fundledger.ratelimit.quota") / f"{name}.lua").read_text() for name in ("decide", "mark", "heartbeat")
}
_SHAS: Final = {name: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()}
_log = logging.getLogger(__name__)

Late = Callable[[list[int] | None], None]


class _NoReply(NamedTuple):
    """Result of a failed call, with the reason.

    The failure is set as a result of the future, not as an exception. The traceback of an exception would refer to the
    waiting frame, which refers to the future. Such reference cycles, one for each request, made the garbage collector
    stop a worker for 0.2 s.
    """

    why: str


Call = tuple[str, Sequence[str], list[Any], "asyncio.Future[Any]", Callable[[Any], None]]
"""`(script, keys, arguments, future of the reply, callback for a late reply)`."""


class StoreAway(Exception):
    """The reply was late or an error, or the breaker is open. The script may have run."""


class Breaker:
    """Circuit breaker. While it is open, the store counts as unavailable. A successful probe closes it.

    The breaker opens after three failed round trips in a row that extend over at least `SILENT_S`. It also opens if
    more than a fifth of the round trips of one second fail.
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
        """Record a failed round trip: an error or a late reply."""
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
    """Store connection of one worker. `name` is unique among all workers.

    `workers` is the number of live workers at the last heartbeat, and at least the number given at construction.
    `outages` counts outages of the store. The caller must run `run` as a task, because `run` sends the calls.
    Cancelling a `call` does not withdraw it from the store.
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
            # With its own time limit for a write, the library may swallow a cancellation (Python 3.11), so that neither
            # the end of the worker nor the time limits of this class would end a call.
            socket_timeout=None,
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
        """Run decide.lua. Return the reply without the nonce: admitted, then four numbers for each key.

        Raises StoreAway. If the call ends without a reply (late, cancelled, or the store is unavailable), `late` is
        called once. Its argument is the reply if it arrives later, and None if the script did not run or its outcome is
        unknown.
        """
        nonce = str(next(self._nonces))

        def without_nonce(reply: Any) -> None:
            late(reply[1:] if reply is not None and reply[0] == nonce else None)

        reply = await self.call(
            "decide", [self._since, self._back, *keys], [nonce, *numbers], deadline_s, without_nonce
        )
        if reply[0] != nonce:
            late(None)
            _log.critical(
                "the rate limit store sent a reply to another request", extra={"event": "limit_store_wrong_reply"}
            )
            self._failed("decide", "error")
            if not self.breaker.open:
                self._went_away()
            # Each later reply on this connection would also belong to another request.
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
        """Run a script and return its reply.

        Raises StoreAway after `deadline_s` (default: `DEADLINE_S`), or immediately while the breaker is open. If the
        call ends without a reply, `late` is called once: with the reply if it arrives later, otherwise with None.
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
            # If the event loop was busy, the reply may have arrived without being read: allow one more iteration.
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
        # Many calls may share one round trip. A failed round trip is counted once.
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
        _log.error(
            "the rate limit store is away: this worker uses its local quota of each limit",
            extra={"event": "limit_store_away"},
        )
        waiting, self._queue = self._queue, deque()
        for call in waiting:
            _end(call, StoreAway("the breaker opened"))
        # `run` may be waiting for a call, and no call arrives until a probe has succeeded.
        self._wake.set()

    async def run(self) -> None:
        """Send queued calls and heartbeats, and probe the store while it is unavailable, until cancelled."""
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
            # This is a new exception, because the traceback of `error` refers to this frame: see _NoReply.
            replies = [StoreAway(str(error))] * len(calls)
        for call, reply in zip(calls, replies, strict=True):
            if isinstance(reply, BaseException) and not call[3].done():
                self._failed(call[0], "error")
            _end(call, reply)
        if isinstance(replies[0], BaseException):
            # Record the failure here too. The loop above records it only if a call was still waiting.
            self._failed("connection", "error")
        if self._failed_trip != self._trip:
            self.breaker.succeeded(time.monotonic())
        self._trip += 1

    async def _round_trip(self, calls: list[Call]) -> list[Any]:
        replies = await self._pipeline(calls)
        # NoScriptError: the store was restarted, or its scripts were flushed, and none of these calls has run. They are
        # sent again with the text of the script, which also works if the scripts are flushed again.
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
                # The failure is already counted, and the next heartbeat follows in a second.
                self._fewer = 0
            except Exception:
                _log.exception(
                    "a heartbeat to the rate limit store failed", extra={"event": "limit_store_heartbeat_failed"}
                )
            await asyncio.sleep(HEARTBEAT_S)

    def _heard(self, workers: int) -> None:
        """Record the number of live workers.

        An increase takes effect immediately. A decrease takes effect only after more than WORKER_LIVES_S heartbeats in
        a row, so that each live worker has sent one.
        """
        self._fewer = 0 if workers >= self.workers else self._fewer + 1
        if workers > self.workers or self._fewer > WORKER_LIVES_S:
            self.workers = max(1, self._siblings, workers)

    async def _meet(self) -> None:
        """Initialise the store on first contact. The last loss of data is set to time 0, so buckets start full."""
        await self._redis.set(self._since, 0, nx=True)
        self._met = True

    async def _probe(self) -> None:
        await asyncio.sleep(random.uniform(*PROBE_EVERY_S))  # noqa: S311 - spreads the workers' probes
        try:
            async with asyncio.timeout(self._round_trip_s):
                if not self._met:
                    await self._meet()
                elif time.monotonic() - (self.away_since or 0.0) < SHORT_S:
                    # The probe is a write, because a store without free memory executes reads but no scripts.
                    await self._redis.set(self._probed, 1, px=1000)
                else:
                    await self._redis.eval(_SCRIPTS["mark"], 1, self._back)
        except (RedisError, OSError, TimeoutError):
            await self._drop_connection()
            return
        self.breaker.close()
        away_s = time.monotonic() - (self.away_since or 0.0)
        self.away_since = None
        _log.warning("the rate limit store is back", extra={"event": "limit_store_back", "away_s": round(away_s, 1)})


def _end(call: Call, reply: Any) -> None:
    """End a call: set the result of its future.

    Also call `late` if the caller no longer waits or the reply is a failure.
    """
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
