"""Admission of HTTP requests without quota: a request whose id is recorded is a replay, and costs no tokens.

Many rejected requests must not cause many reads. So all waiting ids are looked up together, READS_PER_S times a second.
"""

import asyncio
import logging
from typing import Any, Final
from uuid import UUID

import asyncpg

from fundledger.ratelimit.pacer import Pacer, TooMuch

READS_PER_S: Final = 20
IDS_AT_ONCE: Final = 64
WAIT_S: Final = 0.1 + 1 / READS_PER_S
"""Maximum wait for a look-up, in seconds: the longest time until the next read begins, plus 0.1 for the read."""
_log = logging.getLogger(__name__)
_AWAY: Final = (
    TooMuch,
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)


class Replays:
    """Replay look-ups of one worker: at most `READS_PER_S` reads a second, each of at most `IDS_AT_ONCE` ids.

    Ids beyond this number are not looked up. `known`: the SQL that returns the recorded ids among the ids `$1`. If
    every module has its own ids, the SQL also returns the `module` of each id.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", known: str) -> None:
        self._pool = pool
        self._known = known
        self._pacer = Pacer(READS_PER_S, waiters_max=1)
        self._asked: dict[tuple[str | None, UUID], asyncio.Future[bool]] = {}
        self._reading: asyncio.Task[None] | None = None

    def has_room(self) -> bool:
        """Return whether one more id would be looked up."""
        return len(self._asked) < IDS_AT_ONCE

    async def known(self, id_: UUID, module: str | None = None) -> bool:
        """Return whether this id is recorded, as posted or as refused. `module`: None if all modules share the ids.
        Return False, too, if there is no room for the id, or if the database does not answer within WAIT_S seconds.
        Never raises. Cancelling does not end the read, because other callers may wait for the same read.
        """
        if not self.has_room():
            return False
        key = module, id_
        future = self._asked.get(key)
        if future is None:
            future = self._asked[key] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())
        # A read that hangs is not cancelled, because cancelling would wait for the server, too.
        await asyncio.wait([future], timeout=WAIT_S)
        return future.done() and future.result()

    async def _read(self) -> None:
        while self._asked:
            found: set[Any] = set()
            asked: dict[tuple[str | None, UUID], asyncio.Future[bool]] = {}
            try:
                await self._pacer.turn()
                asked, self._asked = self._asked, {}
                rows = await self._pool.fetch(self._known, list({id_ for _, id_ in asked}))
                found = {(row.get("module"), row["id"]) for row in rows}
            except _AWAY:
                pass
            except Exception:
                _log.exception("replays could not be looked up", extra={"event": "replay_lookup_failed"})
            finally:
                # The waiting callers are answered after any error, too, because no other read would answer them.
                if not asked:
                    asked, self._asked = self._asked, {}
                for key, future in asked.items():
                    if not future.done():
                        future.set_result(key in found)
