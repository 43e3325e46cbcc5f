"""Payout files: each withdrawal is in one file, whatever fails, and ends once, as the bank reports."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID, uuid4
from xml.etree import ElementTree as ET

import asyncpg
import pytest

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.channels.channel import Standing
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.jobs.payout_payees import PayoutPayees
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model import accounts
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.payout_file import Debtor, PayoutFile, PayoutFileRequest, PayoutResultsRequest
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.payout_files.csv_file import BadResults
from fundledger.fund.payout_files.export import Exported, PayoutFiles
from fundledger.fund.payout_files.results import Imported
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.queries import SQL
from tests.fund.bank import Scripted
from tests.fund.test_payout_formats import check_shape
from tests.support.fund_payees import FileChannels, a_payee, files_of, iban, payees_of, results_of
from tests.support.fund_worker import FundWorker
from tests.support.plans import plan_of, scanned
from tests.support.running import RunningService

CSV = PayoutFileRequest("CNY")
PACE = Pace(rate=10_000, again_s=0.0, again_max_s=0.0, doubt_s=0.0)


class Shop:
    """A merchant with a payee and withdrawals through the channel of its worker."""

    def __init__(self, worker: FundWorker, merchant: str, payee: UUID) -> None:
        self.worker = worker
        self.merchant = merchant
        self.payee = payee

    @property
    def channel(self) -> str:
        return f"c-{self.worker.salt}"

    async def withdraw(self, *amounts: int, payee: UUID | None = None, prefix: str = "w") -> list[Order]:
        orders = []
        for amount in amounts:
            members = {"merchant": self.merchant, "amount": amount, "channel": self.channel}
            no = f"{prefix}{uuid4().hex[:8]}"
            orders.append(await self.worker.done("withdrawal", order_no=no, payee=payee or self.payee, **members))
        return orders

    async def states(self, orders: Sequence[Order]) -> list[str]:
        rows = await self.worker.pool.fetch(
            "SELECT id, state FROM fund.orders WHERE id = ANY ($1)", [order.id for order in orders]
        )
        found = {row["id"]: row["state"] for row in rows}
        return [found[order.id] for order in orders]

    async def exported(self, request: PayoutFileRequest = CSV, files: PayoutFiles | None = None) -> PayoutFile:
        exported = await (files or files_of(self.worker)).export(self.channel, request, "ann")
        assert isinstance(exported, Exported), exported
        return exported.file

    async def refs(self, file: PayoutFile) -> list[str]:
        found = await files_of(self.worker).content(self.channel, file.file_no)
        assert found is not None
        return [row["ref"] for row in csv.DictReader(io.StringIO(found[1].decode(), newline=""))]

    async def imported(self, file: PayoutFile, *lines: str, by: str = "ann") -> Imported:
        request = PayoutResultsRequest(file.file_no, "csv", "\n".join(["ref,state,amount,channel_ref,reason", *lines]))
        found = await results_of(self.worker).import_results(file, request, by)
        assert isinstance(found, Imported), found
        return found

    async def findings(self) -> list[tuple[str, str]]:
        rows = await self.worker.pool.fetch("SELECT stands, says FROM fund.channel_findings ORDER BY says, stands")
        return [(row["stands"], row["says"]) for row in rows]


async def a_shop(worker: FundWorker, amount: int = 100_000) -> Shop:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", amount)
    return Shop(worker, merchant, await a_payee(worker, merchant))


@pytest.fixture
async def shop(worker: FundWorker) -> Shop:
    """Return a shop whose books are proved at the end of the test."""
    return await a_shop(worker)


@pytest.fixture
async def edited(fund_database: str, service: RunningService) -> AsyncIterator[Shop]:
    """Return a shop whose rows the test edits."""
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        yield await a_shop(worker)


def refused(answer: Any, code: Code) -> Refusal:
    assert isinstance(answer, Refusal), answer
    assert answer.code is code, answer
    return answer


# --- Export ---------------------------------------------------------------------------------------------------------


async def test_due_withdrawals_are_exported_and_sent(shop: Shop) -> None:
    orders = await shop.withdraw(100, 250)
    file = await shop.exported()
    assert (file.file_no, file.lines, file.total, file.created_by) == (1, 2, 350, "ann")
    assert await shop.states(orders) == ["sent", "sent"]
    assert await shop.refs(file) == [order.id.hex for order in orders]
    first, again = [await files_of(shop.worker).content(shop.channel, 1) for _ in range(2)]
    assert first == again
    found, bad, last = await files_of(shop.worker).page(shop.channel, 0, 10)
    assert (found, bad, last) == ([file], [], 1)
    sent = "SELECT detail::text FROM fund.events WHERE order_id = $1 AND state = 'sent'"
    assert json.loads(await shop.worker.value(sent, orders[0].id)) == {"channel": shop.channel, "file_no": 1}
    refused(await files_of(shop.worker).export(shop.channel, CSV, "ann"), Code.NOTHING_TO_EXPORT)


async def test_a_file_in_pain_001_has_the_payees_and_the_debtor(shop: Shop) -> None:
    orders = await shop.withdraw(12_345)
    request = PayoutFileRequest("CNY", "pain.001", debtor=Debtor("Platform", iban=iban(9)))
    file = await shop.exported(request)
    found = await files_of(shop.worker).content(shop.channel, file.file_no)
    assert found is not None
    root = ET.fromstring(found[1])
    check_shape(root)
    texts = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert {iban(), iban(9), "Holder 0", "Platform", orders[0].id.hex, "123.45", file.message_id} <= set(texts)
    assert (file.name, found[0]) == (f"{shop.channel}-1.xml", file)


async def test_a_limit_bounds_a_file_and_the_oldest_go_first(shop: Shop) -> None:
    orders = await shop.withdraw(1, 2, 3, 4, 5)
    files = [await shop.exported(PayoutFileRequest("CNY", limit=2)) for _ in range(3)]
    assert [file.file_no for file in files] == [1, 2, 3]
    refs = [ref for file in files for ref in await shop.refs(file)]
    assert refs == [order.id.hex for order in orders]


async def test_withdrawals_without_payee_and_of_other_channels_are_in_no_file(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    members = {"merchant": merchant, "amount": 5}
    unnamed = await worker.done("withdrawal", order_no="old", channel=f"c-{worker.salt}", **members)
    shop = Shop(worker, merchant, await a_payee(worker, merchant))
    other = await worker.done("withdrawal", order_no="other", channel=f"d-{worker.salt}", payee=shop.payee, **members)
    (order,) = await shop.withdraw(7)
    exported = await files_of(worker).export(shop.channel, CSV, "ann")
    assert isinstance(exported, Exported)
    assert (exported.file.lines, exported.unnamed) == (1, 1)
    assert await shop.states([unnamed, other, order]) == ["posted", "posted", "sent"]


async def test_a_channel_that_is_not_paid_by_files_exports_nothing(shop: Shop) -> None:
    await shop.withdraw(5)
    for payout in ("http", "manual"):
        files = files_of(shop.worker, FileChannels(payout=payout))
        refused(await files.export(shop.channel, CSV, "ann"), Code.CHANNEL_NOT_FILE)
    assert await shop.worker.value("SELECT count(*) FROM fund.payout_files") == 0


async def test_a_repeated_request_with_a_number_returns_the_file(shop: Shop) -> None:
    await shop.withdraw(5)
    files = files_of(shop.worker)
    first = PayoutFileRequest("CNY", file_no=1)
    refused(await files.export(shop.channel, PayoutFileRequest("CNY", file_no=2), "ann"), Code.PAYOUT_FILE_NO_WRONG)
    made = await shop.exported(first)
    await shop.withdraw(6)
    again = await files.export(shop.channel, first, "bob")
    assert isinstance(again, Exported)
    assert (again.replay, again.file) == (True, made)
    other = PayoutFileRequest("CNY", "pain.001", file_no=1, debtor=Debtor("P", iban=iban()))
    refused(await files.export(shop.channel, other, "ann"), Code.PAYOUT_FILE_NO_WRONG)
    assert (await shop.exported(PayoutFileRequest("CNY", file_no=2))).lines == 1


async def test_the_floor_of_the_bank_account_holds_over_files(shop: Shop) -> None:
    """The bank account holds 100,000, and the channel has no overdraft."""
    files = files_of(shop.worker, FileChannels(overdraft=0))
    await shop.worker.pay(shop.merchant, "other", 90_000, channel=f"d-{shop.worker.salt}")
    orders = await shop.withdraw(60_000, 50_000, 1)
    file = await shop.exported(files=files)
    assert (file.lines, await shop.states(orders)) == (1, ["sent", "posted", "posted"])
    refused(await files.export(shop.channel, CSV, "ann"), Code.CHANNEL_UNDERFUNDED)
    underway = await shop.worker.value(SQL["payouts_underway"], shop.channel, "CNY")
    assert underway == 60_000
    await shop.imported(file, f"{orders[0].id},bounced,600.00,,closed")
    assert await shop.worker.value(SQL["payouts_underway"], shop.channel, "CNY") == 0
    assert (await shop.exported(files=files)).lines == 2


async def test_a_file_is_not_made_while_the_account_service_does_not_answer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = await shop.withdraw(5, 6)

    async def away(*_: object) -> None:
        raise GatewayFault("cut")

    for name in ("contradiction", "balances"):
        with monkeypatch.context() as cut:
            cut.setattr(shop.worker.gateway, name, away)
            answer = await files_of(shop.worker, FileChannels(overdraft=0)).export(shop.channel, CSV, "ann")
            assert isinstance(answer, OrderFault)
            assert answer.undone
    assert await shop.states(orders) == ["posted", "posted"]
    assert (await shop.exported()).file_no == 1


async def test_a_withdrawal_to_a_disabled_payee_is_returned_instead_of_exported(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await a_payee(shop.worker, shop.merchant, 1)
    third = await a_payee(shop.worker, shop.merchant, 2)
    orders = [(await shop.withdraw(5, payee=payee))[0] for payee in (shop.payee, other, third)]
    await payees_of(shop.worker).disable(shop.merchant, other, "anyone", "fraud")
    left_of = PayoutFunds.left_of

    async def and_one_more(self: PayoutFunds, connection: Any, channel: Any) -> int | None:
        return await left_of(self, connection, channel)

    monkeypatch.setattr(PayoutFunds, "left_of", and_one_more)
    file = await shop.exported()
    assert (file.lines, await shop.states(orders)) == (2, ["sent", "bounced", "sent"])
    # A payee that is disabled after the export keeps the payouts of the file.
    await payees_of(shop.worker).disable(shop.merchant, third, "anyone", "late")
    assert len(await shop.refs(file)) == 2


async def test_a_payee_that_is_disabled_during_an_export_is_in_no_later_file(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await a_payee(shop.worker, shop.merchant, 1)
    orders = [(await shop.withdraw(5, payee=payee))[0] for payee in (shop.payee, other)]
    contradiction = shop.worker.batcher.contradiction

    async def disabled_meanwhile(order: Order) -> str | None:
        await payees_of(shop.worker).disable(shop.merchant, other, "anyone", "fraud")
        return await contradiction(order)

    monkeypatch.setattr(shop.worker.batcher, "contradiction", disabled_meanwhile)
    file = await shop.exported()
    assert (file.lines, await shop.states(orders)) == (1, ["sent", "posted"])
    refused(await files_of(shop.worker).export(shop.channel, CSV, "ann"), Code.NOTHING_TO_EXPORT)
    assert await shop.states(orders) == ["sent", "bounced"]


# --- Each in one file -----------------------------------------------------------------------------------------------


async def in_files(shop: Shop) -> list[str]:
    """Return the references in all files, in the order of the files."""
    found, _, _ = await files_of(shop.worker).page(shop.channel, 0, 1_000)
    assert [file.file_no for file in found] == list(range(1, len(found) + 1))
    return [ref for file in found for ref in await shop.refs(file)]


async def test_concurrent_exports_of_two_workers_put_each_withdrawal_into_one_file(shop: Shop) -> None:
    orders = await shop.withdraw(*range(1, 31))
    workers = files_of(shop.worker), files_of(shop.worker)
    request = PayoutFileRequest("CNY", limit=7)
    answers = await asyncio.gather(*(workers[n % 2].export(shop.channel, request, "ann") for n in range(8)))
    made = [answer for answer in answers if isinstance(answer, Exported)]
    assert len(made) < 8
    while not isinstance(await workers[0].export(shop.channel, request, "ann"), Refusal):
        pass
    assert sorted(await in_files(shop)) == sorted(order.id.hex for order in orders)


async def test_an_export_that_is_killed_at_any_moment_loses_and_repeats_nothing(shop: Shop) -> None:
    orders = await shop.withdraw(*range(1, 13))
    request = PayoutFileRequest("CNY", limit=3)
    for steps in range(0, 60, 3):
        task = asyncio.create_task(files_of(shop.worker).export(shop.channel, request, "ann"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    while not isinstance(await files_of(shop.worker).export(shop.channel, request, "ann"), Refusal):
        pass
    assert sorted(await in_files(shop)) == sorted(order.id.hex for order in orders)
    assert set(await shop.states(orders)) == {"sent"}


async def test_a_file_whose_answer_was_lost_can_be_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = await shop.withdraw(5, 6)

    async def killed(*_: object) -> int:
        raise ConnectionResetError("between the commit and the answer")

    files = files_of(shop.worker)
    with monkeypatch.context() as dies:
        dies.setattr(files, "_unnamed", killed)
        with pytest.raises(ConnectionResetError):
            await files.export(shop.channel, PayoutFileRequest("CNY", file_no=1), "ann")
    again = await files.export(shop.channel, PayoutFileRequest("CNY", file_no=1), "ann")
    assert isinstance(again, Exported)
    assert (again.replay, await in_files(shop)) == (True, [order.id.hex for order in orders])


async def test_an_order_that_is_being_ended_is_skipped_by_an_export(shop: Shop) -> None:
    held, free = await shop.withdraw(5, 6)
    async with shop.worker.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT FROM fund.orders WHERE id = $1 FOR UPDATE", held.id)
        file = await asyncio.wait_for(shop.exported(), 60)
    assert await shop.refs(file) == [free.id.hex]
    assert isinstance(await shop.worker.batcher.end(held.id, "bounced", None, "by hand", "front"), Taken)
    refused(await files_of(shop.worker).export(shop.channel, CSV, "ann"), Code.NOTHING_TO_EXPORT)


async def test_an_exported_payout_is_not_sent_by_a_call_although_its_channel_became_http(shop: Shop) -> None:
    (order,) = await shop.withdraw(5)
    await shop.exported()
    bank = Scripted(Standing.ABSENT)
    paying = Payouts(shop.worker.pool, shop.worker.batcher, {shop.channel: bank}, PACE)
    for _ in range(3):
        assert await paying.pay_out_some() == (0, 0.0)
    assert (bank.asked, paying.late, await shop.states([order])) == ([], 0, ["sent"])


async def test_no_statement_of_payout_files_reads_a_whole_table(fund_pool: asyncpg.Pool) -> None:
    async with fund_pool.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        for name in sorted(SQL):
            if name.startswith(("payout_files_", "payout_results_")) or "payee" in name:
                plan = await plan_of(connection, SQL[name], like_a_lane=False)
                assert scanned(plan) == [], name


# --- Results --------------------------------------------------------------------------------------------------------


async def test_each_withdrawal_ends_as_the_bank_reports(shop: Shop) -> None:
    paid, bounced, open_ = await shop.withdraw(100, 200, 300)
    before = await shop.worker.of(shop.merchant)
    file = await shop.exported()
    report = await shop.imported(file, f"{paid.id.hex},paid,1.00,B-1,", f"{bounced.id},bounced,2.00,,closed")
    assert [(one.outcome, one.order) for one in report.reports] == [("recorded", paid.id), ("recorded", bounced.id)]
    assert await shop.states([paid, bounced, open_]) == ["paid", "bounced", "sent"]
    rows = await shop.worker.pool.fetch(
        "SELECT channel_ref, reason FROM fund.orders WHERE id = ANY ($1) ORDER BY amount", [paid.id, bounced.id]
    )
    assert [tuple(row) for row in rows] == [("B-1", None), (None, "closed")]
    assert await shop.worker.of(shop.merchant) == (before[0] + 200, 0, 0)
    assert await shop.worker.balance(accounts.payout_transit(shop.channel, "CNY")) == 300
    assert await shop.worker.balance(accounts.bank(shop.channel, "CNY")) == 100_000 - 100
    assert await shop.findings() == []
    assert await shop.worker.value("SELECT array_agg(outcome ORDER BY amount) FROM fund.payouts") == [
        "paid",
        "bounced",
        None,
    ]


async def test_results_that_are_imported_twice_end_nothing_twice(shop: Shop) -> None:
    (order,) = await shop.withdraw(100)
    file = await shop.exported()
    line = f"{order.id},paid,1.00,B-1,"
    answers = await asyncio.gather(*(shop.imported(file, line) for _ in range(4)))
    assert sorted(answer.replay for answer in answers) == [False, True, True, True]
    assert {answer.reports[0].outcome for answer in answers} == {"recorded"}
    assert await shop.findings() == []
    other = await shop.imported(file, line, "")
    assert (other.replay, other.reports[0].outcome) == (False, "repeated")
    assert await shop.findings() == [("paid", "repeated")]
    assert await shop.worker.balance(accounts.bank(shop.channel, "CNY")) == 100_000 - 100


async def test_wrong_amounts_and_unknown_and_contradictory_lines_are_findings_and_change_nothing(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    orders = await shop.withdraw(100, 200, 300)
    file = await shop.exported(PayoutFileRequest("CNY", limit=2))
    later = await shop.exported()
    report = await shop.imported(
        *(file, f"{orders[0].id},paid,1.01,,", f"{orders[1].id},paid,2.00,,", f"{orders[1].id},bounced,2.00,,"),
        *(f"{orders[2].id},paid,3.00,,", "nothing,paid,1.00,,"),
    )
    outcomes = [one.outcome for one in report.reports]
    assert outcomes == ["amount", "contradictory", "contradictory", "unknown", "unknown"]
    assert await shop.states(orders) == ["sent"] * 3
    found = [("sent", "amount"), ("sent", "bounced"), ("sent", "paid"), ("none", "unknown"), ("none", "unknown")]
    assert await shop.findings() == found
    (line,) = [record for record in caplog.records if getattr(record, "event", "") == "payout_results_imported"]
    assert line.levelname == "CRITICAL"
    right = await shop.imported(file, f"{orders[0].id},paid,1.00,,")
    assert right.reports[0].outcome == "recorded"
    assert (await shop.imported(later, f"{orders[2].id},paid,3.00,,")).reports[0].outcome == "recorded"
    assert await shop.states(orders) == ["paid", "sent", "paid"]


async def test_a_later_contradiction_is_a_finding(shop: Shop) -> None:
    (order,) = await shop.withdraw(100)
    file = await shop.exported()
    await shop.imported(file, f"{order.id},paid,1.00,,")
    report = await shop.imported(file, f"{order.id},bounced,1.00,,returned")
    assert report.reports[0].outcome == "contradictory"
    assert (await shop.findings(), await shop.states([order])) == ([("paid", "bounced")], ["paid"])


async def test_an_end_by_a_front_end_stays_and_a_result_that_differs_is_a_finding(shop: Shop) -> None:
    same, other = await shop.withdraw(100, 200)
    file = await shop.exported()
    for order in (same, other):
        assert isinstance(await shop.worker.batcher.end(order.id, "bounced", None, "by hand", "front"), Taken)
    await shop.imported(file, f"{same.id},bounced,1.00,,", f"{other.id},paid,2.00,,")
    assert await shop.states([same, other]) == ["bounced", "bounced"]
    assert await shop.findings() == [("bounced", "paid")]
    outcomes = await shop.worker.value("SELECT array_agg(outcome ORDER BY amount) FROM fund.payouts")
    assert outcomes == ["bounced", "paid"]


async def test_a_reference_that_another_order_has_does_not_prevent_the_end(shop: Shop) -> None:
    first, second = await shop.withdraw(100, 200)
    file = await shop.exported()
    await shop.imported(file, f"{first.id},paid,1.00,SAME,", f"{second.id},paid,2.00,SAME,")
    assert await shop.states([first, second]) == ["paid", "paid"]
    assert await shop.findings() == [("sent", "paid")]


async def test_results_in_pain_002_end_withdrawals_and_belong_to_one_file(shop: Shop) -> None:
    orders = await shop.withdraw(100, 200)
    first, second = [await shop.exported(PayoutFileRequest("CNY", limit=1)) for _ in range(2)]
    rejected = (
        "<Document><CstmrPmtStsRpt><OrgnlGrpInfAndSts><OrgnlMsgId>{}</OrgnlMsgId><GrpSts>RJCT</GrpSts>"
        "</OrgnlGrpInfAndSts></CstmrPmtStsRpt></Document>"
    )
    results = results_of(shop.worker)
    wrong = PayoutResultsRequest(second.file_no, "pain.002", rejected.format(first.message_id))
    refused(await results.import_results(second, wrong, "ann"), Code.PAYOUT_RESULTS_OTHER)
    right = PayoutResultsRequest(first.file_no, "pain.002", rejected.format(first.message_id))
    found = await results.import_results(first, right, "ann")
    assert isinstance(found, Imported)
    assert [one.outcome for one in found.reports] == ["recorded"]
    assert await shop.states(orders) == ["bounced", "sent"]


async def test_results_that_cannot_be_read_record_nothing(shop: Shop) -> None:
    (order,) = await shop.withdraw(100)
    file = await shop.exported()
    with pytest.raises(BadResults):
        await shop.imported(file, f"{order.id},paid,1.00,,", f"{order.id},lost,1.00,,")
    assert await shop.worker.value("SELECT count(*) FROM fund.payout_results") == 0
    assert await shop.states([order]) == ["sent"]


async def test_an_import_that_is_killed_before_the_ends_is_completed_by_the_job(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = await shop.withdraw(*range(100, 130))
    file = await shop.exported()
    results = results_of(shop.worker)
    content = "\n".join(["ref,state,amount", *(f"{order.id},paid,{order.amount / 100:.2f}" for order in orders)])

    async def killed(*_: object, **__: object) -> tuple[int, int]:
        raise ConnectionResetError("after the commit")

    with monkeypatch.context() as dies:
        dies.setattr(results, "end_some", killed)
        with pytest.raises(ConnectionResetError):
            await results.import_results(file, PayoutResultsRequest(1, "csv", content), "ann")
    assert set(await shop.states(orders)) == {"sent"}
    job, other = results_of(shop.worker), results_of(shop.worker)
    await asyncio.gather(job.end_some(), other.end_some())
    assert set(await shop.states(orders)) == {"paid"}
    assert await job.end_some() == (0, 0)
    again = await results.import_results(file, PayoutResultsRequest(1, "csv", content), "ann")
    assert isinstance(again, Imported)
    assert again.replay
    assert await shop.worker.balance(accounts.payout_transit(shop.channel, "CNY")) == 0


async def test_an_end_that_cannot_be_recorded_now_is_tried_again_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (order,) = await shop.withdraw(100)
    file = await shop.exported()
    results, end = results_of(shop.worker), shop.worker.batcher.end

    async def away(*_: object, **__: object) -> OrderFault:
        return OrderFault("the fund database does not answer")

    with monkeypatch.context() as cut:
        cut.setattr(shop.worker.batcher, "end", away)
        content = f"ref,state,amount\n{order.id},paid,1.00\n"
        await results.import_results(file, PayoutResultsRequest(1, "csv", content), "ann")
        assert await results.end_some() == (0, 1)
    assert shop.worker.batcher.end == end
    assert await results.end_some() == (0, 1), "it was tried just now"
    monkeypatch.setattr("fundledger.fund.payout_files.results.AGAIN_S", 0.0)
    assert await results.end_some() == (1, 0)
    assert await shop.states([order]) == ["paid"]


# --- Attackers ------------------------------------------------------------------------------------------------------


async def unguarded(shop: Shop, statement: str) -> None:
    async with shop.worker.pool.acquire() as connection, connection.transaction():
        for table in ("payout_files", "payout_results", "payouts"):
            await connection.execute(f"ALTER TABLE fund.{table} DISABLE TRIGGER USER")
        await connection.execute("ALTER TABLE fund.payout_files DROP CONSTRAINT IF EXISTS payout_files_digest")
        assert await connection.execute(statement) != "UPDATE 0"


@pytest.mark.parametrize(
    "edit",
    [
        "content = replace(encode(content, 'escape'), 'DE', 'FR')::bytea",
        "content = replace(encode(content, 'escape'), 'DE', 'FR')::bytea, digest = sha256(replace(encode(content, 'escape'), 'DE', 'FR')::bytea)",
        "total = total + 1",
        "lines = 2",
        "currency = 'USD'",
        "created_by = 'eve'",
        "mac = 'x'",
    ],
)
async def test_a_file_that_was_edited_is_not_shown(edited: Shop, edit: str) -> None:
    await edited.withdraw(100)
    file = await edited.exported()
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await edited.worker.pool.execute(f"UPDATE fund.payout_files SET {edit}")
    await unguarded(edited, f"UPDATE fund.payout_files SET {edit}")
    with pytest.raises(Tampered):
        await files_of(edited.worker).content(edited.channel, file.file_no)


@pytest.mark.parametrize(
    "edit",
    ["reported = 'paid'", "amount = 1", "file_no = NULL, line_no = NULL, due_at = now()", "line_no = 7", "mac = 'x'"],
)
async def test_a_payout_that_was_edited_ends_nothing(edited: Shop, edit: str) -> None:
    (order,) = await edited.withdraw(100)
    file = await edited.exported()
    await unguarded(edited, f"UPDATE fund.payouts SET {edit}")
    assert (await results_of(edited.worker).end_some())[0] == 0
    if "file_no" not in edit:
        with pytest.raises(Tampered):
            await edited.imported(file, f"{order.id},paid,1.00,,")
    bank = Scripted()
    await Payouts(edited.worker.pool, edited.worker.batcher, {edited.channel: bank}, PACE).pay_out_some()
    assert bank.refs == []
    assert await edited.states([order]) in (["sent"], ["stuck"])


async def test_an_order_that_was_edited_is_not_exported(edited: Shop) -> None:
    orders = await edited.withdraw(100, 200)
    await edited.worker.value("UPDATE fund.orders SET amount = 100000 WHERE id = $1", orders[0].id)
    file = await edited.exported()
    assert await edited.refs(file) == [orders[1].id.hex]
    assert await edited.states(orders) == ["stuck", "sent"]


async def test_a_report_that_was_edited_is_not_shown(edited: Shop) -> None:
    (order,) = await edited.withdraw(100)
    file = await edited.exported()
    await edited.imported(file, f"{order.id},paid,9.00,,")
    await unguarded(edited, "UPDATE fund.payout_results SET report = replace(report, 'amount', 'recorded')")
    with pytest.raises(Tampered):
        await edited.imported(file, f"{order.id},paid,9.00,,")


async def test_one_that_reads_no_payee_again_exports_for_a_disabled_payee(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken twin of the tests of disabled payees."""
    (order,) = await shop.withdraw(5)
    await payees_of(shop.worker).disable(shop.merchant, shop.payee, "anyone", "fraud")
    monkeypatch.setattr("fundledger.fund.payout_files.export.why_not", lambda *_, **__: None)
    monkeypatch.setitem(SQL, "share_payees", SQL["share_payees"].replace("p.state", "'active' AS state"))
    monkeypatch.setattr("fundledger.fund.store.macs.OrderMacs.agrees", lambda *_: True)
    await shop.exported()
    assert await shop.states([order]) == [State.SENT]
    assert PayoutPayees is not None
