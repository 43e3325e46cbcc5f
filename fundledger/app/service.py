"""What every request handler works with: the worker's lanes, its reads, its memory of accounts."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import asyncpg
import msgspec

from fundledger.app.metrics import Metrics
from fundledger.app.problems import unverified
from fundledger.app.repeats import Repeats
from fundledger.app.reply import Reply
from fundledger.app.served import Worker
from fundledger.app.settings import Settings
from fundledger.daemons.roster import Roster
from fundledger.hotspot.direct import Direct
from fundledger.hotspot.flusher import Flusher
from fundledger.hotspot.folder import Folder
from fundledger.hotspot.keeper import Keeper
from fundledger.hotspot.lane import Lane
from fundledger.ledger.accounts import Layout, NewAccount, Opened, open_accounts
from fundledger.ledger.batch import Command, Outcome
from fundledger.ledger.directory import AccountTampered, Directory
from fundledger.ledger.evidence import Found, write_findings
from fundledger.ledger.fault import Fault, Unavailable
from fundledger.ledger.integrity import Tampered, record_finding
from fundledger.outbox.feed import Feed
from fundledger.ratelimit.limiter import Limiter
from fundledger.security.keys import Keys
from fundledger.security.tokens import Tokens

_log = logging.getLogger(__name__)
T = TypeVar("T")
DURABLE_ATTEMPTS = 4
FUND_MODULE: Final = "fund"
"""Its requests were limited, and written ahead, at its own door."""


class Daemons(msgspec.Struct, frozen=True):
    """What a worker does by itself."""

    keeper: Keeper
    folder: Folder


class Service(Worker):
    """One worker's share of the account service."""

    def __init__(
        self,
        settings: Settings,
        layout: Layout,
        keys: Keys,
        directory: Directory,
        lanes: "list[Lane | Direct]",
        daemons: "Daemons",
        flusher: Flusher | None,
        pool: "asyncpg.Pool[asyncpg.Record]",
        tokens: Tokens,
        metrics: Metrics,
        run_dir: Path,
        ordinal: int,
        *,
        limiter: Limiter | None = None,
        feed: Feed,
    ) -> None:
        super().__init__(settings, pool, tokens, metrics, run_dir, ordinal, limiter=limiter, trusted=FUND_MODULE)
        self.layout = layout
        self.keys = keys
        self.directory = directory
        self.lanes = lanes
        self.daemons = daemons
        self.flusher = flusher
        self.metrics = metrics
        self.repeats = Repeats(pool)
        self.feed = feed
        self.roster: Roster
        self._opening: list[tuple[NewAccount, asyncio.Future[Opened]]] = []
        self._opener: asyncio.Task[None] | None = None

    async def ask(self, shard: int, command: Command) -> Outcome | Fault:
        """Post a command and wait for its answer. Raises LaneFull. Cancelling does not withdraw it."""
        future: asyncio.Future[Outcome | Fault] = asyncio.get_running_loop().create_future()

        def answer(_: int, outcome: Outcome | Fault) -> None:
            if not future.done():
                future.set_result(outcome)

        self.lanes[shard].post(command, answer)
        return await future

    async def reading_durable(self, read: Callable[[], Awaitable[T]]) -> T:
        """Run a read whose answer stays true whatever fails: what it saw is flushed first. Raises Unavailable."""
        for _ in range(DURABLE_ATTEMPTS):
            answer = await self.reading(read)
            if self.flusher is None or await self.flusher.flush():
                return answer
            # What was seen may be gone: look again.
        raise Unavailable("the database does not answer")

    async def reading_verified(self, read: Callable[[], Awaitable[T]]) -> T:
        """As `reading_durable`, of rows that are verified: what does not verify is recorded as a finding.

        Raises Unavailable, Tampered.
        """
        try:
            return await self.reading_durable(read)
        except AccountTampered as error:
            found = Tampered.record(error)
        except Tampered as error:
            found = error
        await self.reading(lambda: self.record(found))
        raise found

    async def record(self, found: Tampered) -> None:
        """Log a finding, which a repetition does not repeat, and keep it."""
        extra = {"event": "integrity_finding", "account": found.account_id, "once": str(found)}
        _log.critical("rows do not verify and are not shown: %s", found, extra=extra)
        async with self.pool.acquire() as connection:
            await record_finding(connection, self.keys, found)  # type: ignore[arg-type]

    async def unverified(self, kind: str, key: str, wrong: Exception) -> Reply:
        """The answer of a read of a voucher or a hold that does not verify, which is logged and kept once. Raises
        Unavailable.
        """
        evidence = msgspec.json.encode({"read": str(wrong)}).decode()

        async def keep() -> int:
            async with self.pool.acquire() as connection, connection.transaction():
                return await write_findings(connection, self.keys, [Found(evidence, kind, key)])  # type: ignore[arg-type]

        if await self.reading(keep):
            _log.critical("%s %s does not verify: %s", kind, key, wrong, extra={"event": "integrity_finding"})
        return unverified(str(wrong))

    async def open_account(self, request: NewAccount) -> Opened:
        """Open one account, together with all that are asked for meanwhile. Raises Unavailable."""
        future: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self._opening.append((request, future))
        if self._opener is None or self._opener.done():
            self._opener = asyncio.get_running_loop().create_task(self._open_waiting())
        try:
            return await future
        finally:
            # Its exception refers to this frame.
            del future

    async def _open_waiting(self) -> None:
        while self._opening:
            waiting, self._opening = self._opening[:500], self._opening[500:]
            try:
                opened = await self.reading_durable(lambda w=waiting: self._open([request for request, _ in w]))  # type: ignore[misc]
            except Exception as error:
                for _, future in waiting:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(waiting, opened, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def _open(self, requests: list[NewAccount]) -> list[Opened]:
        async with self.pool.acquire() as connection:
            return await open_accounts(connection, self.directory, self.keys, self.layout, requests)  # type: ignore[arg-type]

    async def drain(self) -> None:
        """Wait until everything accepted has been answered."""
        await self.spawned()
        for lane in self.lanes:
            await lane.drain()

    async def close(self) -> None:
        for lane in self.lanes:
            await lane.close()
        if self.flusher is not None:
            await self.flusher.close()
        await self.feed.close()
        await self.roster.pool.close()
        await self.pool.close()
