"""Account statements: complete up to a time, and verified before they are returned."""

import asyncio
from typing import Any

import pytest

from fundledger.faults import Unavailable
from fundledger.ledger import posting
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import Batch, Rebalance, Resplit
from fundledger.ledger.statement import pages as journal
from fundledger.ledger.statement import settled
from fundledger.ledger.statement.pages import BadCursor, StatementEntry, read_statement
from fundledger.ledger.statement.settled import settle
from fundledger.ledger.store.integrity import Tampered
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.slot_map import follow, read_routes
from tests.ledger.test_reads_verify import OF_ENTRIES
from tests.support.ledger import Ledger, codes, posted, transfer
from tests.support.waiting import eventually


async def statement(
    ledger: Ledger, account: Account, limit: int = 1000, level: str = "vouchers"
) -> list[StatementEntry]:
    found: list[StatementEntry] = []
    cursor = None
    while True:
        page, cursor = await read_statement(
            ledger.connection, ledger.directory, account, ledger.layout, limit, cursor, None, None, level=level
        )
        found += page
        if cursor is None:
            return found


async def split_account(ledger: Ledger) -> Account:
    """Open an account with the lines 100, 50, -120 (taken from two slots) and 5, and another account with one line."""
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m")
    await ledger.account("neighbour", balance=7)
    assert posted(await ledger.post_one(transfer(bank, m, 100)))
    assert (await ledger.post_one(Resplit(m, 2, "a test", "tests"))).refusal is None
    await follow(ledger.connection, ledger.directory, {}, await read_routes(ledger.connection))
    assert (await ledger.post_one(Rebalance(m))).refusal is None
    m = ledger.directory.get("m") or m
    assert codes(await ledger.post(transfer(bank, m, 50), transfer(m, bank, 120))) == ["posted"] * 2
    assert posted(await ledger.post_one(transfer(bank, m, 5)))
    assert await ledger.count("entries") > 2 * 4 + 2
    return m


async def test_a_debit_from_several_slots_is_one_line_and_moves_are_none(ledger: Ledger) -> None:
    m = await split_account(ledger)
    lines = await statement(ledger, m)
    assert [(e.seq, e.side, e.amount, e.balance_after) for e in lines] == [
        (1, "credit", 100, 100),
        (2, "credit", 50, 150),
        (3, "debit", 120, 30),
        (4, "credit", 5, 35),
    ]
    for limit in (1, 2, 3):
        assert await statement(ledger, m, limit) == lines
    stored = await statement(ledger, m, level="entries")
    assert len(stored) > len(lines) and {e.type for e in stored} == {"pay", "rebalance"}
    await ledger.prove()


EDITS = {
    **{
        f"entries: {name}": f"UPDATE ledger.entries SET {change} WHERE account_number = $1 AND slot = 0 AND seq = 3"
        for name, change in OF_ENTRIES.items()
    },
    "a middle entry is gone": "DELETE FROM ledger.entries WHERE account_number = $1 AND slot = 0 AND seq = 2",
    "the first entry is gone": "DELETE FROM ledger.entries WHERE account_number = $1 AND slot = 1 AND seq = 1",
    "the last entry is gone": """DELETE FROM ledger.entries e USING ledger.sub_accounts s WHERE s.account_number = $1
        AND e.account_number = $1 AND e.slot = s.slot AND e.seq = s.seq AND s.slot = 1""",
    "a line is hidden": "INSERT INTO ledger.line_counts VALUES ($1, 0, 1, -1)",
    "a part is shown": """UPDATE ledger.line_counts SET extra = extra + 1 WHERE account_number = $1 AND slot = 0
        AND seq = (SELECT max(seq) FROM ledger.line_counts WHERE account_number = $1 AND slot = 0)""",
    "a count is gone": "DELETE FROM ledger.line_counts WHERE account_number = $1 AND slot = 1",
    "a reference": "UPDATE ledger.vouchers SET reference = 'invoice 666' WHERE lines[3] = $1",
    "a type": "UPDATE ledger.vouchers SET type = 'gift' WHERE lines[3] = $1",
    "lines": "UPDATE ledger.vouchers SET lines = ARRAY[lines[1], lines[2] - 1, lines[3], lines[4] + 1] WHERE lines[3] = $1",
    "a voucher is gone": "DELETE FROM ledger.vouchers WHERE lines[3] = $1",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
async def test_a_statement_that_was_edited_is_not_shown_and_the_neighbours_is(ledger: Ledger, edit: str) -> None:
    m = await split_account(ledger)
    right = await statement(ledger, m)
    for table in ("entries", "vouchers", "line_counts"):
        await ledger.connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")
    await ledger.tamper(edit, m.number)
    for limit in (1, 2, 1000):
        shown: list[StatementEntry] = []
        cursor = None
        with pytest.raises(Tampered, match="account m: "):
            while True:
                page, cursor = await read_statement(
                    ledger.connection, ledger.directory, m, ledger.layout, limit, cursor, None, None
                )
                shown += page
                if cursor is None:
                    break
        assert [(e.voucher_id, e.amount) for e in shown] == [(e.voucher_id, e.amount) for e in right[: len(shown)]]
    neighbour = ledger.directory.get("neighbour")
    assert neighbour is not None
    assert [e.amount for e in await statement(ledger, neighbour)] == [7]


@pytest.mark.parametrize(
    "edit", ["key_version = 99", "created_at = 'infinity'", "created_at = '4000-01-01 BC'", "owner = 'another'"]
)
async def test_an_account_that_was_edited_hides_no_line_of_another_one(ledger: Ledger, edit: str) -> None:
    """The edited account is the counter account of two of the three lines."""
    m = await ledger.account("m", balance=10)
    edited, whole = await ledger.account("edited"), await ledger.account("whole")
    assert codes(await ledger.post(*[transfer(m, other, 1) for other in (edited, whole, edited)])) == ["posted"] * 3
    await ledger.tamper(f"UPDATE ledger.accounts SET {edit} WHERE number = $1", edited.number)
    lines = await statement(ledger, m)
    named = [None if e.source is None else e.source.counter_accounts(e.side) for e in lines]
    assert named == [["bank:funding:CNY"], [], ["whole"], []]


async def test_nothing_is_inserted_before_what_a_page_showed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that was decided before a page was read, and is written after it, gets a later time."""
    bank, a = await ledger.account("bank", "bank"), await ledger.account("a")
    now = clock.now_us()
    monkeypatch.setattr(clock, "now_us", lambda: now)
    assert posted(await ledger.post_one(transfer(bank, a, 1)))
    page = await statement(ledger, bank)
    assert [e.amount for e in page] == [1]
    other = await ledger.worker(1)
    for early in (now, now - 3_600_000_000):
        monkeypatch.setattr(clock, "now_us", lambda early=early: early)
        for worker in (other, ledger):
            assert codes(await worker.post(transfer(bank, await other.account(f"m:{early}"), 2))) == ["posted"]
            whole = await statement(ledger, bank)
            assert whole[: len(page)] == page
            page = whole
    assert [e.posted_at for e in page] == sorted(e.posted_at for e in page)
    await ledger.prove()


async def test_a_statement_that_raises_no_mark_gets_lines_before_what_it_showed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin does not raise the statement mark."""

    async def settle_nothing(*_: object) -> None:
        pass

    monkeypatch.setattr(journal, "settle", settle_nothing)
    bank, a = await ledger.account("bank", "bank"), await ledger.account("a")
    assert posted(await ledger.post_one(transfer(bank, a, 1)))
    page = await statement(ledger, bank)
    early = clock.now_us() - 3_600_000_000
    monkeypatch.setattr(clock, "now_us", lambda: early)
    other = await ledger.worker(1)
    assert posted(await other.post_one(transfer(bank, await other.account("b"), 2)))
    assert [e.amount for e in await statement(ledger, bank)] == [2, *[e.amount for e in page]]


DAY_US = 24 * 3600 * 1_000_000


async def of_a_wrong_clock(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> tuple[Account, list[StatementEntry], int]:
    """Open a split account with one line whose time is 40 days ahead.

    Return the account, its statement, and the current time.
    """
    m = await split_account(ledger)
    other = await ledger.account("other", balance=9)
    now, before = clock.now_us(), await statement(ledger, m)
    monkeypatch.setattr(clock, "now_us", lambda: now + 40 * DAY_US)
    assert posted(await ledger.post_one(transfer(other, m, 3)))
    monkeypatch.setattr(clock, "now_us", lambda: now)
    page = await statement(ledger, m)
    assert page[: len(before)] == before
    return m, page, now


async def time_of_another(ledger: Ledger) -> int:
    """Return the time of a new payment between two other accounts."""
    a, b = await ledger.account("payer", balance=5), await ledger.account("payee")
    assert posted(await ledger.post_one(transfer(a, b, 5)))
    return clock.us((await statement(ledger, b))[-1].posted_at)


async def test_an_entry_of_a_clock_that_was_ahead_gives_its_time_to_no_other_account(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    m, page, now = await of_a_wrong_clock(ledger, monkeypatch)
    assert [line.amount for line in page] == [100, 50, 120, 5]
    assert now <= await time_of_another(ledger) <= now + DAY_US + 1_000_000
    monkeypatch.setattr(clock, "now_us", lambda: now + 39 * DAY_US + 1)
    assert [line.amount for line in await statement(ledger, m)] == [100, 50, 120, 5, 3]
    await ledger.prove()


async def test_without_a_bound_one_entry_dates_the_whole_ledger(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin has no maximum of the statement mark: one entry then determines the time of all later batches."""
    monkeypatch.setattr(journal, "AHEAD_MAX_US", 400 * DAY_US)
    _, page, now = await of_a_wrong_clock(ledger, monkeypatch)
    assert [line.amount for line in page] == [100, 50, 120, 5, 3]
    assert await time_of_another(ledger) > now + 40 * DAY_US


class Counting:
    """A reader that counts the calls of each query."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.read: dict[str, int] = {}

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        name = next(name for name in SQL if SQL[name] == query)
        self.read[name] = self.read.get(name, 0) + 1
        return list(await self._reader.fetch(query, *arguments))


async def test_locks_are_read_once_however_long_a_batch_takes(ledger: Ledger) -> None:
    await split_account(ledger)
    async with ledger.reading() as writer, ledger.reading() as locker, ledger.reading() as other:
        counting = Counting(other)
        async with locker.transaction():
            # The lock has no transaction id: nothing is written yet, and the mark is checked later.
            await locker.execute("LOCK TABLE ledger.entries IN ROW EXCLUSIVE MODE")
            await settle(counting, clock.now_us())
            assert counting.read == {"statement_mark": 1, "raise_statement_mark": 1, "entry_writers": 1}
            async with writer.transaction():
                await writer.execute("LOCK TABLE ledger.entries IN ROW EXCLUSIVE MODE")
                await writer.fetchval("SELECT pg_current_xact_id()")
                waits = asyncio.create_task(settle(counting, clock.now_us()))
                await eventually(lambda: counting.read.get("running_transactions", 0) >= 3, "it waits")
                assert not waits.done()
            await waits
    assert counting.read["entry_writers"] == 2


async def test_a_batch_that_never_ends_is_waited_for_a_bounded_time(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settled, "WITHIN_S", 0.05)
    async with ledger.reading() as writer, writer.transaction():
        await writer.execute("LOCK TABLE ledger.entries IN ROW EXCLUSIVE MODE")
        await writer.fetchval("SELECT pg_current_xact_id()")
        with pytest.raises(Unavailable):
            await settle(ledger.connection, clock.now_us())


async def raise_mark(ledger: Ledger, upto_us: int) -> None:
    """Raise the statement mark, as reading a statement with an entry of that time does."""
    async with ledger.reading() as reader:
        await reader.fetch(SQL["raise_statement_mark"], upto_us)


def time_of(arguments: tuple[Any, ...]) -> int:
    """Return the posting time of the batch among the arguments."""
    return next(each.posted_at_us for each in arguments if isinstance(each, Batch))


async def test_a_batch_that_waited_for_a_lock_gets_the_time_after_the_wait(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a statement that is read during the wait would cost the batch another attempt, and another wait."""
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m")
    ledger.lock_always()
    attempts: list[object] = []
    write = posting._write

    async def counted(*arguments: Any) -> None:
        attempts.append(arguments)
        await write(*arguments)

    monkeypatch.setattr(posting, "_write", counted)
    async with ledger.reading() as holder:
        async with holder.transaction():
            await holder.execute("SELECT FROM ledger.sub_accounts WHERE account_number = $1 FOR UPDATE", m.number)
            posts = asyncio.create_task(ledger.post_one(transfer(bank, m, 1)))
            waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"
            await eventually(lambda: ledger.connection.fetchval(waits), "the batch waits")
            await raise_mark(ledger, clock.now_us())
        assert posted(await posts)
    assert len(attempts) == 1
    await ledger.prove()


async def test_a_batch_that_statements_overtake_repeatedly_is_posted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m")
    ledger.lock_always()
    write, left = posting._write, 4 * posting.CONFLICT_ATTEMPTS

    async def overtaken(*arguments: Any) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            await raise_mark(ledger, time_of(arguments))
        await write(*arguments)

    monkeypatch.setattr(posting, "_write", overtaken)
    assert posted(await ledger.post_one(transfer(bank, m, 1)))
    assert left == 0
    await ledger.prove()


async def test_a_batch_that_is_overtaken_for_too_long_may_be_sent_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, m = await ledger.account("bank", "bank"), await ledger.account("m")
    ledger.lock_always()
    write = posting._write

    async def overtaken(*arguments: Any) -> None:
        await raise_mark(ledger, time_of(arguments))
        await write(*arguments)

    payment = transfer(bank, m, 1)
    with monkeypatch.context() as always:
        always.setattr(posting, "_write", overtaken)
        always.setattr(posting, "RETRY_FOR_S", 0.0)
        assert codes(await ledger.post(payment)) == ["Unavailable"]
    assert await ledger.posted(m) == 0
    assert posted(await ledger.post_one(payment))
    await ledger.prove()


async def test_pages_of_an_account_that_is_written_are_what_its_statement_is_later(ledger: Ledger) -> None:
    bank = await ledger.account("bank", "bank")
    workers = [ledger, *[await ledger.worker(i) for i in range(1, 4)]]
    merchants = [await ledger.account(f"m:{i}") for i in range(4)]
    over = asyncio.Event()

    async def write(i: int) -> None:
        for n in range(40):
            batch = [transfer(bank, merchants[i], n + 1) for _ in range(1 + n % 3)]
            assert set(codes(await workers[i].post(*batch))) == {"posted"}

    async def read() -> list[StatementEntry]:
        found: list[StatementEntry] = []
        cursor = None
        async with ledger.reading() as reader:
            while True:
                last = over.is_set()
                page, next_ = await read_statement(reader, ledger.directory, bank, ledger.layout, 5, cursor, None, None)
                if next_ is not None:
                    cursor = next_
                    found += page
                elif last:
                    return found + page

    reading = asyncio.create_task(read())
    await asyncio.gather(*(write(i) for i in range(4)))
    over.set()
    assert await reading == await statement(ledger, bank)
    await ledger.prove()


async def test_a_cursor_that_was_altered_is_refused(ledger: Ledger) -> None:
    m = await split_account(ledger)
    _, cursor = await read_statement(ledger.connection, ledger.directory, m, ledger.layout, 1, None, None, None)
    assert cursor is not None
    for altered in (cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB"), cursor[:-4], "B" + cursor[1:], ""):
        with pytest.raises(BadCursor):
            await read_statement(ledger.connection, ledger.directory, m, ledger.layout, 1, altered, None, None)
