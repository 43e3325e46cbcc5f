"""Posting of the ledger: read the rows of a batch, decide the commands, and write the result, in one transaction.

`post_vouchers` is the only function that writes balances. Every operation that changes a balance or a status (posting,
placing a hold, capture, reversal, freezing) is a command in a batch.
"""

import asyncio
import itertools
import logging
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import asyncpg

from fundledger.database.failures import PASSING, was_rolled_back
from fundledger.faults import Fault, GuardHit, OutcomeUnknown, Unavailable
from fundledger.jobs.job import LeaseLost
from fundledger.ledger.context import Books
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Status, SubAccount
from fundledger.ledger.model.batch import Batch, Command, Outcome, SetPolicy, SetStatus, refused
from fundledger.ledger.model.hold import HoldKey
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ledger.optimistic import OnSent, Prepared, Written, nothing, prepare, write_prepared
from fundledger.ledger.rules.decide import decide
from fundledger.ledger.store.buffer_rows import delete_drained, read_backlog, read_deferred, write_buffered
from fundledger.ledger.store.columns import parameters
from fundledger.ledger.store.directory import AccountTampered
from fundledger.ledger.store.evidence import ChainBroken, Found, write_events, write_findings
from fundledger.ledger.store.plan import Plan, rows_max_of
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.records import HoldTampered, VoucherTampered, read_holds, read_records, write_holds
from fundledger.ledger.store.rows import take
from fundledger.ledger.store.session import COMMIT, Session
from fundledger.ledger.store.slot_map import write_opened, write_policies, write_routes
from fundledger.security.keys import KeyFault

_log = logging.getLogger(__name__)
_CONFLICTS: Final = (asyncpg.UniqueViolationError, asyncpg.SerializationError, asyncpg.DeadlockDetectedError)
APART: Final = frozenset({SetStatus, SetPolicy})
NARROW: Final[Mapping[int, int]] = MappingProxyType({})
CONFLICT_ATTEMPTS: Final = 5
LONG: Final = 4_000
"""Number of entries. While a batch with more entries is written, the event loop runs other tasks between the steps."""
NOT_BUFFERING: Final = "FL002"
EXCLUSIVE: Final = SQL["lock_sub_accounts"].replace("FOR NO KEY UPDATE", "FOR UPDATE")
RETRY_FOR_S: Final = 20.0
"""Time (s) for which a batch is retried while the database is unreachable. After that time the callers get a fault."""


class SubAccountMissing(Exception):
    """A sub-account of an existing account is missing: its row was deleted."""


async def post_vouchers(
    session: Session,
    books: Books,
    commands: Sequence[Command],
    on_sent: OnSent = nothing,
    sent_before: bool = False,
    prepared: Prepared | None = None,
    early: bool = False,
    locked: bool = False,
) -> list[Outcome | Fault]:
    """Post a batch. Element i of the result is the outcome of `commands[i]`, or the fault that prevented an outcome.

    The batch is one transaction, committed before this function returns. All its sub-accounts are locked in the order
    of shard, account and slot, so that batches cannot deadlock. The refusal of one command does not affect the others.
    After a conflict the batch is read and decided again. If conflicts or another error persist, each half is posted
    separately, and so on until the failing command is alone.

    If the connection breaks, even during the commit, the same batch is posted again. Each id is posted at most once, so
    the second attempt returns the true outcomes. A retry with the same ids is always safe.

    `on_sent`: called just before the writes are sent; True if the next batch may be prepared during the writes.
    `sent_before`: an earlier attempt at these commands may have been committed.
    `prepared`: the result of `prepare` for these commands. Pass it only after the previous batch has ended.
    `early`: if the batch is posted under locks, it commits without waiting for the disk and sets `session.unflushed`.
      The caller must answer no command before a flush that begins after this function has returned.
    `locked`: skip the optimistic path; required while another batch of this session is being prepared.

    Cancelling the caller does not withdraw a batch that was sent. Raises LeaseLost if `session` is a
    FencedSession whose lease has been lost.
    """
    if prepared is None and len(commands) > 1 and any(type(command) in APART for command in commands):
        return await _post_apart(session, books, commands, sent_before)
    if prepared is None and not locked:
        prepared = await prepare(session, books, commands)
    number = secrets.randbits(62)
    sent_commit = sent_before
    if prepared is not None:
        number = prepared.recalled.batch.number
        written = await write_prepared(session, prepared, on_sent)
        if written is Written.YES:
            return list(prepared.outcomes)
        sent_commit = sent_commit or written is Written.UNKNOWN
        # This batch was not written, so no other batch may be prepared from its result.
        on_sent(False)
    return await _post_locked(session, books, commands, number, sent_commit, on_sent, early)


async def _post_apart(session: Session, books: Books, commands: Sequence[Command], sent: bool) -> list[Outcome | Fault]:
    """Post each change of an account's status or policy in a batch of its own.

    Such a change waits for the transactions that are buffering credits of the account. These transactions may in turn
    be waiting for the lock of another account. A batch with more commands could hold that lock and cause a deadlock.
    """
    answers: list[Outcome | Fault] = []
    for apart, several in itertools.groupby(commands, key=lambda command: type(command) in APART):
        for some in ([command] for command in several) if apart else (list(several),):
            answers += await _post_locked(session, books, some, secrets.randbits(62), sent, nothing, early=False)
    return answers


async def _post_locked(  # noqa: PLR0915 - one transaction from lock to commit is read at one place
    session: Session,
    books: Books,
    commands: Sequence[Command],
    number: int,
    sent_commit: bool,
    on_sent: OnSent,
    early: bool,
) -> list[Outcome | Fault]:
    """Post a batch under locks; repeat after a conflict. `sent_commit`: an earlier attempt may have committed."""
    conflicts = 0
    placed: set[HoldKey] = set()
    gives_up_at = asyncio.get_running_loop().time() + RETRY_FOR_S
    while True:
        try:
            batch, outcomes = await _decide(session, books, commands, number, placed)
            connection = await session.open()
            await _let_others_work(batch)
            if batch.has_writes():
                await _write(connection, session, books, batch, early)
                placed |= batch.new_holds
                # `on_sent` is not called earlier, because other writers wait for the locks until the commit.
                on_sent(False)
                session.unflushed = session.unflushed or early
                began = time.perf_counter()
                try:
                    await connection.execute(COMMIT)
                except BaseException as error:
                    sent_commit = sent_commit or not was_rolled_back(error, chained=True)
                    raise
                if not early:
                    session.commits.append(("commit", time.perf_counter() - began))
            else:
                await session.rollback()
        except _CONFLICTS as error:
            await session.rollback()
            if getattr(error, "constraint_name", None) == "entries_pkey":
                # The row is locked, so a race is impossible: the row was reset to a state before its last entries.
                extra = {"event": "integrity_finding", "once": str(error)}
                _log.critical("a sub-account is behind its entries", exc_info=error, extra=extra)
                behind = Refusal(Code.ACCOUNT_FROZEN, "an account does not agree with its entries")
                return await _halve(session, books, commands, behind, sent_commit)
            conflicts += 1
            if conflicts >= CONFLICT_ATTEMPTS:
                return await _halve(session, books, commands, Unavailable("too many conflicts"), sent_commit)
        except LeaseLost:
            await session.rollback()
            raise
        except (AccountTampered, HoldTampered, VoucherTampered, SubAccountMissing, ChainBroken) as error:
            await session.rollback()
            extra = {"event": "integrity_finding", "once": str(error)}
            _log.critical("a record does not match its MAC", exc_info=error, extra=extra)
            return await _halve(session, books, commands, Refusal(Code.ACCOUNT_FROZEN, str(error)), sent_commit)
        except KeyFault as fault:
            await session.rollback()
            return await _halve(session, books, commands, Unavailable(str(fault)), sent_commit)
        except (*PASSING, asyncpg.InterfaceError) as error:
            if isinstance(error, asyncpg.InterfaceError) and not session.is_broken():
                await session.rollback()
                return await _halve(session, books, commands, GuardHit(str(error)), sent_commit)
            session.drop()
            full = isinstance(error, asyncpg.DiskFullError)
            if full or asyncio.get_running_loop().time() > gives_up_at:
                gave_up = OutcomeUnknown if sent_commit else Unavailable
                why = "the disk of the database is full" if full else "the database does not answer"
                return [gave_up(why)] * len(commands)
            await asyncio.sleep(random.uniform(0.02, 0.2))  # noqa: S311 - jitter
        except asyncpg.PostgresError as error:
            await session.rollback()
            if error.sqlstate == NOT_BUFFERING and conflicts < CONFLICT_ATTEMPTS:
                session.buffering.clear()
                conflicts += 1
                continue
            if session.memory.is_too_early(error):
                # Each concurrent read of a statement can cause this error, which is no bug even if it occurs often.
                if asyncio.get_running_loop().time() <= gives_up_at:
                    continue
                overtaken = Unavailable("concurrent reads of statements kept the batch from being written")
                return await _halve(session, books, commands, overtaken, sent_commit)
            return await _halve(session, books, commands, GuardHit(str(error)), sent_commit)
        except Exception as error:
            # A bug. Dropping the connection ensures that this attempt cannot be committed later.
            _log.critical("posting %d commands failed", len(commands), exc_info=True, extra={"event": "posting_failed"})
            session.drop()
            bug = GuardHit(f"internal error: {type(error).__name__}")
            return await _halve(session, books, commands, bug, sent_commit)
        else:
            session.memory.remember(batch)
            if batch.tampered:
                await _freeze_tampered(session, books, batch)
            return list(outcomes)


async def _halve(
    session: Session, books: Books, commands: Sequence[Command], alone: Refusal | Fault, sent: bool
) -> list[Outcome | Fault]:
    """Post the two halves of the commands separately. For a single command, return `alone` without posting again.

    `sent`: an attempt may have been committed. Then OutcomeUnknown replaces `alone`, unless `alone` is a GuardHit.
    """
    if len(commands) == 1:
        if isinstance(alone, GuardHit):
            _log.critical("the database rejected a decided command: %s", alone, extra={"event": "guard_hit"})
        if not sent or isinstance(alone, GuardHit):
            return [refused(commands[0], alone) if isinstance(alone, Refusal) else alone]
        return [OutcomeUnknown(alone.detail if isinstance(alone, Refusal) else str(alone))]
    middle = len(commands) // 2
    # Post under locks, because the write cache may contain the result of a batch that is prepared but not written.
    first = await _post_locked(session, books, commands[:middle], secrets.randbits(62), sent, nothing, early=False)
    rest = await _post_locked(session, books, commands[middle:], secrets.randbits(62), sent, nothing, early=False)
    return first + rest


async def _decide(
    session: Session,
    books: Books,
    commands: Sequence[Command],
    number: int,
    placed: AbstractSet[HoldKey] = frozenset(),
    known: Mapping[int, int] = NARROW,
) -> tuple[Batch, list[Outcome]]:
    """Lock, read and decide a batch. If one slot of an account is not enough, repeat with all slots of the account.

    `known[number]`: the minimum number of slots of this account to read in the first attempt.
    """
    wide = dict(known)
    to_drain: set[int] = set()
    while True:
        batch = await _read(session, books, commands, number, wide, to_drain)
        batch.my_holds = set(placed)
        outcomes = decide(batch, commands)
        if not batch.narrow and not batch.to_drain:
            return batch, outcomes
        await session.rollback()
        wide |= batch.narrow
        to_drain |= batch.to_drain
        for account_number in batch.narrow:
            session.widened[account_number] = session.widened.get(account_number, 0) + 1


async def _read(
    session: Session,
    books: Books,
    commands: Sequence[Command],
    number: int,
    wide: Mapping[int, int] = NARROW,
    to_drain: AbstractSet[int] = frozenset(),
) -> Batch:
    """Lock and read every row that the commands need.

    This includes all slots of the `wide` accounts, and the buffered credits of the accounts in `to_drain`.
    """
    connection = await session.open()
    plan = Plan(commands, books, wide, to_drain)
    now = max(clock.now_us(), session.memory.not_before_us)
    batch = Batch(
        number, books.ordinal, books.keys.current, now, books.calendar.date_of(now), summarises=books.summarises
    )
    if plan.deferred:
        accounts = [account for account, _ in plan.deferred.values()]
        plan.lock_instead(await read_deferred(connection, books, batch, accounts, session.buffering))
    rows: list[tuple[int, asyncpg.Record]] = []
    used: list[Any] | None = None
    for shard in sorted(plan.places):
        places = sorted(plan.places[shard])
        ids = plan.voucher_ids if not rows else []
        lock = session.lock.fetch if not plan.exclusive else partial(connection.fetch, EXCLUSIVE)
        got = await lock(shard, [p >> 16 for p in places], [p & 0xFFFF for p in places], ids)
        if len(got) != len(places) and not plan.allows_missing(shard, {(r[0] << 16) + r[1] for r in got}, wide):
            raise SubAccountMissing(f"a sub-account is missing in shard {shard}: run `fundledger verify`")
        if not rows and got:
            used = got[0]["used"]
        rows += [(shard, row) for row in got]
    for shard, row in rows:
        account = plan.accounts.get(row[0])
        if account is None:
            account = (await books.directory.by_number(connection, [row[0]]))[row[0]]
        take(batch, books, account, shard, row)
    # The statement mark may have been raised during the wait for locks. The time of this batch must be after the mark.
    now = max(now, clock.now_us())
    for place, sub_account in batch.sub_accounts.items():
        session.memory.compare(place, sub_account)
        # The times of a sub-account's entries never decrease, despite clock skew. Rows that do not verify are ignored.
        if sub_account.posted_at_us > now and place not in batch.tampered:
            now = sub_account.posted_at_us
    batch.happens_at(now, books.calendar.date_of(now))
    if used or (plan.voucher_ids and not rows):
        wanted = plan.vouchers if used is None else {key for key in plan.vouchers if key[1] in set(used)}
        for record, _ in await read_records(connection, books.directory, wanted):
            batch.vouchers[record.key] = record
            if record.batch == number:
                batch.mine.add(record.key)
    if plan.reverses:
        for row in await connection.fetch(SQL["read_reversals"], [id_ for _, id_ in plan.reverses]):
            batch.reversed_by[row["module"], row["reverses"]] = row["id"]
    if plan.to_drain:
        await read_backlog(connection, books, batch, plan.to_drain, rows_max_of(commands))
    if plan.holds:
        batch.holds = await read_holds(connection, books.directory, plan.holds)
    return batch


async def _let_others_work(batch: Batch) -> None:
    """Let the event loop run other tasks if the batch has more than LONG entries."""
    if len(batch.entries) > LONG:
        await asyncio.sleep(0)


async def _write(
    connection: "asyncpg.Connection[asyncpg.Record]",
    session: Session,
    books: Books,
    batch: Batch,
    early: bool = False,
) -> None:
    if batch.opened:
        await write_opened(connection, batch)
    written = [s for s in batch.sub_accounts.values() if s.written]
    assert not any(s.suspect for s in written), "a row that does not match its MAC would get a new MAC"
    shards = {s.shard for s in written}
    shards.update(shard for shard, _ in batch.new_vouchers)
    for shard in sorted(shards):
        single = len(shards) == 1
        vouchers = [record for of, record in batch.new_vouchers if single or of == shard]
        entries = [entry for entry in batch.entries if single or entry[0] == shard]
        sub_accounts = [s for s in written if single or s.shard == shard]
        arguments = parameters(batch, shard, vouchers, sub_accounts, entries, early)
        await _let_others_work(batch)
        await session.write.fetch(*arguments)
    if batch.routes:
        await write_routes(connection, batch, books.keys)
    if batch.changed_holds:
        await write_holds(connection, batch)
    if batch.buffered:
        await write_buffered(connection, batch)
    if batch.drained:
        await delete_drained(connection, batch)
    await write_policies(connection, batch, books.keys)
    if batch.events:
        await write_events(connection, books.keys, batch.events)


async def _freeze_tampered(session: Session, books: Books, tampered: Batch) -> None:
    """Freeze each account with a row that did not verify, in a separate transaction. Keep the row as evidence.

    Until the freeze succeeds, each command that needs such a row is refused. A failure is logged. The next batch that
    reads such a row tries to freeze the account again.
    """
    accounts = {s.account.number: s.account for s in (tampered.sub_accounts[place] for place in tampered.tampered)}
    ids = [account.id for account in accounts.values()]
    _log.critical("a sub-account does not match its MAC: freezing %s", ids, extra={"event": "integrity_finding"})
    reason = "a sub-account did not match its MAC"
    freezes = [SetStatus(account, Status.FROZEN_INTEGRITY, reason, "ledger") for account in accounts.values()]
    try:
        connection = await session.open()
        existing: dict[int, int] = {}
        for number, account in accounts.items():
            if not account.type.platform:
                places = await connection.fetch(SQL["read_slots"], number, [account.shard])
                existing[number] = places[-1]["slot"] + 1
        batch, _ = await _decide(session, books, freezes, secrets.randbits(62), known=existing)
        connection = await session.open()
        rows: list[tuple[SubAccount, str]] = []
        for place, row in {**tampered.tampered, **batch.tampered}.items():
            s = batch.sub_accounts.get(place) or tampered.sub_accounts[place]
            # The other rows are already marked as suspect, because another worker has found and recorded them.
            if place in batch.tampered or not s.suspect or place not in batch.sub_accounts:
                rows.append((s, row))
        findings = [Found(row, shard=s.shard, account_number=s.account.number, slot=s.slot) for s, row in rows]
        await write_findings(connection, books.keys, findings)
        for s, _ in rows:
            if s.suspect:
                await connection.execute(SQL["mark_suspect"], s.shard, s.account.number, s.slot)
        await _write(connection, session, books, batch)
        await connection.execute(COMMIT)
    except Exception as error:
        if isinstance(error, asyncpg.PostgresError):
            session.memory.is_too_early(error)
        _log.exception("freezing an account failed; the next read retries", extra={"event": "freeze_failed"})
        session.drop()
