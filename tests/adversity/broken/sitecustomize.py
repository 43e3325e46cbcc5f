"""Breaks a `serve` that is started with this folder in PYTHONPATH, or the workers of it. PYTHON_BROKEN names the fault.

The chaos tests have to fail with each of these faults. Otherwise they would prove nothing.
"""

import asyncio
import os
import sys

COMMIT_AFTER_S = 0.3


class EarlyConnection:
    """A connection that reports a commit, and commits a little later."""

    def __init__(self, connection, commit):
        self._connection = connection
        self._commit = commit
        self._committing = None

    async def settled(self):
        if self._committing is not None:
            await self._committing

    async def execute(self, query, *arguments):
        if query == self._commit:
            self._committing = asyncio.create_task(self._commit_later())
            return "COMMIT"
        await self.settled()
        return await self._connection.execute(query, *arguments)

    async def fetch(self, query, *arguments):
        await self.settled()
        return await self._connection.fetch(query, *arguments)

    async def _commit_later(self):
        await asyncio.sleep(COMMIT_AFTER_S)
        await self._connection.execute(self._commit)

    def __getattr__(self, name):
        return getattr(self._connection, name)


class EarlyStatement:
    def __init__(self, statement, connection):
        self._statement = statement
        self._connection = connection

    async def fetch(self, *arguments):
        await self._connection.settled()
        return await self._statement.fetch(*arguments)


def answer_before_commit():
    from fundledger.ledger.store import session

    open_ = session.Session.open
    # A batch that is decided from the write cache commits itself, without a COMMIT that could be reported early.
    session.WriteCache.recall = lambda self, *arguments: None

    async def open_early(self):
        connection = await open_(self)
        if getattr(self, "_early_of", None) is not connection:
            self._early_of = connection
            self._early = EarlyConnection(connection, session.COMMIT)
            self.lock = EarlyStatement(self.lock, self._early)
            self.write = EarlyStatement(self.write, self._early)
        return self._early

    session.Session.open = open_early


def answer_before_disk():
    from fundledger.hotspot import flusher
    from fundledger.ledger.store.queries import SQL

    flusher.Flusher.after = lambda self, then: then(True)
    SQL["write_batch"] = SQL["write_batch"].replace("$43::text, true", "left($43::text, 0) || 'off', true")


def forget_the_dead():
    from fundledger.app.host.processes import scrape

    def forget(self, worker):
        worker.last = None

    scrape.Totals._keep = forget


WORKERS = {"answer before commit": answer_before_commit, "answer before disk": answer_before_disk}
SUPERVISOR = {"forget the dead": forget_the_dead}
broken = os.environ.get("PYTHON_BROKEN", "")
if "fundledger.app.account.server" in sys.orig_argv and broken in WORKERS:
    WORKERS[broken]()
elif "serve" in sys.orig_argv and broken in SUPERVISOR:
    SUPERVISOR[broken]()
