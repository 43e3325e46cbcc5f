"""What both services have: a connection that is opened and closed, health, events."""

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
"""How often events are asked for where there are none and the service does not wait for one."""


class _Events(msgspec.Struct):
    events: list[Event]
    next: int | None = None


_events = decoder(_Events)


class Service:
    """`timeout_s`: of each call, from the first byte to the last, with all its retries. `connections`: at most so many
    requests are under way, others wait for their turn. `retries`: none unless asked for.
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
        """Connects to nothing yet: a service that is not there shows at the first call."""
        await self._to.open()

    async def close(self) -> None:
        """Calls that wait for an answer fail."""
        await self._to.close()

    async def is_ready(self) -> bool:
        """Whether it serves: False when it cannot be reached, drains, or has no database."""
        try:
            return (await self._to.ask("GET", "/readyz")).status == 200
        except Unavailable:
            return False

    async def events(
        self, after: int | None = None, limit: int = 500, wait_s: float = 20.0, follow: bool = True
    ) -> AsyncIterator[Event]:
        """Events after a `seq`, the oldest first, as they come; without `follow`, until there are no more.

        At least once, ordered per account or order: remember `seq` of the last one that was dealt with, and begin after
        it. Waits at the service, at most `wait_s` at a time. Raises what a call raises; go on after the last `seq`.
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
    """RFC 3339. Raises ValueError for a time that does not say where."""
    if moment.tzinfo is None:
        raise ValueError("a time without its zone is no instant")
    return moment.isoformat()
