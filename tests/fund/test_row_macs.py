"""MACs of rows of the fund database: `verify` reports a row that was edited by SQL, the next use of the row is refused,
and other rows are not affected.
"""

from collections.abc import AsyncIterator
from datetime import date, time
from typing import Any

import asyncpg
import pytest

from fundledger.fund.channels.channel import ChannelAway, Standing
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.change import ChangeKind
from fundledger.fund.model.change_requests import Holiday, HolidaysRequest, MerchantPatch
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.payout_file import PayoutFileRequest, PayoutResultsRequest
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.model.requests import Fee, FeeTier
from fundledger.fund.model.split_requests import SplitPaymentPart
from fundledger.fund.payout_files.export import Exported
from fundledger.fund.payout_files.results import Imported
from fundledger.fund.store.calendars import record_first
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.orders import read_order
from fundledger.outbox.webhooks import Webhooks
from fundledger.reconciliation.fund.checks import FINDINGS, MACS, ROW_MACS
from fundledger.reconciliation.reading import connected, snapshot
from tests.fund.bank import Scripted
from tests.support.database import Databases
from tests.support.fund_books import check_fund, prove_fund
from tests.support.fund_ids import KEYS
from tests.support.fund_payees import a_payee, files_of, results_of
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService
from tests.support.tampering import any_state, unguarded

PACE = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)
UNCOVERED = {
    "fund.orders": {"seq", "due_at", "receipt_void", "step_asked_at"},
    "fund.payments": set(),
    "fund.withdrawal_days": set(),
    "fund.debts": set(),
    "fund.payouts": {"sent_at", "called_at", "calls", "asked", "due_at"},
    "fund.merchants": {"seq"},
    "fund.fee_rules": set(),
    "fund.split_parts": set(),
    "fund.calendars": set(),
    "fund.ends": set(),
    "fund.holidays": {"version"},
    "fund.merchant_events": {"seq"},
    "fund.payees": {"seq"},
    "fund.payout_files": {"content"},
    "fund.payout_results": set(),
    "outbox.webhooks": set(),
}
"""Columns that no MAC covers: times and numbers of attempts, the sequence of lists, the number by which workers notice
new holidays, the mark of repeated receipts, which another check compares with the orders, and the content of a file,
which another check compares with its digest.
"""


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    async with FundWorker(fund_database, service.base_url, service.fund_token, wait_s=0.3) as worker:
        yield worker


async def fill(worker: FundWorker) -> str:
    """Insert a row into each table. Return the id of the merchant."""
    fee = Fee(basis_points=60, fixed=1, minimum=1, maximum=900, tiers=[FeeTier(5_000, 50, 2)])
    merchant = await worker.merchant(fee=fee, withdrawal_limit=1_000_000, settlement="daily")
    await worker.pay(merchant, "now", 1_000)
    await worker.pay(merchant, "later", 500, settle="later")
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="now", amount=100)
    await worker.done("refund", merchant=merchant, order_no="r2", payment_order_no="later", amount=50)
    channel = f"c-{worker.salt}"
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=70, channel=channel)
    await Payouts(worker.pool, worker.batcher, {channel: Scripted(Standing.PAID)}, PACE).pay_out_some()
    await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="now", amount=900)
    parts = [SplitPaymentPart(merchant, 300), SplitPaymentPart(await worker.merchant("n"), 200)]
    members = {"amount": 500, "currency": "CNY", "channel": channel, "parts": parts}
    await worker.done("split_payment", order_no=f"sp-{worker.salt}", **members)
    of = {"order_no": f"sr-{worker.salt}", "of_order_no": f"sp-{worker.salt}", "amount": 50}
    await worker.done("split_refund", **of)
    await Webhooks(worker.pool, worker.macs).add(merchant, "https://example.com/hook", ["payment.posted"], "tests")
    async with worker.pool.acquire() as connection:
        await record_first(connection, worker.macs.rows, worker.macs.days, "UTC", time())
    days = [Holiday(date(2026, 10, 1), name="National Day"), Holiday(date(2026, 10, 10), True)]
    await worker.approved(ChangeKind.HOLIDAYS, "CNY", HolidaysRequest("CNY", days))
    await worker.approved(ChangeKind.MERCHANT, merchant, MerchantPatch(withdrawal_limit=2_000_000, why="ticket 7"))
    await fill_files(worker)
    return merchant


async def fill_files(worker: FundWorker) -> None:
    """Insert a payee, a payout file, and its results."""
    other, channel = await worker.merchant("other"), f"f-{worker.salt}"
    await worker.pay(other, "first", 1_000)
    payee = await a_payee(worker, other)
    members = {"merchant": other, "amount": 70, "channel": channel, "payee": payee}
    order = await worker.done("withdrawal", order_no="w", **members)
    exported = await files_of(worker).export(channel, PayoutFileRequest("CNY"), "tests")
    assert isinstance(exported, Exported), exported
    content = f"ref,state,amount,reason\n{order.id},bounced,0.70,closed\n"
    request = PayoutResultsRequest(exported.file.file_no, "csv", content)
    assert isinstance(await results_of(worker).import_results(exported.file, request, "tests"), Imported)


# --- Verify -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def filled(postgres: Databases, service: RunningService) -> AsyncIterator[FundWorker]:
    """Return a fund worker on a database with a row in each table, from which the guards against edits were removed."""
    dsn = await postgres.new_fund()
    async with FundWorker(dsn, service.base_url, service.fund_token) as worker:
        await fill(worker)
        await prove_fund(dsn, service.dsn, worker.salt)
        for schema in ("fund", "outbox"):
            await worker.pool.execute(unguarded(schema))
        numbered = [f"{table} ALTER seq" for table in ("merchants", "merchant_events", "orders", "payees")]
        for column in ("fee_rules ALTER version", *numbered):
            await worker.pool.execute(f"ALTER TABLE fund.{column} DROP IDENTITY")
        await worker.pool.execute("ALTER TABLE fund.payouts DROP CONSTRAINT payouts_of_file")
        yield worker
    await postgres.drop(dsn)


async def found(worker: FundWorker, account_dsn: str) -> set[tuple[str, str]]:
    """Return `(check, subject)` of each finding that a check of MACs reports."""
    async with snapshot(worker.dsn) as fund, snapshot(account_dsn) as account, connected(worker.dsn) as later:
        checks, _ = await check_fund(fund, later, account)
    named = {(check.name, finding.subject) for check in checks for finding in check.findings}
    return {(name, subject) for name, subject in named if name in (MACS, ROW_MACS, FINDINGS)}


def other_than(value: Any, type_: str) -> list[str]:
    """Return SQL expressions of values that differ from the value of a column."""
    if type_ in ("smallint", "integer", "bigint"):
        return ["7"] if value is None else [str(value + 1_000), "NULL"]
    if type_ == "boolean":
        return [str(not value)]
    if type_ == "bytea":
        return ["'\\x00'", "NULL"] if value != b"" else ["'\\x00'"]
    if type_ == "uuid":
        return ["gen_random_uuid()"]
    if type_.startswith("timestamp"):
        return ["now()"] if value is None else [f"'{value}'::timestamptz + interval '1 microsecond'", "'infinity'"]
    if type_ == "date":
        return ["'2026-01-01'"] if value is None else [f"'{value}'::date + 1"]
    if type_ == "ARRAY":
        return ["ARRAY['payment.refused']", "NULL"]
    if type_ in ("json", "jsonb"):
        return ["""'[{"from_amount": 5000, "basis_points": 50, "fixed": 3}]'""", "'[7]'"]
    return ["'other'"] if value is None else ["'other'", "NULL"]


@pytest.mark.parametrize("table", UNCOVERED)
async def test_verify_names_the_row_of_each_edited_column(
    filled: FundWorker, service: RunningService, table: str
) -> None:
    schema, _, name = table.partition(".")
    columns = await filled.pool.fetch(
        "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2",
        *(schema, name),
    )
    assert len(columns) > 3
    before = await filled.pool.fetchrow(f"SELECT t.*, t.ctid::text AS place FROM {table} t LIMIT 1")
    assert before is not None
    checked = 0
    for column, type_ in columns:
        for other in other_than(before[column], type_):
            await filled.pool.execute(f"CREATE TABLE public.kept AS SELECT * FROM {table}")
            edit = f"UPDATE {table} SET {column} = {other} WHERE ctid = $1::text::tid"
            try:
                await filled.pool.execute(edit, before["place"])
            except asyncpg.NotNullViolationError:
                await filled.pool.execute("DROP TABLE public.kept")
                continue
            after = (
                await filled.pool.fetchrow(f"SELECT * FROM {table} EXCEPT SELECT * FROM public.kept")
                if not (type_ in ("json", "jsonb") or table == "fund.orders")
                else True
            )
            assert after is not None, (column, other)
            names = await found(filled, service.dsn)
            if column in UNCOVERED[table]:
                assert names == set(), (column, other)
            else:
                assert len(names) == 1, (column, other, names)
                ((check, subject),) = names
                assert check == (MACS if table == "fund.orders" else ROW_MACS)
                assert subject.startswith("order " if table == "fund.orders" else f"{table} "), subject
            await filled.pool.execute(f"TRUNCATE {table}")
            await filled.pool.execute(f"INSERT INTO {table} SELECT * FROM public.kept; DROP TABLE public.kept")
            before = await filled.pool.fetchrow(
                f"SELECT t.*, t.ctid::text AS place FROM {table} t WHERE mac = $1", before["mac"]
            )
            assert before is not None
            checked += 1
    assert checked > 3
    assert await found(filled, service.dsn) == set()


async def test_an_edited_finding_is_found_by_its_chain(filled: FundWorker, service: RunningService) -> None:
    for number in range(3):
        filled.macs.report("payment", number, "a row", {})
        assert await filled.macs.write_found(filled.pool) == 1
    again = OrderMacs(KEYS)
    again.report("payment", 1, "a row", {})
    assert await again.write_found(filled.pool) == 0
    assert await found(filled, service.dsn) == set()
    for edit in (
        "UPDATE fund.integrity_findings SET key = '9' WHERE seq = 2",
        "DELETE FROM fund.integrity_findings WHERE seq = 3",
    ):
        await filled.pool.execute("CREATE TABLE public.kept AS SELECT * FROM fund.integrity_findings")
        await filled.pool.execute(edit)
        assert {name for name, _ in await found(filled, service.dsn)} == {FINDINGS}, edit
        await filled.pool.execute("TRUNCATE fund.integrity_findings")
        await filled.pool.execute(
            "INSERT INTO fund.integrity_findings SELECT * FROM public.kept; DROP TABLE public.kept"
        )


# --- Next use -----------------------------------------------------------------------------------------------------------


def refused(answer: object) -> None:
    assert isinstance(answer, OrderFault), answer
    assert answer.tampered


@pytest.mark.parametrize(
    "edit",
    [
        "refunded = 0, fee_returned = 0",
        "refunded = refunded - 1, charged_back = 1",
        "settled = settled - 1",
        "amount = amount + 5000, settled = settled + 5000",
        "fee_returned = 0",
        "merchant = 'other'",
        "seq = seq + 1",
        "mac_key = 0, mac = ''",
        "mac = 'x'",
    ],
)
async def test_nothing_comes_back_of_a_payment_whose_sums_were_edited(
    worker: FundWorker, service: RunningService, edit: str
) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=100))
    payment, _ = await worker.pay(merchant, "p", 100), await worker.pay(merchant, "q", 100)
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=100)
    before = await worker.pool.fetchrow("SELECT * FROM fund.payments WHERE order_id = $1", payment.id)
    assert before is not None
    has = await worker.of(merchant)
    await worker.value(f"UPDATE fund.payments SET {edit} WHERE order_id = $1", payment.id)
    asked = [
        ("refund", {"payment_order_no": "p", "amount": 50}),
        ("chargeback", {"payment_order_no": "p", "amount": 50}),
        ("reversal", {"of_kind": "payment", "of_order_no": "p", "reason": "r"}),
    ]
    for kind, members in asked:
        refused(await worker.ask(kind, merchant=merchant, order_no="again", **members))
    assert await worker.of(merchant) == has
    right = await worker.done("refund", merchant=merchant, order_no="q", payment_order_no="q", amount=50)
    assert right.state is State.POSTED
    assert await worker.macs.write_found(worker.pool) == 1
    assert await worker.value("SELECT array_agg(kind || ' ' || key) FROM fund.integrity_findings") == [
        f"payment {payment.id}"
    ]
    await worker.pool.execute(
        """UPDATE fund.payments SET (merchant, seq, amount, settled, refunded, fee_returned, charged_back, mac_key, mac)
           = ($2, $3, $4, $5, $6, $7, $8, $9, $10) WHERE order_id = $1""",
        payment.id,
        *(before[name] for name in ("merchant", "seq", "amount", "settled", "refunded", "fee_returned")),
        *(before[name] for name in ("charged_back", "mac_key", "mac")),
    )
    exceeds = await worker.ask("refund", merchant=merchant, order_no="again", payment_order_no="p", amount=1)
    assert isinstance(exceeds, Refusal)
    await prove_fund(worker.dsn, service.dsn, worker.salt)


async def test_sums_that_are_gone_do_not_begin_again(worker: FundWorker) -> None:
    merchant, channel = await worker.merchant(withdrawal_limit=100), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 100)
    await worker.pay(merchant, "q", 500)
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=100)
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=90, channel=channel)
    for table in ("payments", "withdrawal_days"):
        await worker.value(f"ALTER TABLE fund.{table} DISABLE TRIGGER ALL")
        await worker.value(f"DELETE FROM fund.{table}")
    refused(await worker.ask("refund", merchant=merchant, order_no="r2", payment_order_no="p", amount=100))
    refused(await worker.ask("withdrawal", merchant=merchant, order_no="w2", amount=90, channel=channel))
    assert await worker.of(merchant) == (410, 0, 0)


@pytest.mark.parametrize("edit", ["amount = 0", "mac = 'x'", "day = day - 1", "mac_key = 0, mac = ''"])
async def test_a_day_whose_sum_was_edited_takes_no_withdrawal(worker: FundWorker, edit: str) -> None:
    merchant, channel = await worker.merchant(withdrawal_limit=100), f"c-{worker.salt}"
    other = await worker.merchant("other", withdrawal_limit=100)
    for each in (merchant, other):
        await worker.pay(each, "p", 500)
        await worker.done("withdrawal", merchant=each, order_no="w", amount=90, channel=channel)
    await worker.value(f"UPDATE fund.withdrawal_days SET {edit} WHERE merchant = $1", merchant)
    refused(await worker.ask("withdrawal", merchant=merchant, order_no="w2", amount=90, channel=channel))
    right = await worker.done("withdrawal", merchant=other, order_no="w2", amount=10, channel=channel)
    assert right.state is State.POSTED
    assert await worker.of(merchant) == (410, 0, 0)


async def test_a_withdrawal_that_bounces_ends_though_its_day_was_edited(worker: FundWorker) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=90, channel=channel)
    await worker.value("UPDATE fund.withdrawal_days SET amount = 50")
    ended = await worker.batcher.end(order.id, "bounced", None, "closed", "m")
    assert isinstance(ended, Taken)
    assert ended.order.state is State.BOUNCED
    assert await worker.of(merchant) == (500, 0, 0)
    # The edited sum is kept and gets no new MAC.
    assert await worker.value("SELECT amount FROM fund.withdrawal_days") == 50


@pytest.mark.parametrize(
    "edit",
    [
        "withdrawal_limit = 100000",
        "withdrawal_limit = NULL",
        "settlement = 'daily'",
        "currency = 'USD'",
        "name = 'x'",
        "digest = ''",
        "created_at = created_at - interval '1 day'",
        "mac_key = 0, mac = ''",
        "settlement_days = 0",
        "settlement_region = 'X'",
        "settlement_cut = '23:59'",
        "state = 'suspended'",
        "version = version + 1",
    ],
)
async def test_a_merchant_that_was_edited_withdraws_and_settles_nothing(worker: FundWorker, edit: str) -> None:
    merchant, channel = await worker.merchant(withdrawal_limit=10), f"c-{worker.salt}"
    other = await worker.merchant("other")
    for each in (merchant, other):
        await worker.pay(each, "p", 500)
        await worker.pay(each, "later", 100, settle="later")
    await worker.value(f"UPDATE fund.merchants SET {edit} WHERE id = $1", merchant)
    for again in (False, True):
        if again:
            # A new worker does not have the merchant in its cache.
            await worker.start_worker()
            members = {"currency": "CNY", "channel": channel, "merchant": merchant, "amount": 5}
            refused(await worker.ask("payment", order_no="new", **members))
        refused(await worker.ask("withdrawal", merchant=merchant, order_no=f"w{again}", amount=20, channel=channel))
        refused(await worker.ask("settlement", merchant=merchant, order_no=f"s{again}"))
    assert await worker.of(merchant) == (500, 100, 0)
    right = await worker.done("withdrawal", merchant=other, order_no="w", amount=20, channel=channel)
    settled = await worker.done("settlement", merchant=other, order_no="s")
    assert (right.state, settled.amount) == (State.POSTED, 100)


@pytest.mark.parametrize(
    "edit",
    [
        "basis_points = 0",
        "effective_at = now()",
        "merchant = NULL",
        "tiers = '[]'",
        "maximum = 1, minimum = 0",
        "module = 'x'",
        "tax_basis_points = 600",
        "tax_mode = 'added'",
        "fee_return = 'none'",
        "currency = NULL",
    ],
)
async def test_a_fee_rule_that_was_edited_charges_nothing(worker: FundWorker, edit: str) -> None:
    fee = Fee(basis_points=100, minimum=1, maximum=900, tiers=[FeeTier(5_000, 50, 2)])
    merchant, other = await worker.merchant(fee=fee), await worker.merchant("other", fee=fee)
    await worker.value("ALTER TABLE fund.fee_rules DISABLE TRIGGER ALL")
    await worker.value(f"UPDATE fund.fee_rules SET {edit} WHERE merchant = $1", merchant)
    await worker.start_worker()
    members = {"currency": "CNY", "channel": f"c-{worker.salt}", "amount": 1_000, "order_no": "p"}
    if edit != "merchant = NULL":
        refused(await worker.ask("payment", merchant=merchant, **members))
        assert (await worker.done("payment", merchant=other, **members)).fee == 10
    else:
        # The rule applies to all merchants.
        refused(await worker.ask("payment", merchant=other, **members))


@pytest.mark.parametrize("edit", ["settled = 0, fee_settled = 0", "refunded_unsettled = 0", "mac = 'x'"])
async def test_a_settlement_leaves_out_a_payment_whose_sums_were_edited(
    worker: FundWorker, service: RunningService, edit: str
) -> None:
    merchant = await worker.merchant(fee=Fee(basis_points=100))
    first = await worker.pay(merchant, "p", 1_000, settle="later")
    for order_no in ("q", "r"):
        await worker.pay(merchant, order_no, 1_000, settle="later")
    await worker.done("settlement", merchant=merchant, order_no="s1", amount=400)
    await worker.done("refund", merchant=merchant, order_no="back", payment_order_no="p", amount=100)
    await worker.value(f"UPDATE fund.payments SET {edit} WHERE order_id = $1", first.id)
    settled = await worker.done("settlement", merchant=merchant, order_no="s2", amount=1_500)
    assert (settled.state, settled.amount, settled.fee) == (State.POSTED, 1_500, 15)
    assert await worker.value("SELECT count(*) FROM fund.settled_payments WHERE settlement = $1", settled.id) == 2
    refused(await worker.ask("settlement", merchant=merchant, order_no="s3", amount=600))
    rest = await worker.done("settlement", merchant=merchant, order_no="s4")
    assert rest.amount == 500
    refused(await worker.ask("settlement", merchant=merchant, order_no="s5"))
    assert await worker.macs.write_found(worker.pool) == 1


@pytest.mark.parametrize(
    "edit", ["amount = 1", "currency = 'USD'", "kind = 'refund'", "channel_ref = 'x'", "mac = 'x'"]
)
async def test_a_payout_that_was_edited_is_neither_polled_nor_sent(worker: FundWorker, edit: str) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    bank = Scripted(ChannelAway("cut"))
    paying = Payouts(worker.pool, worker.batcher, {channel: bank}, PACE)
    await paying.pay_out_some()
    right = await worker.done("withdrawal", merchant=merchant, order_no="right", amount=7, channel=channel)
    await worker.value(f"UPDATE fund.payouts SET {edit} WHERE order_id = $1", order.id)
    bank.said += [Standing.PAID]
    for _ in range(3):
        await paying.pay_out_some()
    assert bank.refs == [str(order.id), str(right.id)]
    assert await worker.value("SELECT state FROM fund.orders WHERE id = $1", order.id) == "stuck"


async def state_of(worker: FundWorker, order: Order) -> str:
    return str(await worker.value("SELECT state FROM fund.orders WHERE id = $1", order.id))


@pytest.mark.parametrize(
    "edit",
    [
        "state = 'posting', posted_at = NULL, due_at = created_at",
        "state = 'created', posted_at = NULL",
        "state = 'refused', problem = '{}', posted_at = NULL",
        "state = 'unknown', due_at = created_at",
        "state = 'stuck', stuck_from = 'posting', problem = '{}'",
        "posted_at = posted_at - interval '1 day'",
        "reversed_by = id",
    ],
)
async def test_what_became_of_an_order_cannot_be_edited(worker: FundWorker, service: RunningService, edit: str) -> None:
    merchant = await worker.merchant()
    payment, other = await worker.pay(merchant, "p", 100), await worker.pay(merchant, "q", 100)
    async with any_state(worker.pool) as fund:
        await fund.execute(f"UPDATE fund.orders SET {edit} WHERE id = $1", payment.id)
    await worker.recoverer.recover_some()
    for kind, members in (
        ("payment", {"order_no": "p", "amount": 100, "currency": "CNY", "channel": f"c-{worker.salt}"}),
        ("refund", {"order_no": "r", "payment_order_no": "p", "amount": 10}),
        ("reversal", {"order_no": "u", "of_kind": "payment", "of_order_no": "p", "reason": "r"}),
    ):
        refused(await worker.ask(kind, merchant=merchant, **members))
    there = await read_order(worker.pool, payment.id)
    assert there is not None
    assert not worker.macs.verifies(there)
    assert await worker.of(merchant) == (200, 0, 0)
    refund = await worker.done("refund", merchant=merchant, order_no="q", payment_order_no="q", amount=10)
    assert refund.state is State.POSTED
    assert (MACS, f"order {payment.id} (payment p of {merchant})") in await found(worker, service.dsn)
    assert await state_of(worker, other) == "posted"


@pytest.mark.parametrize(
    ("ending", "edit"),
    [
        ("paid", "state = 'sent', due_at = created_at"),
        ("paid", "state = 'posted', ending = NULL, end_voucher_id = NULL"),
        ("bounced", "state = 'posted', due_at = created_at"),
        ("bounced", "state = 'paid', ending = 'paid'"),
    ],
)
async def test_a_withdrawal_that_ended_does_not_end_again(worker: FundWorker, ending: Any, edit: str) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 500)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    await worker.batcher.end(order.id, ending, None, "r", "m")
    has = await worker.of(merchant)
    async with any_state(worker.pool) as fund:
        await fund.execute(f"UPDATE fund.orders SET {edit} WHERE id = $1", order.id)
    bank = Scripted(Standing.PAID)
    await Payouts(worker.pool, worker.batcher, {channel: bank}, PACE).pay_out_some()
    await worker.recoverer.recover_some()
    for other in ("paid", "bounced"):
        refused(await worker.batcher.end(order.id, other, None, "r", "m"))  # type: ignore[arg-type]
    assert bank.refs == []
    assert await worker.of(merchant) == has


async def test_a_refused_order_that_is_made_posting_again_is_not_posted(worker: FundWorker) -> None:
    merchant, channel = await worker.merchant(), f"c-{worker.salt}"
    await worker.pay(merchant, "p", 50)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=100, channel=channel)
    assert order.state is State.REFUSED
    await worker.pay(merchant, "q", 500)
    async with any_state(worker.pool) as fund:
        await fund.execute(
            "UPDATE fund.orders SET state = 'posting', problem = NULL, due_at = created_at WHERE id = $1", order.id
        )
    await worker.recoverer.recover_some()
    assert await state_of(worker, order) == "posting"
    assert await worker.of(merchant) == (550, 0, 0)


async def test_one_that_verifies_nothing_refunds_twice(worker: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin of the tests above: no row is verified."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    await worker.pay(merchant, "q", 100)
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=100)
    await worker.value("UPDATE fund.payments SET refunded = 0")
    monkeypatch.setattr(OrderMacs, "agrees", lambda *_: True)
    await worker.done("refund", merchant=merchant, order_no="r2", payment_order_no="p", amount=100)
    assert await worker.of(merchant) == (0, 0, 0)
