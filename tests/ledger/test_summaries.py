"""Summaries on platform accounts: one entry for all vouchers of a batch on a slot, from which all lines can be read."""

import asyncio

import pytest

from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import AtomicGroup, Batch
from fundledger.ledger.rules import decide as rules
from fundledger.ledger.rules import entries
from fundledger.ledger.statement.pages import BadCursor, StatementEntry, read_statement
from fundledger.ledger.store.integrity import Tampered
from fundledger.reconciliation.checks import verify
from tests.support.halfway import Halfway
from tests.support.ledger import Ledger, codes, posted, transfer, voucher
from tests.support.waiting import eventually

Shown = list[tuple[object, ...]]


async def statement(
    ledger: Ledger, account: Account, limit: int = 1000, *, level: str = "vouchers"
) -> list[StatementEntry]:
    """Return the lines of all pages of a statement."""
    found: list[StatementEntry] = []
    cursor = None
    while True:
        page, cursor = await read_statement(
            ledger.connection, ledger.directory, account, ledger.layout, limit, cursor, None, None, level=level
        )
        assert len(page) <= limit
        found += page
        if cursor is None:
            return found


async def busy_bank(ledger: Ledger) -> tuple[Account, list[tuple[object, int]]]:
    """Debit and credit a bank account in three batches. Return it, and `(voucher id, signed amount)` of each line."""
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m", balance=1000)
    batches = [
        [transfer(bank, m, 10), transfer(bank, m, 20), transfer(m, bank, 5)],
        [transfer(bank, m, 40)],
        [voucher((bank, -7), (m, 10), (bank, -3)), transfer(bank, m, 1), transfer(m, bank, 500)],
    ]
    for batch in batches:
        assert codes(await ledger.post(*batch)) == ["posted"] * len(batch)
    lines = [(v.id, amount) for batch in batches for v in batch for of, amount in v.lines if of is bank]
    return bank, lines


async def test_a_batch_has_one_entry_on_a_platform_account_and_the_merchants_have_all(ledger: Ledger) -> None:
    bank, lines = await busy_bank(ledger)
    rows = await ledger.connection.fetch(
        "SELECT seq, amount, balance_after, voucher_id, cardinality(vouchers) AS summed FROM ledger.entries"
        " WHERE account_number = $1 ORDER BY seq",
        bank.number,
    )
    assert [tuple(row)[:3] for row in rows] == [(1, -25, -25), (2, -40, -65), (3, 489, 424)]
    assert [row["summed"] for row in rows] == [3, None, 4]
    assert rows[1]["voucher_id"] == lines[3][0]
    assert (await ledger.prove()).entries == 2 * 7 + 1 + 2, "each line counts, also those of the opening balance"


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 7, 8, 9, 1000])
async def test_a_statement_shows_every_line_that_a_summary_sums(ledger: Ledger, limit: int) -> None:
    bank, lines = await busy_bank(ledger)
    found = await statement(ledger, bank, limit)
    assert [(e.voucher_id, e.amount if e.side == "credit" else -e.amount) for e in found] == lines
    balance = 0
    for entry, (_, amount) in zip(found, lines, strict=True):
        balance -= amount
        assert entry.balance_after == balance
        assert entry.type == "pay"
    assert [e.summary for e in found] == [3, 3, 3, None, 4, 4, 4, 4]
    assert [e.seq for e in found] == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_a_statement_shows_the_summaries_themselves(ledger: Ledger, limit: int) -> None:
    bank, lines = await busy_bank(ledger)
    found = await statement(ledger, bank, limit, level="entries")
    assert [(e.voucher_id, e.type, e.side, e.amount, e.balance_after, e.summary) for e in found] == [
        (None, "summary", "debit", 25, 25, 3),
        (lines[3][0], "pay", "debit", 40, 65, None),
        (None, "summary", "credit", 489, -424, 4),
    ]


async def test_a_page_may_end_within_a_summary_while_another_slot_is_posted_to(ledger: Ledger) -> None:
    bank, lines = await busy_bank(ledger)
    page, cursor = await read_statement(ledger.connection, ledger.directory, bank, ledger.layout, 2, None, None, None)
    assert cursor is not None
    with pytest.raises(BadCursor, match="another level"):
        await read_statement(
            ledger.connection, ledger.directory, bank, ledger.layout, 2, cursor, None, None, level="entries"
        )
    other = await ledger.worker(1)
    m = ledger.directory.get("m")
    assert m is not None
    late = [transfer(bank, m, 8), transfer(bank, m, 9)]
    assert codes(await other.post(*late)) == ["posted"] * 2
    rest, cursor = await read_statement(
        ledger.connection, ledger.directory, bank, ledger.layout, 1000, cursor, None, None
    )
    assert cursor is None
    shown = [(e.voucher_id, e.amount if e.side == "credit" else -e.amount) for e in page + rest]
    assert shown == lines + [(v.id, -amount) for v, amount in zip(late, (8, 9), strict=True)]
    assert rest[-1].balance_after == -sum(amount for _, amount in shown)


async def test_a_group_that_is_refused_leaves_nothing_in_a_summary(ledger: Ledger) -> None:
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m")
    group = AtomicGroup([transfer(bank, m, 10), transfer(bank, m, 20), transfer(m, bank, 10_000)])
    alone = [transfer(bank, m, 1), transfer(bank, m, 2)]
    outcomes = await ledger.post(alone[0], group, alone[1])
    assert [posted(outcome) for outcome in (outcomes[0], outcomes[2])] == [True, True]
    assert [e.voucher_id for e in await statement(ledger, bank)] == [v.id for v in alone]
    assert await ledger.posted(bank) == 3
    assert (await ledger.prove()).ok


async def test_without_summaries_each_line_has_an_entry(ledger: Ledger) -> None:
    ledger.books.summarises = False
    bank, lines = await busy_bank(ledger)
    found = await statement(ledger, bank)
    assert [(e.voucher_id, e.seq, e.summary) for e in found] == [(id_, i, None) for i, (id_, _) in enumerate(lines, 1)]
    assert (await ledger.prove()).ok


@pytest.mark.parametrize("way", ["one is left out", "one is named twice"])
async def test_a_summary_that_names_the_wrong_vouchers_is_found(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The broken twin: balances, chains and MACs are right, but the summary lists wrong vouchers."""
    real = entries.write_later

    def careless(batch: Batch, s: object, module: str, ids: list, *more: object) -> None:
        real(batch, s, module, ids[1:] if way == "one is left out" else [*ids, ids[0]], *more)  # type: ignore[arg-type]

    monkeypatch.setattr(entries, "write_later", careless)
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m")
    await ledger.post(*(transfer(bank, m, amount) for amount in (1, 2, 3)))
    report = await verify(ledger.dsn, ledger.keys)
    found = {check.name for check in report.checks if not check.ok}
    assert "summary_equals_vouchers" in found
    assert found <= {"summary_equals_vouchers", "voucher_equals_entries"}


async def test_a_summary_that_is_forgotten_is_found(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: lines change the balance, but no entry is written."""
    monkeypatch.setattr(rules, "write_summaries", lambda batch: None)
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m")
    await ledger.post(transfer(bank, m, 1), transfer(bank, m, 2))
    report = await verify(ledger.dsn, ledger.keys)
    assert {"balance_equals_entries", "voucher_equals_entries"} <= {c.name for c in report.checks if not c.ok}


async def test_pages_may_end_within_summaries_of_several_slots(ledger: Ledger) -> None:
    """A batch with an earlier time is still being written on another slot. Its lines are shown in the right place."""
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m")
    late = Halfway(await ledger.worker(1))
    await late.write(*(transfer(bank, m, amount) for amount in (100, 200, 300)))
    other = await ledger.account("m2")
    await ledger.post(*(transfer(bank, other, amount) for amount in (1, 2, 3)))
    async with ledger.reading() as reader:
        first = asyncio.create_task(read_statement(reader, ledger.directory, bank, ledger.layout, 2, None, None, None))
        await eventually(lambda: mark_is_up(ledger), "the mark is raised")
        assert not first.done()
        await late.commit()
        page, cursor = await first
    assert [e.amount for e in page] == [100, 200]
    shown = list(page)
    while cursor is not None:
        page, cursor = await read_statement(
            ledger.connection, ledger.directory, bank, ledger.layout, 2, cursor, None, None
        )
        shown += page
    assert [e.amount for e in shown] == [100, 200, 300, 1, 2, 3]
    assert [e.balance_after for e in shown] == [100, 300, 600, 601, 603, 606]


async def mark_is_up(ledger: Ledger) -> bool:
    return bool(await ledger.connection.fetchval("SELECT is_called FROM ledger.statement_mark"))


async def test_a_statement_is_not_shown_when_a_voucher_of_a_summary_is_gone(ledger: Ledger) -> None:
    bank, lines = await busy_bank(ledger)
    async with ledger.connection.transaction():
        await ledger.connection.execute("ALTER TABLE ledger.vouchers DISABLE TRIGGER ALL")
        await ledger.connection.execute("DELETE FROM ledger.vouchers WHERE id = $1", lines[1][0])
    page, _ = await read_statement(ledger.connection, ledger.directory, bank, ledger.layout, 1, None, None, None)
    assert [e.voucher_id for e in page] == [lines[0][0]]
    for limit in (1, 2, 3, 1000):
        with pytest.raises(Tampered, match="is missing"):
            await statement(ledger, bank, limit)
