"""Delivery of outbox events to webhooks. Each endpoint gets its events in order and at least once. A slow or failing
endpoint does not block the others.

Each event after the cursor is fanned out once: one delivery is inserted for each subscribed endpoint. Each endpoint
with a due delivery has its own task, which sends one delivery after the other. So the next event of an endpoint waits
until the previous event is delivered or dead. When endpoints are started, the merchants take turns. `places` limits how
many endpoints are served concurrently: in total, per merchant and per receiver. A fourth limit is for endpoints that
failed before or were slow.

An attempt without a 2xx answer within TIMEOUT_S is retried with increasing pauses. After the last attempt the delivery
is dead. An API request can restart a dead delivery. The answer 410 Gone disables the endpoint. After a crash, an
attempt without a recorded result is repeated, with the same `webhook-id`.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import aiohttp
import asyncpg

from fundledger.database.statements import load
from fundledger.outbox import signature
from fundledger.outbox.destination import Forbidden, PublicResolver, bad_url
from fundledger.outbox.feed import Feed
from fundledger.outbox.places import MERCHANT_MAX, Places
from fundledger.outbox.stream import Guard, Sent
from fundledger.outbox.webhooks import Macs, disable, verifies

SQL: Final = load("fundledger.outbox")
CURSOR: Final = "webhooks"
AT_ONCE: Final = 500
DUE_MAX: Final = 512
"""The maximum number of due endpoints that one run reads. The run starts the endpoints for which a place is free."""
IN_A_ROW: Final = 50
IN_A_ROW_S: Final = 5.0
TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 16 << 10
AFTER_S: Final = (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200)
"""Pauses between attempts, in seconds. The last attempt follows the last pause."""
JITTER: Final = 0.2
KEPT_DAYS: Final = 7
GONE: Final = 410
_log = logging.getLogger(__name__)


class Deliverer:
    """The webhook deliverer of a process. `private`: endpoints may be on this machine and its networks. Call `close`
    when the process ends.
    """

    def __init__(self, feed: Feed, pool: "asyncpg.Pool[asyncpg.Record]", macs: Macs, *, private: bool) -> None:
        self._macs = macs
        self._unverified: set[UUID] = set()
        self._feed = feed
        self._pool = pool
        self._private = private
        self._client: aiohttp.ClientSession | None = None
        self._serving: dict[UUID, asyncio.Task[None]] = {}
        self._places = Places()
        self._delivered = 0
        self._forgot_at = time.monotonic()

    async def deliver(self, guard: Guard) -> Sent:
        """Run once: fan out new events, and start a task for each endpoint that has a due delivery and a free place.
        The tasks continue after this method returns. Raises what asyncpg and `guard` raise. May be repeated.
        """
        more = await self._fan_out(guard)
        if self._places.free() > 0:
            slow = self._places.slow()
            bad = list(self._unverified)
            asked = list(self._serving), DUE_MAX, slow, MERCHANT_MAX, bad
            for row in await self._pool.fetch(SQL["due_webhooks"], *asked):
                if self._places.take(row["id"], row["merchant"], row["url"], late=row["late"]):
                    self._serve(row["id"], guard)
        if time.monotonic() - self._forgot_at > 60:
            self._forgot_at = time.monotonic()
            # Try all endpoints again: an operator may have restored rows that did not match their MACs.
            self._unverified.clear()
            await self._pool.execute(SQL["forget_delivered"], KEPT_DAYS, 10_000)
        lag_s = await self._pool.fetchval(SQL["delivery_lag"])
        done, self._delivered = self._delivered, 0
        return Sent(done, float(lag_s), more)

    def stop(self) -> None:
        """Cancel running deliveries. Call this when the lease was lost, because another process may now send the same
        deliveries.
        """
        for task in self._serving.values():
            task.cancel()

    async def close(self) -> None:
        self.stop()
        await asyncio.gather(*self._serving.values(), return_exceptions=True)
        if self._client is not None:
            await self._client.close()

    async def settled(self) -> None:
        """Wait until no endpoint is being served."""
        while self._serving:
            await asyncio.wait(self._serving.values())

    async def _fan_out(self, guard: Guard) -> bool:
        after = await self._pool.fetchval(SQL["read_cursor"], CURSOR) or 0
        top = await self._feed.top(after)
        # `top` is read before the endpoints: an endpoint that is added later gets only events after `top`.
        if top > after and not await self._pool.fetchval(SQL["any_webhook"]):
            async with self._pool.acquire() as connection, connection.transaction():
                await guard(connection)  # type: ignore[arg-type]
                await connection.execute(SQL["move_cursor"], CURSOR, top)
            return False
        events, upto = await self._feed.read(after, AT_ONCE, 0)
        if upto > after:
            sent = [
                (event, *to)
                for event in events
                for to in ([(event.about, event.body)] if event.for_each is None else event.for_each())
            ]
            columns: tuple[list[Any], ...] = (
                [event.seq for event, _, _ in sent],
                [event.id for event, _, _ in sent],
                [event.type for event, _, _ in sent],
                [merchant for _, merchant, _ in sent],
                [body.decode() for _, _, body in sent],
            )
            async with self._pool.acquire() as connection, connection.transaction():
                await guard(connection)  # type: ignore[arg-type]
                await connection.execute(SQL["fan_out"], *columns)
                await connection.execute(SQL["move_cursor"], CURSOR, upto)
        return len(events) == AT_ONCE

    def _serve(self, webhook: UUID, guard: Guard) -> None:
        task = asyncio.get_running_loop().create_task(self._serve_one(webhook, guard))
        self._serving[webhook] = task
        task.add_done_callback(self._forgetting(webhook))

    def _forgetting(self, webhook: UUID) -> Callable[["asyncio.Task[None]"], None]:
        def forget(task: "asyncio.Task[None]") -> None:
            self._serving.pop(webhook, None)
            self._places.give_back(webhook)
            if not task.cancelled() and task.exception() is not None:
                _log.warning(
                    "delivering to a webhook failed: %r",
                    task.exception(),
                    extra={"event": "webhook_failed", "webhook": str(webhook)},
                )

        return forget

    async def _serve_one(self, webhook: UUID, guard: Guard) -> None:
        """Send at most IN_A_ROW deliveries of an endpoint, for IN_A_ROW_S seconds, then free its place. Stop after a
        failure.
        """
        give_way_at = time.monotonic() + IN_A_ROW_S
        for _ in range(IN_A_ROW):
            row = await self._pool.fetchrow(SQL["next_delivery"], webhook)
            if row is not None and not verifies(self._macs, row):
                self._unverified.add(webhook)
                return
            if row is None or not await self._attempt(webhook, row, guard) or time.monotonic() > give_way_at:
                return

    async def _attempt(self, webhook: UUID, row: asyncpg.Record, guard: Guard) -> bool:
        began = time.monotonic()
        status, error = await self._send(row["url"], row["secret"], row["message"], row["body"].encode())
        self._places.answered(webhook, time.monotonic() - began)
        if error is None:
            state, pause_s = "delivered", 0.0
        elif row["attempts"] < len(AFTER_S):
            state, pause_s = "waiting", AFTER_S[row["attempts"]] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        else:
            state, pause_s = "dead", 0.0
            _log.error(
                "a webhook delivery is dead after its last attempt",
                extra={"event": "webhook_dead", "webhook": str(webhook), "seq": row["seq"], "why": error},
            )
        async with self._pool.acquire() as connection, connection.transaction():
            await guard(connection)  # type: ignore[arg-type]
            await connection.execute(SQL["end_attempt"], webhook, row["seq"], state, status, error, pause_s)
            if status == GONE:
                await disable(connection, self._macs, row, "it answered 410 Gone")
        self._delivered += error is None
        return error is None

    async def _send(self, url: str, secret: bytes, message: str, body: bytes) -> tuple[int | None, str | None]:
        """Send a delivery. Return `(status, error)`: status is None if no answer came, error is None if the answer was
        2xx.
        """
        why = bad_url(url, private=self._private)
        if why is not None:
            return None, why
        headers = {
            **signature.headers(secret, message, int(time.time()), body),
            "Content-Type": "application/json",
            "User-Agent": "fundledger",
        }
        try:
            async with self._session().post(url, data=body, headers=headers, allow_redirects=False) as answer:
                # The body is read and ignored: if the connection is closed early, the endpoint may get an error.
                await answer.content.read(ANSWER_BYTES_MAX)
                if 200 <= answer.status < 300:
                    return answer.status, None
                return answer.status, f"answered {answer.status}"
        except TimeoutError:
            return None, f"no answer within {TIMEOUT_S:g} s"
        except (OSError, aiohttp.ClientError, ValueError) as error:
            if isinstance(error.__cause__, Forbidden):
                return None, str(error.__cause__)
            return None, f"{type(error).__name__}: {error}"[:500].replace("\x00", "")

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            connector = aiohttp.TCPConnector(
                resolver=PublicResolver(private=self._private),
                use_dns_cache=False,
                # 0 is no limit: a wait for a connection would count against the timeout. `places` limits the
                # connections.
                limit=0,
                force_close=True,
            )
            self._client = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._client
