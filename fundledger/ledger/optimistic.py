"""Optimistic path of the ledger: decide a batch without locks, and write it only if its rows are unchanged (ADR 0010).

A batch is decided from the lane's write cache and from reads without locks. A batch may be prepared while the previous
batch is still being written (ADR 0011). The prepared batch is decided from the state that the previous batch will
leave. The prepared batch is sent only if the previous batch was committed. Otherwise the prepared batch is discarded,
and its commands are decided again.
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
from fundledger.ledger.context import Books
from fundledger.ledger.model.batch import Command, Outcome
from fundledger.ledger.rules.decide import decide
from fundledger.ledger.store.columns import parameters
from fundledger.ledger.store.rows import take
from fundledger.ledger.store.session import Session
from fundledger.ledger.store.write_cache import Recalled
from fundledger.security.keys import KeyFault

_log = logging.getLogger(__name__)

OnSent: TypeAlias = Callable[[bool], None]


def nothing(_: bool) -> None:
    """Do nothing: the default of `on_sent`, the callback that is called when a batch is sent."""


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A batch that is decided but not sent. If the batch is committed, `outcomes[i]` is the outcome of command i."""

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
    """Decide a batch without locks. Return None if the batch has to be decided under locks.

    Writes nothing and never raises. At most one other batch of the session may be in the database meanwhile. If the
    caller is cancelled, the rows of the batch are removed from the write cache.
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
        # A bug. The decision may have changed the cached rows, so they are discarded. The locked path finds the failing
        # command.
        _log.critical("preparing a batch failed", exc_info=True, extra={"event": "prepare_failed"})
        memory.disappoint(recalled)
        return None
    except BaseException:
        memory.disappoint(recalled)
        raise
    return Prepared(recalled, arguments, outcomes, failures)


async def write_prepared(session: Session, prepared: Prepared, on_sent: OnSent) -> Written:
    """Write a prepared batch if no sub-account of the batch has changed since the batch was decided."""
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
        _log.critical("writing a prepared batch failed", exc_info=True, extra={"event": "posting_failed"})
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
    """Read and verify the sub-accounts that are not in the cache.

    Return True if all of them exist and match their MACs.
    """
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
