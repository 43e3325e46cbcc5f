"""Imports of bank statements: each order matches one line, and other lines are posted once as differences."""

import asyncio
import hashlib
from datetime import UTC, date, datetime
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from fundledger.fund.channels.http import HttpChannel
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model import accounts
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.order import PLATFORM, Kind, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import BankDifference
from fundledger.fund.statements.imports import (
    Contradiction,
    Imported,
    StatementLine,
    StatementRequest,
    contradictions,
    difference_no,
    import_statement,
)
from fundledger.fund.statements.matching import Outcome
from fundledger.fund.store.queries import SQL
from tests.fund.bank import Pool, RunningBank, a_withdrawal, an_order, here, to_order
from tests.support.fund_ids import order_id
from tests.support.fund_worker import CHECKER, FundWorker
from tests.support.plans import plan_of, scanned
from tests.support.running import RunningService

MATCHED, AWAITED, DIFFERENT = Outcome.MATCHED, Outcome.AWAITED, Outcome.DIFFERENT
DUPLICATE, UNKNOWN = Outcome.DUPLICATE, Outcome.UNKNOWN

# --- Imports --------------------------------------------------------------------------------------------------------


class BooksInSql:
    """A substitute for the order batcher. Its `ask` inserts bank differences by SQL and posts no voucher."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.away_after = 1_000
        self.requesters: set[str] = set()

    async def ask(self, request: BankDifference, module: str) -> Answer:
        id_ = order_id(Kind.BANK_DIFFERENCE, PLATFORM, request.order_no)
        if self.away_after == 0:
            return OrderFault("the account service does not answer")
        self.away_after -= 1
        self.requesters.add(module)
        row = await self._pool.fetchrow("SELECT * FROM fund.orders WHERE id = $1", id_)
        if row is not None:
            if row["digest"] != request.digest():
                return Refusal(Code.ORDER_NO_REUSED, "another one has this number")
            return Taken(to_order(row), replay=True)
        await an_order(
            self._pool,
            *("bank_difference", request.amount, "posted"),
            id=id_,
            merchant=PLATFORM,
            order_no=request.order_no,
            channel=request.channel,
            direction=request.direction,
            reason=request.reason,
            digest=request.digest(),
        )
        return Taken(to_order(await self._pool.fetchrow("SELECT * FROM fund.orders WHERE id = $1", id_)))


def statement(*lines: tuple[str, int], number: str = "1", currency: str = "CNY") -> StatementRequest:
    body = {"channel": here.channel, "statement_no": number, "currency": currency}
    return msgspec.convert(
        {**body, "lines": [{"ref": ref, "amount": amount} for ref, amount in lines]}, StatementRequest
    )


async def imported(pool: Pool, *lines: tuple[str, int], number: str = "1") -> Imported:
    found = await import_statement(BooksInSql(pool), pool, statement(*lines, number=number), "dev")
    assert isinstance(found, Imported), found
    return found


async def booked(pool: Pool) -> int:
    """Return the sum of the bank differences of the test's channel."""
    return await pool.fetchval(
        "SELECT coalesce(sum(CASE direction WHEN 'more' THEN amount ELSE -amount END), 0)::bigint FROM fund.orders"
        " WHERE channel = $1 AND kind = 'bank_difference'",
        here.channel,
    )


async def test_every_kind_of_order_explains_its_line_and_the_rest_is_booked(fund_pool: Pool):
    paid = await a_withdrawal(fund_pool, 30, "paid", ending="paid", channel_ref="OUT-1")
    by_id = await a_withdrawal(fund_pool, 31, "paid", ending="paid")
    sent = await a_withdrawal(fund_pool, 32, "unknown")
    bounced = await a_withdrawal(fund_pool, 33, "bounced", ending="bounced")
    refund = await an_order(fund_pool, "refund", 40, "posted")
    await an_order(fund_pool, "payment", 100, "posted", channel_ref="IN-1")
    await an_order(fund_pool, "payment", 101, "posting", channel_ref="IN-2")
    await an_order(fund_pool, "payment", 102, "posted", channel_ref="IN-3", reversed_by=uuid4())
    await an_order(fund_pool, "payment", 103, "posted", channel_ref="IN-4", channel=f"{here.channel}-other")
    await an_order(fund_pool, "payment", 104, "posted", channel_ref="IN-5", currency="EUR")
    await an_order(fund_pool, "chargeback", 50, "posted", channel_ref="BACK-1")
    rows = [
        ("OUT-1", -30, MATCHED),
        (str(by_id), -31, MATCHED),
        (str(sent).upper(), -32, AWAITED),
        (str(bounced), -33, UNKNOWN),
        (str(refund), -40, MATCHED),
        (str(paid), -30, DUPLICATE),
        ("IN-1", 99, DIFFERENT),
        ("IN-2", 101, AWAITED),
        ("IN-3", 102, UNKNOWN),
        ("IN-4", 103, UNKNOWN),
        ("IN-5", 104, UNKNOWN),
        ("BACK-1", -50, MATCHED),
        ("FEE", -7, UNKNOWN),
    ]
    report = (await imported(fund_pool, *[(ref, amount) for ref, amount, _ in rows])).report
    assert [(line.ref, line.outcome) for line in report.lines] == [(ref, outcome) for ref, _, outcome in rows]
    assert report.total == sum(amount for _, amount, _ in rows)
    assert report.difference == -33 - 30 - 1 + 102 + 103 + 104 - 7 == await booked(fund_pool)
    assert [line.state for line in report.lines if line.difference] == [State.POSTED] * 7
    assert report.counts == {MATCHED: 4, AWAITED: 2, DIFFERENT: 1, DUPLICATE: 1, UNKNOWN: 5, Outcome.REPEATED: 0}


async def test_split_orders_and_payments_of_invoices_explain_their_lines(fund_pool: Pool):
    """A split order is one line, with the whole amount. An invoice moves no money."""
    parts = '[{"merchant":"a","amount":50},{"merchant":"b","amount":10}]'
    await an_order(fund_pool, "split_payment", 60, "posted", channel_ref="SPLIT-1", parts=parts)
    refund = await an_order(fund_pool, "split_refund", 60, "posted", parts=parts)
    await an_order(fund_pool, "split_chargeback", 60, "posted", channel_ref="BACK-1", parts=parts)
    await an_order(fund_pool, "channel_invoice", 70, "posted", channel_ref="INV-1", period="2026-02")
    by_id = await an_order(fund_pool, "payable_payment", 40, "posted", period="2026-02")
    await an_order(fund_pool, "payable_payment", 30, "posted", channel_ref="OUT-1", period="2026-02")
    await an_order(fund_pool, "payable_payment", 5, "rejected", channel_ref="OUT-2", problem="{}")
    await an_order(fund_pool, "payable_payment", 6, "expired", channel_ref="OUT-3", problem="{}")
    rows = [
        ("SPLIT-1", 60, MATCHED),
        (str(refund), -60, MATCHED),
        ("BACK-1", -60, MATCHED),
        (str(by_id), -40, MATCHED),
        ("OUT-1", -30, MATCHED),
        ("INV-1", -70, UNKNOWN),
        ("OUT-2", -5, UNKNOWN),
        ("OUT-3", -6, UNKNOWN),
    ]
    report = (await imported(fund_pool, *[(ref, amount) for ref, amount, _ in rows])).report
    assert [(line.ref, line.outcome) for line in report.lines] == [(ref, outcome) for ref, _, outcome in rows]
    assert report.difference == -81 == await booked(fund_pool)


async def test_a_repeat_answers_the_same_and_books_nothing_though_the_books_went_on(fund_pool: Pool):
    lines = ("IN-1", 100), ("IN-2", 50)
    await an_order(fund_pool, "payment", 100, "posted", channel_ref="IN-1")
    first = await imported(fund_pool, *lines)
    assert not first.replay
    await an_order(fund_pool, "payment", 50, "posted", channel_ref="IN-2")
    again = await imported(fund_pool, *lines)
    assert (again.replay, again.report) == (True, first.report)
    assert await booked(fund_pool) == 50


async def test_other_lines_under_the_same_number_are_refused_and_book_nothing(fund_pool: Pool):
    await imported(fund_pool, ("IN-1", 100))
    for other in (
        statement(("IN-1", 101)),
        statement(("IN-1", 100), ("IN-2", 1)),
        statement(("IN-1", 100), currency="EUR"),
    ):
        refusal = await import_statement(BooksInSql(fund_pool), fund_pool, other, "dev")
        assert isinstance(refusal, Refusal)
        assert (refusal.code, refusal.field) == (Code.STATEMENT_NO_REUSED, "statement_no")
    assert await booked(fund_pool) == 100


async def test_a_line_that_stands_on_two_statements_is_a_duplicate_on_the_second(fund_pool: Pool):
    await an_order(fund_pool, "payment", 100, "posted", channel_ref="IN-1")
    assert (await imported(fund_pool, ("IN-1", 100), number="1")).report.difference == 0
    second = (await imported(fund_pool, ("IN-1", 100), number="2")).report
    assert (second.counts[DUPLICATE], second.difference) == (1, 100)


async def test_an_import_that_was_cut_off_goes_on_with_the_same_matching(fund_pool: Pool):
    batcher = BooksInSql(fund_pool)
    batcher.away_after = 1
    asked = statement(("X-1", 1), ("X-2", 2), ("X-3", 4))
    cut = await import_statement(batcher, fund_pool, asked, "dev")
    assert isinstance(cut, OrderFault)
    assert not cut.undone
    await an_order(fund_pool, "payment", 4, "posted", channel_ref="X-3")
    batcher.away_after = 10
    done = await import_statement(batcher, fund_pool, asked, "other")
    assert isinstance(done, Imported)
    assert (done.report.difference, await booked(fund_pool)) == (7, 7)
    assert batcher.requesters == {"dev"}, "the first requester may not approve the differences"


async def test_concurrent_imports_of_one_statement_import_it_once(fund_pool: Pool):
    asked = statement(("X-1", 1), ("X-2", 2))
    both = await asyncio.gather(
        *(import_statement(BooksInSql(fund_pool), fund_pool, asked, "dev") for _ in range(3)), return_exceptions=True
    )
    kept = await fund_pool.fetchval("SELECT count(*) FROM fund.bank_statements WHERE channel = $1", here.channel)
    assert (kept, await booked(fund_pool)) == (1, 3)
    # The substitute for the order batcher takes no lock, so two concurrent imports may insert the same order number.
    assert {type(each) for each in both} <= {Imported, asyncpg.UniqueViolationError}


async def test_a_line_that_awaited_what_never_came_is_a_contradiction(fund_pool: Pool):
    order = await a_withdrawal(fund_pool, 30, "sent")
    await imported(fund_pool, (str(order), -30))
    mine = [row for row in await contradictions(fund_pool) if row.channel == here.channel]
    assert mine == []
    await fund_pool.execute("UPDATE fund.orders SET state = 'bounced', ending = 'bounced' WHERE id = $1", order)
    mine = [row for row in await contradictions(fund_pool) if row.channel == here.channel]
    assert mine == [Contradiction(here.channel, "1", 1, -30, order, "bounced")]


@pytest.mark.parametrize(
    "change",
    [
        {"lines": []},
        {"lines": [{"ref": "a", "amount": 0}]},
        {"lines": [{"ref": "a", "amount": 2**53}]},
        {"lines": [{"ref": "a", "amount": 1.5}]},
        {"lines": [{"ref": "", "amount": 1}]},
        {"lines": [{"ref": "a", "amount": 1, "more": 1}]},
        {"lines": [{"ref": "a", "amount": 1}] * 5001},
        {"statement_no": "a b"},
        {"channel": "a:b"},
        {"currency": "cny"},
        {"day": "2026-03-01"},
    ],
)
def test_what_is_no_statement_is_not_taken(change: dict):
    good = {"channel": "c", "statement_no": "1", "currency": "CNY", "lines": [{"ref": "a", "amount": 1}]}
    assert msgspec.convert(good, StatementRequest)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode({**good, **change}), type=StatementRequest)


def test_the_number_of_a_difference_is_an_order_number_whatever_the_statement_is_called():
    members = {"channel": "c" * 32, "amount": 1, "currency": "CNY", "direction": "more", "reason": "r"}
    number = difference_no("c" * 32, "9" * 64, 5000)
    assert msgspec.convert({"order_no": number, **members}, BankDifference)
    assert len({difference_no(*named, 1) for named in (("a", "bc"), ("ab", "c"), ("a", "b"))}) == 3


async def test_statements_are_never_changed(fund_pool: Pool):
    await imported(fund_pool, ("X", 1))
    for change in ("UPDATE fund.bank_statement_lines SET ref = 'y'", "DELETE FROM fund.bank_statements"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError):
            await fund_pool.execute(change)


async def test_no_statement_of_imports_reads_all_orders(fund_pool: Pool):
    async with fund_pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        for name in sorted(SQL):
            if name.startswith("statements_"):
                assert scanned(await plan_of(connection, SQL[name], like_a_lane=False)) == [], name


# --- End to end -----------------------------------------------------------------------------------------------------


WITHDRAWALS = 40


async def test_after_a_wrong_statement_the_bank_of_the_books_is_the_bank(
    fund_database: str, service: RunningService, bank: RunningBank
):
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant, name = await worker.merchant(), f"c-{worker.salt}"
        for number in range(6):
            await worker.pay(merchant, str(number), 1_000 + number, channel_ref=f"IN-{number}")
            await bank.post("/receipts", {"channel_ref": f"IN-{number}", "amount": 1_000 + number})
        # The bank's answer depends on the order's id, which is random: of forty orders, some are paid and some bounce.
        for number in range(WITHDRAWALS):
            await worker.done("withdrawal", merchant=merchant, order_no=str(number), amount=100 + number, channel=name)
        await bank.behave(seed=3, bounce_rate=0.5)
        async with HttpChannel(bank.url, token=bank.token) as channel:
            paying = Payouts(worker.pool, worker.batcher, {name: channel}, Pace(rate=10_000))
            assert await paying.pay_out_some() == (WITHDRAWALS, 0.0)
            totals = bank.totals
            assert totals["paid"] > 0 < totals["bounced"]
            assert paying.ended == WITHDRAWALS
            assert await worker.balance(accounts.bank(name, "CNY")) == 6_015 - totals["paid_amount"]
            assert await worker.balance(accounts.payout_transit(name, "CNY")) == 0
            await bank.behave(seed=3, extra=2, missing=2, amount=1, duplicate_rate=0.2)
            lines = await channel.statement(datetime.now(UTC).date())
        body = [{"ref": line.ref, "amount": line.amount} for line in lines]
        request = msgspec.convert(
            {"channel": name, "statement_no": "1", "currency": "CNY", "lines": body}, StatementRequest
        )
        before = await worker.balance(accounts.bank(name, "CNY"))
        for _ in range(2):
            done = await import_statement(worker.batcher, worker.pool, request, "tester")
            assert isinstance(done, Imported), done
        assert done.replay
        assert {line.state for line in done.report.lines if line.difference} == {State.CREATED}
        assert await worker.balance(accounts.bank(name, "CNY")) == before
        waiting = [line.booked for line in done.report.lines if line.booked]
        approved = await worker.batcher.approve_many(waiting, CHECKER)
        assert {answer.order.state for answer in approved if isinstance(answer, Taken)} == {State.POSTED}
        assert done.report.counts[UNKNOWN] == 2
        assert await worker.balance(accounts.bank(name, "CNY")) == before + done.report.difference


# --- The same line on two statements --------------------------------------------------------------------------------


def line(ref: str, amount: int, entry_ref: str | None = None, value_date: date | None = None) -> StatementLine:
    return StatementLine(ref, amount, entry_ref, value_date)


D1, D2 = date(2026, 3, 1), date(2026, 3, 2)
AGAIN: dict[str, tuple[list[StatementLine], list[StatementLine], list[str]]] = {
    # case: (lines of the first statement, of the second, outcomes of the second)
    "the same": ([line("FEE", -7)], [line("FEE", -7)], ["repeated"]),
    "another amount": ([line("FEE", -7)], [line("FEE", -8)], ["unknown"]),
    "once more than before": ([line("FEE", -7)], [line("FEE", -7)] * 2, ["repeated", "unknown"]),
    "both again": ([line("FEE", -7)] * 2, [line("FEE", -7)] * 2, ["repeated", "repeated"]),
    "of another day": ([line("FEE", -7, None, D1)], [line("FEE", -7, None, D2)], ["unknown"]),
    "of the same day": ([line("FEE", -7, None, D1)], [line("FEE", -7, None, D1)], ["repeated"]),
    "another entry": ([line("FEE", -7, "E1")], [line("FEE", -7, "E2")], ["unknown"]),
    "the same entry": ([line("FEE", -7, "E1")], [line("FEE", -7, "E1")], ["repeated"]),
    "the same entry, written otherwise": ([line("FEE", -7, "E1")], [line("FEES", -7, "E1", D2)], ["repeated"]),
    "the same entry twice on one": (
        [line("X", 1)],
        [line("FEE", -7, "E1"), line("FEE", -7, "E1")],
        ["unknown", "repeated"],
    ),
    "of an order, which the bank may have paid twice": ([line("IN-1", 100)], [line("IN-1", 100)], ["duplicate"]),
    "of an order, and the same entry": ([line("IN-1", 100, "E1")], [line("IN-1", 100, "E1")], ["repeated"]),
    "of an order, of the same day": ([line("IN-1", 100, None, D1)], [line("IN-1", 100, None, D1)], ["repeated"]),
}


@pytest.mark.parametrize("case", AGAIN)
async def test_a_line_that_another_statement_has_is_booked_once(fund_pool: Pool, case: str):
    first, second, outcomes = AGAIN[case]
    await an_order(fund_pool, "payment", 100, "posted", channel_ref="IN-1")
    books = BooksInSql(fund_pool)
    for number, lines in (("A", first), ("B", second)):
        request = StatementRequest(here.channel, number, "CNY", lines)
        imported = await import_statement(books, fund_pool, request, "dev")
        assert isinstance(imported, Imported)
        replay = await import_statement(books, fund_pool, request, "dev")
        assert isinstance(replay, Imported)
        assert (replay.replay, replay.report) == (True, imported.report)
    assert [reported.outcome for reported in imported.report.lines] == outcomes
    moved = sum(each.amount for each in first)
    moved += sum(each.amount for each, outcome in zip(second, outcomes, strict=True) if outcome != "repeated")
    explained = 100 if any(each.ref == "IN-1" for each in first) else 0
    assert await booked(fund_pool) == moved - explained


async def test_one_that_knows_no_earlier_lines_books_twice(fund_pool: Pool, monkeypatch: pytest.MonkeyPatch):
    blind = SQL["statements_earlier"].replace("n.outcome <> 'repeated'", "false")
    monkeypatch.setitem(SQL, "statements_earlier", blind)
    for number in ("A", "B"):
        request = StatementRequest(here.channel, number, "CNY", [line("FEE", -7)])
        await import_statement(BooksInSql(fund_pool), fund_pool, request, "dev")
    assert await booked(fund_pool) == -14


def test_the_digest_of_a_statement_is_what_it_was_before_lines_had_an_identity():
    request = StatementRequest("c", "1", "CNY", [StatementLine("a", 5)])
    plain = b'statement|{"channel":"c","statement_no":"1","currency":"CNY","lines":[{"ref":"a","amount":5}]}'
    assert request.digest() == hashlib.sha256(plain).digest()
