"""Twins: variants of the ledger with one guard removed, each with the test that detects it.

A test that was never seen to fail proves nothing. Each twin is broken at one place. Its check is a test function of the
suite that covers this place. The check must pass on the real ledger and fail on the twin.
"""

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple

import asyncpg
import pytest

from fundledger.faults import Fault
from fundledger.hotspot.lane import Lane
from fundledger.ledger import posting
from fundledger.ledger.model import voucher as voucher_module
from fundledger.ledger.model.batch import Outcome
from fundledger.ledger.posting import post_vouchers
from fundledger.ledger.rules import decide as rules
from fundledger.ledger.rules.decide import decide
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.session import COMMIT
from fundledger.ledger.store.write_cache import WriteCache
from fundledger.reconciliation.checks import verify
from fundledger.security import canonical
from fundledger.security.keys import FileKeys
from fundledger.security.mac import MacKey
from tests.ledger import (
    test_ahead,
    test_holds,
    test_isolation,
    test_memory,
    test_once,
    test_posting,
    test_tampering,
    test_workers,
)
from tests.support import ledger as support
from tests.support.database import ONE_SHARD, Databases
from tests.support.ledger import Ledger, capture, posted, transfer

Check = Callable[[Ledger, pytest.MonkeyPatch], Awaitable[None]]
Break = Callable[[Ledger, pytest.MonkeyPatch], Awaitable[None]]
CAUGHT = (AssertionError, asyncpg.PostgresError)


class Twin(NamedTuple):
    """A broken variant. `broken` removes a guard; `check` is the test that detects it."""

    broken: str
    check: str


# --- Ways to break --------------------------------------------------------------------------------------------------


def swapped(statement: str, pattern: str, new: str) -> str:
    found = re.sub(pattern, new, statement, flags=re.DOTALL)
    assert found != statement, f"nothing in the statement is {pattern}"
    return found


async def drop(ledger: Ledger, table: str, constraint: str) -> None:
    await ledger.connection.execute(f"ALTER TABLE ledger.{table} DROP CONSTRAINT {constraint}")


def without_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SQL, "lock_sub_accounts", swapped(SQL["lock_sub_accounts"], r"FOR NO KEY UPDATE OF s", ""))


def without_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a batch without comparing the stored rows with those of the decision."""
    pretended = (
        "AND $38::bigint[] || $39::bigint[] || $40::bigint[] IS NOT NULL"
        " AND $41::smallint[] IS NOT NULL AND $42::bytea IS NOT NULL\n    RETURNING 1"
    )
    careless = swapped(SQL["write_batch"], r"AND s\.posted = .*?RETURNING 1", pretended)
    monkeypatch.setitem(SQL, "write_batch", careless)


async def lock_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    without_lock(monkeypatch)


async def compare_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the comparison, so that decisions are made upon old rows.

    The primary key of the journal and the floor are removed as well, because they would detect the error.
    """
    without_compare(monkeypatch)
    await drop(ledger, "entries", "entries_pkey")
    await drop(ledger, "sub_accounts", "sub_accounts_floor")


async def failure_and_compare_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WriteCache, "failures", property(lambda _: 0, lambda *_: None), raising=False)
    await compare_removed(ledger, monkeypatch)


async def lock_and_compare_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    without_lock(monkeypatch)
    without_compare(monkeypatch)


async def lock_compare_and_journal_key_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    await lock_and_compare_removed(ledger, monkeypatch)
    await drop(ledger, "entries", "entries_pkey")


async def duplicate_check_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = swapped(SQL["lock_sub_accounts"], r"\(SELECT array_agg.*?\) AS used", "NULLIF($4::uuid[], $4) AS used")
    monkeypatch.setitem(SQL, "lock_sub_accounts", blind)
    await drop(ledger, "vouchers", "vouchers_id_once")


async def mac_not_verified(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gullible:
        def __init__(self, key: MacKey) -> None:
            self.version = key.version
            self.tag = key.tag

        def matches(self, message: bytes, mac: bytes) -> bool:
            return True

    monkeypatch.setattr(FileKeys, "by_version", lambda self, version: Gullible(self.current))


def mac_without(field: str) -> Break:
    names = (
        "number",
        "slot",
        "currency",
        "posted",
        "held",
        "version",
        "status",
        "seq",
        "posted_at_us",
        "last_entry_mac",
    )
    place = names.index(field)

    async def broken(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        real = canonical.sub_account

        def short(*fields: Any) -> bytes:
            left_out = bytes(32) if field == "last_entry_mac" else 0
            return real(*fields[:place], left_out, *fields[place + 1 :])

        monkeypatch.setattr(canonical, "sub_account", short)

    return broken


async def chain_not_linked(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    real = canonical.entry_2_fixed

    def alone(*fields: Any) -> bytes:
        return real(*fields[:8], canonical.GENESIS, fields[9])

    monkeypatch.setattr(canonical, "entry_2_fixed", alone)


async def funds_check_removed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_funds_refusal", lambda *_: None)
    await drop(ledger, "sub_accounts", "sub_accounts_floor")


async def digest_ignores_the_amount(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    real = voucher_module.digest_of

    def careless(type_: str, entries: Sequence[tuple[str, int]], *rest: Any) -> bytes:
        return real(type_, [(account, 0) for account, _ in entries], *rest)

    monkeypatch.setattr(support, "digest_of", careless)


async def second_reversal_allowed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SQL, "read_reversals", SQL["read_reversals"] + " AND false")
    await ledger.connection.execute("DROP INDEX ledger.vouchers_reversed_once")


async def second_reversal_not_indexed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    await ledger.connection.execute("DROP INDEX ledger.vouchers_reversed_once")


async def refusals_not_recorded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fundledger.ledger.model.refusal.FINAL", frozenset())


async def capture_leaves_the_hold(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    real = rules._free

    def forgetful(batch: Any, hold: Any, status: Any) -> None:
        held = batch.sub_accounts[(hold.account.number << 16) + hold.slot].held
        real(batch, hold, status)
        batch.sub_accounts[(hold.account.number << 16) + hold.slot].held = held

    monkeypatch.setattr(rules, "_free", forgetful)


async def clock_not_held(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting.Batch, "happens_at", lambda *_: None)


async def lines_not_summed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    real = support.Voucher.__init__

    def trusting(self: Any, *fields: Any, **more: Any) -> None:
        real(self, *fields, **more)
        self.imbalance = 0

    monkeypatch.setattr(support.Voucher, "__init__", trusting)
    await drop(ledger, "vouchers", "vouchers_sum_to_zero")


async def bad_item_not_isolated(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    async def all_of_them(session: Any, books: Any, commands: Sequence[Any], alone: Any, *_: Any) -> list[Any]:
        return [alone] * len(commands)

    monkeypatch.setattr(posting, "_halve", all_of_them)


async def duplicate_not_decided_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posting, "CONFLICT_ATTEMPTS", 1)


async def evidence_not_kept(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any) -> None:
        pass

    monkeypatch.setattr(posting, "_freeze_tampered", nothing)


async def answer_before_commit(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer a buffered credit after it was decided and before it is written."""

    async def eager(
        session: Any, books: Any, commands: Sequence[Any], on_sent: Callable[[bool], None], **more: Any
    ) -> list[Outcome | Fault]:
        batch = await posting._read(session, books, commands, 1)
        outcomes = decide(batch, commands)
        await session.rollback()
        later = asyncio.get_running_loop().create_task(post_vouchers(session, books, commands, on_sent, **more))
        ledger.later = later  # type: ignore[attr-defined]
        return list(outcomes)

    monkeypatch.setattr(Lane.__init__, "__defaults__", (eager, *(Lane.__init__.__defaults__ or ())[1:]))


# --- Checks that are not tests of their own elsewhere ---------------------------------------------------------------


class Meter:
    def batch(self, size: int, seconds: float) -> None:
        pass


async def nothing_acknowledged_is_lost(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the connection at the commit, without a retry. A caller that received `posted` must find its voucher."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    real, real_open = asyncpg.Connection.execute, ledger.session.open
    ledger.session.memory = WriteCache(0)  # so that every batch has a commit of its own to cut
    armed = gone = False

    async def execute(self: Any, query: str, *arguments: Any, **more: Any) -> Any:
        nonlocal gone
        if query == COMMIT and armed:
            gone = True
            self.terminate()
            raise ConnectionResetError("cut before the commit")
        return await real(self, query, *arguments, **more)

    async def open_() -> Any:
        if gone:
            raise ConnectionRefusedError("the database is gone")
        return await real_open()

    with monkeypatch.context() as cut:
        cut.setattr(posting, "RETRY_FOR_S", 0.0)
        cut.setattr(asyncpg.Connection, "execute", execute)
        cut.setattr(ledger.session, "open", open_)
        lane = Lane(ledger.session, ledger.books, Meter(), 100, 10)
        acknowledged: list[Any] = []
        for attempt in range(2):
            armed = attempt == 1
            payment = transfer(a, b, 1)
            told: asyncio.Future[Outcome | Fault] = asyncio.get_running_loop().create_future()
            lane.post(payment, lambda _, outcome, told=told: told.set_result(outcome))
            if posted(await told):
                acknowledged.append(payment.id)
            later = getattr(ledger, "later", None)
            if later is not None:
                await later
        assert gone, "the commit was never cut"
        lane._task.cancel()
        await asyncio.gather(lane._task, return_exceptions=True)
    assert acknowledged
    assert [id_ for id_ in acknowledged if await ledger.record(id_) is None] == []


async def books_are_proved_after_payments(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    for _ in range(4):
        await ledger.post(transfer(a, b, 1), transfer(b, a, 1))
    await ledger.prove()


async def books_are_proved_after_a_capture(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.post(capture(await ledger.hold("h", a, 50), b, 20))
    await ledger.prove()


async def no_account_goes_below_its_floor(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    await ledger.post(transfer(a, b, 11))
    report = await verify(ledger.dsn, ledger.keys)
    assert [check.name for check in report.checks if not check.ok and check.name == "sub_account_floor"] == []


async def vouchers_sum_to_zero(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    await ledger.post(support.voucher((a, -1), (b, 5)))
    report = await verify(ledger.dsn, ledger.keys)
    assert {c.name for c in report.checks if not c.ok} & {"voucher_sums_to_zero", "trial_balance"} == set()


def check_of(test: Callable[..., Awaitable[None]], **arguments: Any) -> Check:
    """Return a test of the suite as a check, with values for its fixtures other than the ledger."""
    wanted = test.__code__.co_varnames[: test.__code__.co_argcount]

    @functools.wraps(test)
    async def check(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        given = {"ledger": ledger, "monkeypatch": monkeypatch, **arguments}
        with monkeypatch.context() as own:
            given["monkeypatch"] = own
            await test(**{name: given[name] for name in wanted})

    return check


def edited(field: str) -> Check:
    return check_of(
        test_tampering.test_a_sub_account_that_was_edited_is_refused_frozen_and_kept_as_evidence, edited=field
    )


CHECKS: dict[str, Check] = {
    "a worker that waited decides over what the other left": check_of(
        test_workers.test_a_worker_that_waited_decides_over_what_the_other_left
    ),
    "a worker that had read decides again over what the other left": check_of(
        test_workers.test_a_worker_that_had_read_decides_again_over_what_the_other_left
    ),
    "what was prepared upon a batch that failed is decided again": check_of(
        test_ahead.test_what_was_prepared_upon_a_batch_that_failed_is_decided_again
    ),
    "a freeze by another worker holds at once": check_of(
        test_memory.test_a_freeze_by_another_worker_applies_immediately
    ),
    "a repeat gets the first answer": check_of(test_once.test_a_repeat_gets_the_first_answer_and_writes_nothing),
    "duplicates inside and across batches": check_of(test_memory.test_a_repeat_is_answered_from_the_record),
    "a duplicate that overtakes is decided again": check_of(
        test_once.test_a_duplicate_that_another_worker_is_about_to_commit_is_decided_again
    ),
    "an id with another amount is refused": check_of(
        test_once.test_an_id_with_other_content_is_refused_and_writes_nothing, other="amount"
    ),
    "a row copied from another account is refused": check_of(
        test_tampering.test_a_row_copied_from_another_account_is_refused
    ),
    "a final refusal stays": check_of(
        test_once.test_a_final_refusal_is_recorded_and_a_repeat_gets_it_even_when_money_came_in
    ),
    "a reversal gives back once": check_of(test_holds.test_a_reversal_gives_everything_back_once),
    "two reversals at once": check_of(test_holds.test_a_second_reversal_is_refused_also_when_both_are_concurrent),
    "an item that the database refuses stands alone": check_of(
        test_isolation.test_an_item_that_the_database_refuses_stands_alone, at=[4]
    ),
    "posted_at never falls": check_of(test_posting.test_posted_at_never_falls_along_a_sub_account, locked=True),
    "nothing acknowledged is lost": nothing_acknowledged_is_lost,
    "books are proved after payments": books_are_proved_after_payments,
    "books are proved after a capture": books_are_proved_after_a_capture,
    "no account goes below its floor": no_account_goes_below_its_floor,
    "vouchers sum to zero": vouchers_sum_to_zero,
    **{f"a row whose {field} was edited is refused": edited(field) for field in test_tampering.EDITS},
}

BREAKS: dict[str, Break] = {
    "the lock": lock_removed,
    "compare and set": compare_removed,
    "the failure of the batch before, and compare and set": failure_and_compare_removed,
    "the lock, and compare and set": lock_and_compare_removed,
    "the lock, compare and set, and the journal's key": lock_compare_and_journal_key_removed,
    "the duplicate check": duplicate_check_removed,
    "the verification of MACs": mac_not_verified,
    "the chain": chain_not_linked,
    "the funds check": funds_check_removed,
    "the amount in the digest": digest_ignores_the_amount,
    "the refusal of a second reversal": second_reversal_allowed,
    "the index on what is reversed": second_reversal_not_indexed,
    "the record of refusals": refusals_not_recorded,
    "the end of a hold": capture_leaves_the_hold,
    "the clock's memory": clock_not_held,
    "the sum of a voucher's lines": lines_not_summed,
    "the isolation of bad items": bad_item_not_isolated,
    "the second look after a conflict": duplicate_not_decided_again,
    "the evidence of tampering": evidence_not_kept,
    "the commit before the answer": answer_before_commit,
    **{f"{field} in the MAC": mac_without(field) for field in ("number", *test_tampering.EDITS) if field != "mac"},
}

TWINS = [
    Twin("the lock", "a worker that waited decides over what the other left"),
    Twin("compare and set", "a worker that had read decides again over what the other left"),
    Twin(
        "the failure of the batch before, and compare and set",
        "what was prepared upon a batch that failed is decided again",
    ),
    Twin("the lock, and compare and set", "a worker that waited decides over what the other left"),
    Twin("the lock, compare and set, and the journal's key", "a worker that waited decides over what the other left"),
    Twin("the duplicate check", "a repeat gets the first answer"),
    Twin("the duplicate check", "duplicates inside and across batches"),
    Twin("the duplicate check", "a duplicate that overtakes is decided again"),
    Twin("the verification of MACs", "a row whose posted was edited is refused"),
    Twin("the verification of MACs", "a row copied from another account is refused"),
    Twin("number in the MAC", "a row copied from another account is refused"),
    *(
        Twin(f"{field} in the MAC", f"a row whose {field} was edited is refused")
        for field in test_tampering.EDITS
        if field != "mac"
    ),
    Twin("the evidence of tampering", "a row whose posted was edited is refused"),
    Twin("the commit before the answer", "nothing acknowledged is lost"),
    Twin("the chain", "books are proved after payments"),
    Twin("the funds check", "no account goes below its floor"),
    Twin("the funds check", "a worker that waited decides over what the other left"),
    Twin("the amount in the digest", "an id with another amount is refused"),
    Twin("the amount in the digest", "books are proved after payments"),
    Twin("the refusal of a second reversal", "a reversal gives back once"),
    Twin("the index on what is reversed", "two reversals at once"),
    Twin("the record of refusals", "a final refusal stays"),
    Twin("the end of a hold", "books are proved after a capture"),
    Twin("the clock's memory", "posted_at never falls"),
    Twin("the sum of a voucher's lines", "vouchers sum to zero"),
    Twin("the isolation of bad items", "an item that the database refuses stands alone"),
    Twin("the second look after a conflict", "a duplicate that overtakes is decided again"),
]


@pytest.fixture
async def another(postgres: Databases, keys: FileKeys) -> AsyncIterator[Ledger]:
    """Open a second ledger, which is not broken."""
    async with postgres.a_database(ONE_SHARD) as dsn:
        ledger = await Ledger(dsn, keys, ONE_SHARD).start()
        yield ledger
        await ledger.close()


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: f"without {twin.broken}: {twin.check}")
async def test_a_twin_is_caught_by_its_check(
    ledger: Ledger, another: Ledger, monkeypatch: pytest.MonkeyPatch, twin: Twin
) -> None:
    check = CHECKS[twin.check]
    await check(another, monkeypatch)
    await BREAKS[twin.broken](ledger, monkeypatch)
    with pytest.raises(CAUGHT):
        await check(ledger, monkeypatch)


def test_every_way_to_break_has_a_twin() -> None:
    assert {twin.broken for twin in TWINS} == set(BREAKS)
    assert {twin.check for twin in TWINS} <= set(CHECKS)
