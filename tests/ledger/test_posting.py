"""`post_vouchers` on a real Postgres: one transaction for each batch, and the outcomes in the order of the commands."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from fundledger.ledger import posting
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import BALANCE_MAX, Status
from fundledger.ledger.model.batch import AtomicGroup, SetStatus
from fundledger.ledger.model.voucher import AMOUNT_MAX
from tests.support.ledger import (
    Ledger,
    codes,
    posted,
    transfer,
    voucher,
)


async def test_a_voucher_moves_balances_and_writes_one_entry_a_line(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    payment = transfer(a, b, 30, reference="order 7", metadata='{"k":1}')
    outcome = await ledger.post_one(payment)
    assert posted(outcome) and not outcome.replay
    assert (await ledger.posted(a), await ledger.posted(b)) == (70, 30)
    rows = await ledger.connection.fetch("SELECT * FROM ledger.entries WHERE voucher_id = $1", payment.id)
    written = {row["account_number"]: (row["amount"], row["balance_after"], row["seq"]) for row in rows}
    assert written == {a.number: (-30, 70, 2), b.number: (30, 30, 1)}
    record = await ledger.record(payment.id)
    assert (record.reference, record.metadata, record.refusal) == ("order 7", '{"k":1}', None)
    assert record.lines == payment.lines
    await ledger.prove()


async def test_a_batch_is_one_transaction(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.post(*(transfer(a, b, 1) for _ in range(20)))
    query = "SELECT count(DISTINCT xmin::text), count(DISTINCT batch) FROM ledger.vouchers WHERE lines[1] = $1"
    assert tuple(await ledger.connection.fetchrow(query, a.number)) == (1, 1)
    assert (await ledger.view(a)).version == 2
    await ledger.prove()


@pytest.mark.parametrize("size", [1, 2, 7, 64, 500])
async def test_a_mixed_batch_answers_each_command_in_its_place(ledger: Ledger, size: int) -> None:
    a, b = await ledger.account("m:1", balance=10_000), await ledger.account("m:2")
    poor = await ledger.account("m:3")
    kinds = {
        "posted": lambda: transfer(a, b, 1),
        "insufficient-funds": lambda: transfer(poor, b, 1),
        "voucher-unbalanced": lambda: voucher((a, -1), (b, 2)),
        "account-not-found": lambda: voucher(unknown="m:nobody"),
    }
    expected = [list(kinds)[i % len(kinds)] for i in range(size)]
    outcomes = await ledger.post(*(kinds[kind]() for kind in expected))
    assert codes(outcomes) == expected
    assert await ledger.posted(b) == Counter(expected)["posted"]
    await ledger.prove()


async def test_an_empty_batch_is_answered_with_nothing(ledger: Ledger) -> None:
    assert await ledger.post() == []


async def test_a_voucher_of_64_lines_and_the_largest_amounts_is_exact(ledger: Ledger) -> None:
    bank, rich = await ledger.account("bank", "bank"), await ledger.account("m:1")
    lines = [(bank, -AMOUNT_MAX), (rich, AMOUNT_MAX)] * 32
    assert posted(await ledger.post_one(voucher(*lines)))
    assert await ledger.posted(rich) == 32 * AMOUNT_MAX
    await ledger.prove()


async def test_a_balance_stops_before_it_is_not_exact(ledger: Ledger) -> None:
    bank, rich = await ledger.account("bank", "bank"), await ledger.account("m:1")
    most = [(bank, -AMOUNT_MAX), (rich, AMOUNT_MAX)] * 32
    rounds = BALANCE_MAX // (32 * AMOUNT_MAX) + 1
    outcomes = await ledger.post(*(voucher(*most) for _ in range(rounds)))
    assert Counter(codes(outcomes)) == {"posted": rounds - 1, "balance-out-of-range": 1}
    await ledger.prove()


async def test_an_account_takes_part_more_than_once_in_a_voucher(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    assert posted(await ledger.post_one(voucher((a, -4), (b, 10), (a, -6))))
    assert await ledger.posted(a) == 0
    await ledger.prove()


# --- Atomic groups -----------------------------------------------------------------------------------------------------


async def test_an_atomic_group_posts_all_or_none(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    good = [transfer(a, b, 2) for _ in range(3)]
    assert codes((await ledger.post_one(AtomicGroup(good))).parts) == ["posted"] * 3
    bad = [transfer(a, b, 2), transfer(a, b, 5), transfer(a, b, 1)]
    outcomes = await ledger.post(AtomicGroup(bad), transfer(a, b, 4))
    assert codes(outcomes[0].parts) == ["batch-aborted", "insufficient-funds", "batch-aborted"]
    assert codes(outcomes[1:]) == ["posted"]
    assert [await ledger.record(v.id) is None for v in bad] == [True, False, True]
    assert posted(await ledger.post_one(transfer(b, a, 1, id_=bad[0].id)))
    await ledger.prove()


async def test_a_long_batch_is_worked_on_in_parts(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another task runs between the decision and the encoding of the batch."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    turns: list[str] = []
    real = posting.parameters

    def noted(*arguments: Any) -> Any:
        turns.append("encoded")
        return real(*arguments)

    async def decided(*arguments: Any) -> Any:
        found = await decide(*arguments)
        asyncio.get_running_loop().call_soon(turns.append, "another task")
        return found

    decide = posting._decide
    monkeypatch.setattr(posting, "parameters", noted)
    monkeypatch.setattr(posting, "_decide", decided)
    for long, order in ((10, ["another task", "encoded"]), (1_000, ["encoded", "another task"])):
        monkeypatch.setattr(posting, "LONG", long)
        await ledger.post_one(AtomicGroup([transfer(a, b, 1) for _ in range(9)]))
        assert turns == order
        turns.clear()
    await ledger.prove()


# --- Time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("locked", [True, False], ids=["under locks", "without a lock"])
async def test_posted_at_never_falls_along_a_sub_account(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, locked: bool
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    if locked:
        ledger.lock_always()
    start = clock.now_us()
    for offset in (50_000_000, 20_000_000, -3_000_000, 60_000_000):
        monkeypatch.setattr(clock, "now_us", lambda offset=offset: start + offset)
        await ledger.post(transfer(a, b, 1))
    rows = await ledger.connection.fetch(
        "SELECT posted_at FROM ledger.entries WHERE account_number = $1 ORDER BY seq", b.number
    )
    times = [clock.us(row["posted_at"]) - start for row in rows]
    assert times == [50_000_000, 50_000_000, 50_000_000, 60_000_000]
    await ledger.prove()


# --- The record of a freeze --------------------------------------------------------------------------------------------


async def test_a_change_of_status_is_recorded_with_who_and_why(ledger: Ledger) -> None:
    a = await ledger.account("m:1")
    await ledger.post(SetStatus(a, Status.FROZEN_DEBITS, "court order 7", "compliance"))
    await ledger.post(SetStatus(a, Status.FROZEN_DEBITS, "again", "compliance"))
    rows = await ledger.connection.fetch("SELECT account_number, status, reason, module FROM ledger.account_events")
    assert [tuple(row) for row in rows] == [(a.number, Status.FROZEN_DEBITS, "court order 7", "compliance")]
    await ledger.prove()
