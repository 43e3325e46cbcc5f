"""Broken variants of buffered posting, and the test that catches each."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from fundledger.ledger import posting
from fundledger.ledger.model.batch import Batch
from fundledger.ledger.rules import slots
from fundledger.ledger.rules.account import not_enough
from fundledger.ledger.store import buffer_rows, plan
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.session import COMMIT
from tests.ledger import test_buffer
from tests.support.ledger import Ledger
from tests.twins.test_twins import CAUGHT

Break = Callable[[pytest.MonkeyPatch], None]


def folded_behind_a_watermark(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = """b.posted_at > coalesce(
        (SELECT max(e.posted_at) FROM ledger.entries e WHERE e.account_number = b.account_number), '-infinity'
    ) AND"""
    monkeypatch.setitem(SQL, "read_buffered", SQL["read_buffered"].replace("WHERE", f"WHERE {newer}"))


def folded_and_marked_in_two_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    died: list[bool] = []

    async def apart(connection: "asyncpg.Connection[asyncpg.Record]", batch: Batch) -> None:
        await connection.execute(COMMIT)
        if not died:
            died.append(True)
            raise ConnectionResetError
        await buffer_rows.delete_drained(connection, batch)

    monkeypatch.setattr(posting, "delete_drained", apart)


def folded_without_being_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(connection: object, batch: Batch) -> None:
        del connection, batch

    monkeypatch.setattr(posting, "delete_drained", nothing)


def buffered_without_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SQL, "write_buffered", SQL["write_buffered"].replace("FOR KEY SHARE OF s", ""))


def buffered_whatever_the_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = SQL["write_buffered"].replace("AND s.buffered", "").replace("s.status = 0", "true")
    monkeypatch.setitem(SQL, "write_buffered", open_)


def refused_without_a_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "_lacking", lambda batch, short: not_enough(short))


def folded_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_rows, "what_is_wrong", lambda keys, number, rows: None)


def buffered_beside_a_debit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan.Plan, "_lock_instead", lambda self, numbers: None)


TWINS: list[tuple[Break, Callable[[Ledger], Awaitable[Any]]]] = [
    (folded_behind_a_watermark, test_buffer.test_a_credit_that_commits_late_is_drained_all_the_same),
    (
        folded_and_marked_in_two_transactions,
        test_buffer.test_a_credit_is_pending_immediately_and_posted_when_it_is_drained,
    ),
    (folded_without_being_marked, test_buffer.test_two_concurrent_drains_drain_once),
    (buffered_without_a_lock, test_buffer.test_a_credit_that_is_buffered_while_an_account_is_frozen_is_refused),
    (buffered_whatever_the_policy, test_buffer.test_a_worker_that_does_not_know_the_new_policy_posts_under_it),
    (refused_without_a_drain, test_buffer.test_a_debit_drains_what_it_needs_inside_its_own_transaction),
    (
        folded_unseen,
        lambda ledger: test_buffer.test_a_buffer_that_does_not_verify_is_not_drained_and_the_account_is_frozen(
            ledger, "an amount"
        ),
    ),
    (buffered_beside_a_debit, test_buffer.test_when_too_much_waits_credits_are_posted_directly),
]


@pytest.mark.parametrize(("broken", "check"), TWINS, ids=lambda twin: getattr(twin, "__name__", None))
async def test_a_twin_of_the_buffer_is_caught(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, broken: Break, check: Callable[[Ledger], Awaitable[Any]]
) -> None:
    broken(monkeypatch)
    with pytest.raises((*CAUGHT, KeyError)):
        await check(ledger)
