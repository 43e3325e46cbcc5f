"""The checks of split orders, taxes and invoices of channels: each finds one fault in books that verify otherwise."""

import re
import sys
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest

from fundledger.fund.model.answer import Taken
from fundledger.fund.model.requests import Fee
from fundledger.fund.model.split_requests import SplitPaymentPart
from fundledger.reconciliation import report
from fundledger.reconciliation.fund.checks import MACS, ROW_MACS
from fundledger.reconciliation.reading import snapshot
from tests.support.database import Databases
from tests.support.fund_books import FOREIGN, check_fund, prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService
from tests.support.tampering import unguarded


@pytest.fixture(scope="module")
async def books(postgres: Databases, service: RunningService) -> AsyncIterator[FundWorker]:
    """Return a worker whose database has split orders, a payment with tax, and a partly paid invoice."""
    dsn = await postgres.new_fund()
    async with FundWorker(dsn, service.base_url, service.fund_token) as worker:
        rule = Fee(basis_points=1_000, tax_basis_points=1_000, tax_mode="added")
        one, two = await worker.merchant("one", fee=rule), await worker.merchant("two")
        channel = {"channel": f"c-{worker.salt}", "currency": "CNY"}
        parts = [SplitPaymentPart(one, 300), SplitPaymentPart(two, 200)]
        await worker.done("split_payment", order_no="sp", amount=500, parts=parts, **channel)
        await worker.done("split_refund", order_no="sr", of_order_no="sp", amount=50)
        bounced = await worker.done("split_refund", order_no="sr2", of_order_no="sp", amount=10)
        assert isinstance(await worker.batcher.end(bounced.id, "bounced", None, "returned", "bank"), Taken)
        await worker.debit(two, "gone", 180)
        owed = await worker.done("split_chargeback", order_no="sc", of_order_no="sp", amount=100)
        assert owed.to_receivable == 40
        undone = await worker.done("split_payment", order_no="un", amount=500, parts=parts, **channel)
        assert undone.set_off == 40
        await worker.done("reversal", of_kind="split_payment", of_order_no="un", order_no="v", reason="r")
        await worker.pay(one, "now", 1_000)
        await worker.pay(one, "later", 1_000, settle="later")
        await worker.done("settlement", merchant=one, order_no="s", amount=500)
        await worker.done("refund", merchant=one, order_no="r", payment_order_no="now", amount=100)
        await worker.done("channel_invoice", order_no="i", amount=900, invoice_no="I", period="2026-02", **channel)
        answer = await worker.ask("payable_payment", order_no="ip", invoice_order_no="i", amount=600, **channel)
        assert isinstance(answer, Taken)
        await prove_fund(dsn, service.dsn, worker.salt)
        await worker.pool.execute(unguarded("fund"))
        yield worker
    await postgres.drop(dsn)


def of(kind: str, number: str) -> str:
    return f"(SELECT id FROM fund.orders WHERE kind = '{kind}' AND order_no = '{number}')"


SP, SR = of("split_payment", "sp"), of("split_refund", "sr")
CONSISTENT, EQUALS = "fund_orders_consistent", "fund_equals_account"
ROW = "UPDATE fund.split_parts SET {} WHERE order_id = " + SP + " AND merchant LIKE 'one-%'"
FAULTS: dict[str, tuple[str, list[str]]] = {
    "the voucher of the end of a split refund is missing": (
        f"UPDATE fund.orders SET end_voucher_id = gen_random_uuid() WHERE id = {of('split_refund', 'sr2')}",
        [f"{EQUALS}: ", f"{EQUALS}: "],
    ),
    **{
        f"{column} of a part": (
            ROW.format(f"{column} = {column} + 1"),
            [rf"{CONSISTENT}: part of one-\w+ in .*: {column}: expected {found}, found {found + 1}"],
        )
        for column, found in {
            "amount": 300,
            "fee": 33,
            "tax": 3,
            "refunded": 30,
            "fee_returned": 3,
            "tax_returned": 0,
            "charged_back": 60,
        }.items()
    },
    "a part is said to be reversed": (
        ROW.format("reversed = true"),
        [rf"{CONSISTENT}: part of one-\w+ in .*: reversed: expected false, found true"],
    ),
    "a part that is reversed is not said to be": (
        f"UPDATE fund.split_parts SET reversed = false WHERE order_id = {of('split_payment', 'un')}",
        [rf"{CONSISTENT}: part of {name}-\w+ in .*: reversed: expected true, found false" for name in ("one", "two")],
    ),
    "the kind and the place of a part": (
        ROW.format("kind = 'payment', seq = 0"),
        [rf"{CONSISTENT}: part of one-\w+ in .*: {name}: " for name in ("kind", "seq")],
    ),
    "the debt that a part made": (
        f"UPDATE fund.split_parts SET to_receivable = 0 WHERE order_id = {of('split_chargeback', 'sc')} AND merchant LIKE 'two-%'",
        [
            rf"{CONSISTENT}: part of two-\w+ in .*: to_receivable: expected 40, found 0",
            rf"{CONSISTENT}: debt of two-\w+: expected 0, found 40",
        ],
    ),
    "the set-off of a part": (
        f"UPDATE fund.split_parts SET set_off = 0 WHERE order_id = {of('split_payment', 'un')} AND merchant LIKE 'two-%'",
        [
            rf"{CONSISTENT}: part of two-\w+ in .*: set_off: expected 40, found 0",
            rf"{CONSISTENT}: debt of two-\w+: expected 80, found 40",
        ],
    ),
    "parts in the terms of an order": (
        f"UPDATE fund.orders SET parts = replace(parts::text, '\"amount\":30,', '\"amount\":29,')::json WHERE id = {SR}",
        [
            rf"{CONSISTENT}: part of one-\w+ in .*: amount: expected 29, found 30",
            rf"{CONSISTENT}: part of one-\w+ in .*: refunded: expected 29, found 30",
            f"{EQUALS}: ",
        ],
    ),
    "terms that are no parts": (
        f"UPDATE fund.orders SET parts = '{{}}' WHERE id = {of('split_chargeback', 'sc')}",
        [rf"{CONSISTENT}: part of \w+-\w+ in .*: "] * 18,
    ),
    "a refund of a payment instead of a split payment": (
        f"UPDATE fund.orders SET of_order = {of('payment', 'now')} WHERE id = {SR}",
        [
            f"{CONSISTENT}: split_refund .*: expected .*, found payment",
            *[rf"{CONSISTENT}: part of {name}-\w+ in .*: " for name in ("one", "one", "two")],
        ],
    ),
    "the tax of a payment": (
        f"UPDATE fund.orders SET tax = 0 WHERE id = {of('payment', 'now')}",
        [f"{CONSISTENT}: payment .*: tax: ", f"{CONSISTENT}: payment .*: tax_settled: ", f"{EQUALS}: "],
    ),
    "the tax of a settlement": (
        f"UPDATE fund.orders SET tax = tax + 1 WHERE id = {of('settlement', 's')}",
        [f"{CONSISTENT}: settlement .*: expected its parts: .* tax 5, found .* tax 6", f"{EQUALS}: "],
    ),
    "the tax of a settled part": (
        "UPDATE fund.settled_payments SET tax = tax - 1",
        [
            f"{CONSISTENT}: settlement .*: expected its parts",
            f"{CONSISTENT}: payment .*: tax_settled: expected 4, found 5",
        ],
    ),
    "the tax of a refund": (
        f"UPDATE fund.orders SET tax = 0 WHERE id = {of('refund', 'r')}",
        [f"{CONSISTENT}: payment .*: tax_returned: expected 0, found 1", f"{EQUALS}: "],
    ),
    "an invoice that is less than its payments": (
        f"UPDATE fund.orders SET amount = 599 WHERE id = {of('channel_invoice', 'i')}",
        [f"{CONSISTENT}: invoice .*: expected at most 599 paid, found 600", f"{EQUALS}: "],
    ),
    "a payment of another order than an invoice": (
        f"UPDATE fund.orders SET of_order = {of('payment', 'now')} WHERE id = {of('payable_payment', 'ip')}",
        [f"{CONSISTENT}: payable_payment .*: expected .*, found payment"],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
async def test_each_fault_is_reported(books: FundWorker, service: RunningService, case: str) -> None:
    statement, expected = FAULTS[case]
    found, macs = await check_with(books, service, statement)
    # The parts of a settlement have no MAC: they have to sum to the settlement and to the payment.
    assert macs or "settled_payments" in statement, "the MAC of the row also has to change"
    left = list(expected)
    for line in found:
        match = next((pattern for pattern in left if re.match(pattern, line)), None)
        if match is not None:
            left.remove(match)
    assert left == [], found
    assert len(found) <= len(expected) + 2, found


async def test_books_that_are_right_are_found_right(books: FundWorker, service: RunningService) -> None:
    assert await check_with(books, service, "SELECT 1") == ([], [])


async def check_with(books: FundWorker, service: RunningService, statement: str) -> tuple[list[str], list[Any]]:
    """Execute a statement that makes a fault, and roll it back. Return `(findings, findings of MACs)`."""
    fund = await asyncpg.connect(books.dsn)
    transaction = fund.transaction()
    await transaction.start()
    try:
        done = await fund.execute(statement)
        assert done.split()[0] == "SELECT" or done.rpartition(" ")[2] != "0", "the tampering missed"
        async with snapshot(service.dsn) as account:
            with patch.object(report, "FINDINGS_MAX", sys.maxsize):
                checks, _ = await check_fund(fund, fund, account)
    finally:
        await transaction.rollback()
        await fund.close()
    all_ = [(check.name, finding) for check in checks for finding in check.findings]
    own = [(name, finding) for name, finding in all_ if name in (MACS, ROW_MACS)]
    # The database has no guards any more, and the ledger has vouchers of other tests.
    others = [
        f"{name}: {finding.subject}: expected {finding.expected}, found {finding.actual}"
        for name, finding in all_
        if name in (CONSISTENT, EQUALS) and (finding.expected != FOREIGN or books.salt in finding.actual)
    ]
    assert [check.error for check in checks if check.error] == []
    return others, own
