"""Python client: the base class of both service clients. It has the connections, the readiness and the event feed."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType
from typing import Final, Self

import msgspec

from fundledger.client.connection import Connection, Retries, decoder
from fundledger.client.event import Event
from fundledger.client.faults import Unavailable

IDLE_S: Final = 1.0
"""Minimum time in seconds between polls that return no events, if the service answers without waiting."""


class _Events(msgspec.Struct):
    events: list[Event]
    next: int | None = None


_events = decoder(_Events)


class Service:
    """Base class of the clients of both services.

    `timeout_s`: time limit of each call, including all retries. `connections`: maximum number of concurrent requests;
    further requests wait. `retries`: the retry policy; None: no retries.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None,
        timeout_s: float = 30.0,
        connections: int = 100,
        retries: Retries | None = None,
    ) -> None:
        self._to = Connection(base_url, token, timeout_s, connections, retries)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Create the HTTP session. This does not connect to the service: if it is unreachable, the first call fails."""
        await self._to.open()

    async def close(self) -> None:
        """Close all connections. Calls that are in progress fail."""
        await self._to.close()

    async def is_ready(self) -> bool:
        """Return whether the service is ready. A service is not ready if it is unreachable, is draining, or has no
        database.
        """
        try:
            return (await self._to.ask("GET", "/readyz")).status == 200
        except Unavailable:
            return False

    async def events(
        self, after: int | None = None, limit: int = 500, wait_s: float = 20.0, follow: bool = True
    ) -> AsyncIterator[Event]:
        """Yield the events after a `seq`, oldest first. With `follow`, wait for new events; otherwise stop at the last
        event.

        Each event is delivered at least once. Events of one account or one order are in order. Store the `seq` of the
        last processed event, and continue after this `seq`. The service holds each request for at most `wait_s` seconds
        until there is an event. Raises Refused and faults. After a fault, call this method again with the last `seq`.
        """
        query = {"limit": str(limit)}
        if follow:
            query["wait_s"] = f"{wait_s:g}"
        while True:
            if after is not None:
                query["after"] = str(after)
            asked_at = time.monotonic()
            timeout_s = self._to.timeout_s + (wait_s if follow else 0.0)
            page = _events(await self._to.ask("GET", "/v1/events", query=query, timeout_s=timeout_s))
            for event in page.events:
                yield event
            if page.events:
                after = page.events[-1].seq
            if page.next is not None:
                after = page.next
            if not page.events:
                if not follow:
                    return
                await asyncio.sleep(max(0.0, min(wait_s, IDLE_S) - (time.monotonic() - asked_at)))


def time_text(moment: datetime) -> str:
    """Return a time in RFC 3339 format. Raises ValueError for a time without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("the time must have a time zone")
    return moment.isoformat()
