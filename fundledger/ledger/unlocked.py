"""Posting without a lock: decide upon what a lane remembers or has just read, write by compare and set (ADR 0010).

A batch may be prepared while the one before it is still being written (ADR 0011). It is decided upon what that one will
leave, and sent only when that one was committed; if it was not, what was prepared is thrown away and decided again.
"""

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, TypeAlias

import asyncpg
import msgspec

from fundledger.database.failures import PASSING, was_rolled_back
from fundledger.ledger.batch import Command, Outcome
from fundledger.ledger.books import Books
from fundledger.ledger.columns import parameters
from fundledger.ledger.memory import Recalled
from fundledger.ledger.rows import take
from fundledger.ledger.rules import decide
from fundledger.ledger.session import Session
from fundledger.security.keys import KeyFault

_log = logging.getLogger(__name__)

OnSent: TypeAlias = Callable[[bool], None]


def nothing(_: bool) -> None:
    """Whoever has nothing to do while a batch is written."""


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A batch that is decided, but not sent: `outcomes[i]` will answer the i-th of its commands."""

    recalled: Recalled
    arguments: list[Any]
    outcomes: list[Outcome]
    failures: int


class Written(Enum):
    """Whether a prepared batch was committed."""

    YES = auto()
    NO = auto()
    UNKNOWN = auto()


async def prepare(session: Session, books: Books, commands: Sequence[Command]) -> Prepared | None:
    """Decide a batch without a lock, or None when it has to be decided under locks. Writes nothing; never raises.

    At most one batch may be in the database meanwhile. Cancelling forgets what was read.
    """
    memory = session.memory
    recalled = memory.recall(commands, secrets.randbits(62), books.ordinal, books.keys.current, books.calendar)
    if recalled is None:
        return None
    failures = memory.failures
    batch = recalled.batch
    batch.summarises = books.summarises
    try:
        if recalled.unread and not await _read(session, books, recalled):
            memory.disappoint(recalled)
            return None
        outcomes = decide(batch, commands)
        if batch.narrow or any(outcome.refusal is not None or outcome.replay for outcome in outcomes):
            memory.disappoint(recalled, refused=True)
            return None
        vouchers = [record for _, record in batch.new_vouchers]
        written = [s for s in batch.sub_accounts.values() if s.written]
        arguments = parameters(batch, recalled.shard, vouchers, written, batch.entries)
    except (*PASSING, asyncpg.InterfaceError, asyncpg.PostgresError, KeyFault):
        memory.disappoint(recalled)
        return None
    except Exception:
        # A bug: what deciding changed in memory must not be believed; the locked path isolates the item.
        _log.critical("preparing a batch failed", exc_info=True)
        memory.disappoint(recalled)
        return None
    except BaseException:
        memory.disappoint(recalled)
        raise
    return Prepared(recalled, arguments, outcomes, failures)


async def write_prepared(session: Session, prepared: Prepared, on_sent: OnSent) -> Written:
    """Write what was prepared, if everything that it was decided upon still stands."""
    memory, recalled = session.memory, prepared.recalled
    if prepared.failures != memory.failures:
        memory.forget(recalled)
        return Written.NO
    sent = False
    try:
        write = await session.unlocked()
        memory.expect(recalled)
        on_sent(True)
        sent = True
        began = time.perf_counter()
        await write.fetch(*prepared.arguments)
        session.commits.append(("write", time.perf_counter() - began))
    except (*PASSING, asyncpg.InterfaceError) as error:
        memory.fail(recalled)
        session.drop()
        return Written.UNKNOWN if sent and not was_rolled_back(error) else Written.NO
    except asyncpg.PostgresError as error:
        if sent and not was_rolled_back(error):
            memory.fail(recalled)
            session.drop()
            return Written.UNKNOWN
        memory.is_too_early(error)
        memory.fail(recalled, refused=isinstance(error, asyncpg.UniqueViolationError))
        return Written.NO
    except Exception:
        _log.critical("posting without a lock failed", exc_info=True)
        memory.fail(recalled)
        session.drop()
        return Written.UNKNOWN if sent else Written.NO
    except BaseException:
        memory.fail(recalled)
        session.drop()
        raise
    memory.succeed()
    return Written.YES


async def _read(session: Session, books: Books, recalled: Recalled) -> bool:
    """Read and verify what is not remembered; whether all of it is there and verifies."""
    batch, places, shard = recalled.batch, sorted(recalled.unread), recalled.shard
    statement = await session.reading()
    rows = await statement.fetch(shard, [p >> 16 for p in places], [p & 0xFFFF for p in places])
    now = batch.posted_at_us
    for row in rows:
        place = (row[0] << 16) + row[1]
        take(batch, books, recalled.unread[place], shard, row)
        sub_account = batch.sub_accounts[place]
        session.memory.compare(place, sub_account, locked=False)
        now = max(now, sub_account.posted_at_us)
    batch.happens_at(now, books.calendar.date_of(now))
    return len(rows) == len(places) and not batch.tampered
