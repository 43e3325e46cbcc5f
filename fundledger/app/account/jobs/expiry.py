"""Background job of the account service that ends expired holds."""

import logging
from typing import Final

import asyncpg

from fundledger.faults import Fault
from fundledger.jobs.job import Job, Lease, Ran
from fundledger.ledger.context import Books
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.hold import EndHold
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.store.directory import AccountTampered
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.session import FencedSession
from fundledger.ratelimit.pacer import Pacer
from fundledger.security.keys import KeyFault

HOLD_EXPIRY: Final = "hold_expiry"
EVERY_S = 1.0
AT_ONCE = 1000
ALARM_S: Final = 30.0
ROUNDS_PER_S: Final = 10
"""Maximum number of rounds per second. If many holds expire at one time, the limit leaves capacity for payments."""
STUCK_ROUNDS: Final = 60
"""Number of rounds after which accounts in `stuck` are retried."""
_log = logging.getLogger(__name__)


class Expiry:
    """The job `hold_expiry`. Concurrent runs are safe: a hold ends only once."""

    def __init__(self, dsn: str, pool: "asyncpg.Pool[asyncpg.Record]", books: Books) -> None:
        self._pool = pool
        self._books = books
        self._session = FencedSession(dsn, f"fundledger expiry {books.ordinal}")
        self._rounds = 0
        self._pacer = Pacer(ROUNDS_PER_S)
        self.stuck: set[int] = set()
        """Accounts whose holds cannot be ended. Such accounts do not block other accounts."""

    def job(self) -> Job:
        return Job(HOLD_EXPIRY, self.run, EVERY_S, alarm_after_s=ALARM_S, ended=self._session.drop)

    async def run(self, lease: Lease) -> Ran:
        """Run one round. Raises LeaseLost, asyncpg errors, TooMuch. Retrying is always safe.

        The lag is 0 if no expired hold remains. Otherwise the lag is the time since the earliest expiry of this round.
        """
        self._session.lease = lease
        self._rounds += 1
        if self._rounds % STUCK_ROUNDS == 0:
            self.stuck.clear()
        await self._pacer.turn()
        now = clock.moment(clock.now_us())
        rows = await self._pool.fetch(SQL["expired_holds"], now, AT_ONCE, sorted(self.stuck))
        ended = await self._end(rows)
        if ended < AT_ONCE:
            return Ran(ended)
        return Ran(ended, max((now - row["expires_at"]).total_seconds() for row in rows), more=True)

    async def _end(self, rows: list[asyncpg.Record]) -> int:
        """End the holds in `rows`. Return how many were ended."""
        accounts: dict[int, Account] = {}
        for number in {row["account_number"] for row in rows}:
            try:
                accounts |= await self._books.directory.by_number(self._pool, [number])
            except (AccountTampered, KeyFault) as error:
                extra = {"event": "integrity_finding", "once": f"expiry {error}"}
                _log.critical("expired holds of an account are not ended: %s", error, extra=extra)
                self.stuck.add(number)
        commands = [
            EndHold(row["id"], accounts[row["account_number"]], row["slot"], row["module"], expire=True)
            for row in rows
            if row["account_number"] in accounts
        ]
        outcomes = await post_vouchers(self._session, self._books, commands) if commands else []
        failed = [
            command.account.number
            for command, outcome in zip(commands, outcomes, strict=True)
            if isinstance(outcome, Fault) or outcome.refusal is not None
        ]
        self.stuck.update(failed)
        return len(commands) - len(failed)
