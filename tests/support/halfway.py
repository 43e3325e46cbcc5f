"""A worker that stops between its writes and its commit, so that a test can set up a race step by step."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator

from fundledger.ledger import posting
from fundledger.ledger.model.batch import Command, Outcome
from fundledger.ledger.store.session import COMMIT
from tests.support.ledger import Ledger
from tests.support.waiting import eventually


class Halfway:
    """One attempt of `post_vouchers`, whose commit is a separate call."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.outcomes: list[Outcome] = []

    async def write(self, *commands: Command) -> list[Outcome]:
        ledger = self.ledger
        batch, self.outcomes = await posting._decide(ledger.session, ledger.books, commands, secrets.randbits(62))
        await posting._write(await ledger.session.open(), ledger.session, ledger.books, batch)
        return self.outcomes

    async def commit(self) -> None:
        await (await self.ledger.session.open()).execute(COMMIT)

    async def rollback(self) -> None:
        await self.ledger.session.rollback()


async def is_waiting_for_a_lock(ledger: Ledger) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return bool(await ledger.connection.fetchval(query))


@contextlib.asynccontextmanager
async def overtaken(first: Ledger, ours: Command, second: Ledger, theirs: Command) -> AsyncIterator[list]:
    """Let two workers post concurrently, in this sequence.

    `first` writes `ours` and does not commit. `second` posts `theirs` and waits for a lock. `first` commits. Yields a
    list with both outcomes.
    """
    halfway = Halfway(first)
    outcomes = await halfway.write(ours)
    waiting = asyncio.create_task(second.post(theirs))
    try:

        async def is_blocked_or_done() -> bool:
            return waiting.done() or await is_waiting_for_a_lock(first)

        await eventually(is_blocked_or_done, "the second one waits for the first, or does not")
        await halfway.commit()
        yield [outcomes[0], (await waiting)[0]]
    finally:
        waiting.cancel()
