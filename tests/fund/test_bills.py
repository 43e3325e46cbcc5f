"""Bills of merchants: statements are merged, page by page, and running balances continue over pages."""

import itertools
import random
import uuid
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fundledger.client.types import StatementEntry
from fundledger.fund import bills
from fundledger.fund.account_gateway import BadCursor
from fundledger.fund.bills import Amounts, BillPage, read_bill
from fundledger.fund.model.days import Days, after_month, day_after
from fundledger.fund.model.order import Kind
from tests.support.flow_orders import an_order
from tests.support.fund_ids import MACS

BEGINS = datetime(2026, 3, 1, tzinfo=UTC)
ENDS = datetime(2026, 3, 2, tzinfo=UTC)
NAMES = ("merchant:m:available", "merchant:m:pending", "merchant:m:receivable")


class NoOrders:
    """A pool of a database without orders."""

    async def fetch(self, *_: object) -> list[Any]:
        return []


class Statements:
    """An account gateway that returns statements of three accounts. A cursor is a position. `short`: the most lines of
    a page.
    """

    def __init__(self, short: int = 1000) -> None:
        self.lines: dict[str, list[StatementEntry]] = {name: [] for name in NAMES}
        self.opening = dict.fromkeys(NAMES, 0)
        self.short = short
        self.fetched = 0

    def post(self, at: datetime, voucher: uuid.UUID, **moved: int) -> None:
        """Add a line to each account that a voucher moves. A positive amount raises the balance of the account."""
        for name in NAMES:
            amount = moved.get(name.rpartition(":")[2], 0)
            if amount:
                credit = (amount > 0) != name.endswith("receivable")
                line = StatementEntry(
                    seq=len(self.lines[name]) + 1,
                    voucher_id=voucher,
                    type="pay",
                    side="credit" if credit else "debit",
                    amount=abs(amount),
                    balance_after=self.balance(name) + amount,
                    posted_at=at,
                    accounting_date="2026-03-01",
                )
                self.lines[name].append(line)

    def balance(self, name: str) -> int:
        return self.lines[name][-1].balance_after if self.lines[name] else self.opening[name]

    async def balance_at(self, name: str, at: datetime) -> int:
        return self.opening[name] if at < BEGINS else self.balance(name)

    async def statement(
        self, name: str, from_: datetime, to: datetime, cursor: str | None, limit: int
    ) -> tuple[list[StatementEntry], str | None]:
        assert (from_, to) == (BEGINS, ENDS - timedelta(microseconds=1))
        assert 1 <= limit <= bills.FETCH_MAX
        self.fetched += 1
        begin = int(cursor or 0)
        end = begin + min(limit, self.short)
        return self.lines[name][begin:end], str(end) if end < len(self.lines[name]) else None

    async def page(self, cursor: str | None, limit: int) -> BillPage:
        pool: Any = NoOrders()
        return await read_bill(pool, self, MACS, "m", BEGINS, ENDS, cursor, limit)  # type: ignore[arg-type]


def a_day(seed: int, short: int = 1000) -> Statements:
    """Return statements of random vouchers. Many have the same time, and some move two or three of the accounts."""
    draw = random.Random(seed)
    found = Statements(short)
    found.opening = {name: draw.randint(0, 1000) for name in NAMES}
    for i in range(60):
        at = BEGINS + timedelta(minutes=i // 7)
        moved = {name: draw.choice([0, 0, draw.randint(-50, 50)]) for name in ("available", "pending", "receivable")}
        found.post(at, uuid.UUID(int=draw.getrandbits(128)), **moved)
    return found


async def walk(statements: Statements, limit: int) -> list[BillPage]:
    pages: list[BillPage] = []
    cursor: str | None = None
    for _ in range(1000):
        pages.append(await statements.page(cursor, limit))
        assert len(pages[-1].lines) <= limit
        cursor = pages[-1].cursor
        if cursor is None:
            return pages
    raise AssertionError("the bill does not end")


def added(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(one.available + other.available, one.pending + other.pending, one.receivable + other.receivable)


@pytest.mark.parametrize("short", [1000, 3])
@pytest.mark.parametrize("limit", [1, 4, 500])
@pytest.mark.parametrize("seed", range(3))
async def test_the_balances_run_over_all_pages_from_the_opening_to_the_closing_ones(
    seed: int, limit: int, short: int
) -> None:
    statements = a_day(seed, short)
    pages = await walk(statements, limit)
    opening = Amounts(*statements.opening.values())
    closing = Amounts(*map(statements.balance, NAMES))
    assert {(page.opening, page.closing) for page in pages} == {(opening, closing)}
    lines = [line for page in pages for line in page.lines]
    balance = opening
    for line in lines:
        balance = added(balance, line.change)
        assert line.balance == balance
    assert balance == closing
    assert [line.posted_at for line in lines] == sorted(line.posted_at for line in lines)
    # Each voucher is one line, whatever accounts it moves.
    vouchers = [line.voucher_id for line in lines]
    assert len(vouchers) == len(set(vouchers))
    assert set(vouchers) == {line.voucher_id for name in NAMES for line in statements.lines[name]}


async def test_the_cost_of_a_page_does_not_grow_with_the_bill() -> None:
    statements = Statements()
    for i in range(5000):
        statements.post(BEGINS + timedelta(seconds=i), uuid.uuid4(), available=1, receivable=i % 2)
    seen = 0
    cursor: str | None = None
    for _ in itertools.count():
        statements.fetched = 0
        page = await statements.page(cursor, 500)
        assert statements.fetched <= 3 * bills.FETCHES_MAX
        seen += len(page.lines)
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == 5000


async def test_a_voucher_waits_until_all_its_lines_are_next() -> None:
    """An account with several slots may have the vouchers of one time in another order."""
    statements = Statements()
    both, alone = uuid.uuid4(), uuid.uuid4()
    statements.post(BEGINS, both, available=5)
    statements.post(BEGINS, alone, pending=1)
    statements.post(BEGINS, both, pending=-5)
    page = await statements.page(None, 10)
    assert [line.voucher_id for line in page.lines] == [alone, both]
    assert page.lines[1].change == Amounts(5, -5, 0)


async def test_a_line_of_a_period_that_has_not_ended_is_in_its_closing_balances() -> None:
    statements = Statements()
    statements.post(BEGINS, uuid.uuid4(), available=5)
    balance_at = statements.balance_at
    added_late = uuid.uuid4()

    async def then_one_more(name: str, at: datetime) -> int:
        balance = await balance_at(name, at)
        if at > BEGINS and name == NAMES[-1]:
            statements.post(BEGINS + timedelta(seconds=1), added_late, available=7, pending=1)
        return balance

    statements.balance_at = then_one_more  # type: ignore[method-assign]
    page = await statements.page(None, 10)
    assert [line.balance.available for line in page.lines] == [5, 12]
    assert page.closing == Amounts(12, 1, 0)


@pytest.mark.parametrize("cursor", ["", "1", "0..0.", "x..0..0.", "0..0..0..", "12345..0..0.", "0.a b.0..0."])
async def test_another_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(BadCursor):
        await Statements().page(cursor, 10)


@pytest.mark.parametrize(
    ("order", "ending", "fee", "tax"),
    [
        (an_order(Kind.PAYMENT, fee=6, settle="now"), None, 6, 0),
        (an_order(Kind.PAYMENT, fee=6, tax=2, settle="now"), None, 6, 2),
        (an_order(Kind.PAYMENT, fee=6, tax=2, settle="later"), None, 0, 0),
        (an_order(Kind.SETTLEMENT, fee=6, tax=2, channel=None), None, 6, 2),
        (an_order(Kind.REFUND, fee=6, tax=2), None, -6, -2),
        (an_order(Kind.WITHDRAWAL, fee=5, tax=2), None, 5, 2),
        (an_order(Kind.WITHDRAWAL, fee=5, tax=2), "bounced", -5, -2),
        (an_order(Kind.REVERSAL, fee=6, tax=2, settle="now"), None, -6, -2),
    ],
    ids=lambda value: str(value.kind) if hasattr(value, "kind") else "",
)
def test_a_line_has_the_fee_that_its_voucher_charges(order: Any, ending: Any, fee: int, tax: int) -> None:
    assert bills._fee(order, ending, "m", Amounts(1, 1, 1)) == (fee, tax)
    # The pending part of a settlement may have another time than the part that is credited.
    assert bills._fee(order, ending, "m", Amounts(0, 1, 0)) == (0, 0)


def test_days_and_months_follow_each_other() -> None:
    assert Days().beginning_of(date(2026, 3, 1)) == BEGINS
    assert Days().day_of(BEGINS) == date(2026, 3, 1)
    assert Days().day_of(BEGINS - timedelta(microseconds=1)) == date(2026, 2, 28)
    assert day_after(date(2026, 2, 28)) == date(2026, 3, 1)
    assert [after_month(date(2026, month, 1)) for month in (1, 11, 12)] == [
        date(2026, 2, 1),
        date(2026, 12, 1),
        date(2027, 1, 1),
    ]
