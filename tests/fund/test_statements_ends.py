"""Bank statements with returned payouts and refunds: each line is explained by its order, under each of its references."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import msgspec
import pytest

from fundledger.fund.channels.http import HttpChannel
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model import accounts
from fundledger.fund.model.order import State
from fundledger.fund.statements.imports import Imported, StatementRequest, contradictions, import_statement
from fundledger.fund.statements.matching import Outcome
from fundledger.fund.store.orders import read_order
from tests.fund.bank import Pool, RunningBank, a_refund, a_withdrawal, an_order, here
from tests.fund.test_statements import booked, imported
from tests.support.fund_worker import FundWorker
from tests.support.tampering import any_state

MATCHED, AWAITED, DIFFERENT = Outcome.MATCHED, Outcome.AWAITED, Outcome.DIFFERENT
DUPLICATE, UNKNOWN = Outcome.DUPLICATE, Outcome.UNKNOWN


async def a_return(pool: Pool, of: UUID, amount: int, state: str = "posted", **columns: object) -> UUID:
    return await an_order(pool, "payout_return", amount, state, of_order=of, **columns)


async def outcomes(pool: Pool, *lines: tuple[str, int], number: str = "1") -> list[tuple[Outcome, UUID | None]]:
    report = (await imported(pool, *lines, number=number)).report
    return [(line.outcome, line.order) for line in report.lines]


@pytest.mark.parametrize("named", ["its reference", "its id", "the reference of the payout", "the id of the payout"])
async def test_a_line_of_a_returned_payout_is_matched_by_each_of_its_references(fund_pool: Pool, named: str) -> None:
    out, back = f"OUT-{here.channel}", f"BACK-{here.channel}"
    payout = await a_withdrawal(fund_pool, 30, "paid", ending="paid", channel_ref=out, returned=30)
    order = await a_return(fund_pool, payout, 30, channel_ref=back)
    ref = {
        "its reference": back,
        "its id": str(order),
        "the reference of the payout": out,
        "the id of the payout": str(payout).upper(),
    }[named]
    assert await outcomes(fund_pool, (ref, 30), (out, -30)) == [(MATCHED, order), (MATCHED, payout)]
    assert await booked(fund_pool) == 0


async def test_parts_of_a_payout_that_returned_explain_a_line_each(fund_pool: Pool) -> None:
    payout = await a_withdrawal(fund_pool, 30, "paid", ending="paid", returned=30)
    parts = [await a_return(fund_pool, payout, n, channel_ref=f"B{n}-{here.channel}") for n in (10, 20)]
    ref = str(payout)
    found = await outcomes(fund_pool, (ref, 20), (ref, -30), (ref, 10), (ref, 10))
    assert found == [(MATCHED, parts[1]), (MATCHED, payout), (MATCHED, parts[0]), (DUPLICATE, parts[0])]
    assert await booked(fund_pool) == 10


async def test_a_return_that_is_not_booked_or_was_reversed_explains_nothing(fund_pool: Pool) -> None:
    payout = await a_withdrawal(fund_pool, 30, "paid", ending="paid")
    await a_return(fund_pool, payout, 30, reversed_by=uuid4(), channel_ref=f"B-{here.channel}")
    assert [outcome for outcome, _ in await outcomes(fund_pool, (str(payout), 30))] == [UNKNOWN]
    assert await booked(fund_pool) == 30


async def test_a_parked_return_and_a_refund_under_way_are_awaited(fund_pool: Pool) -> None:
    payout = await a_withdrawal(fund_pool, 30, "paid", ending="paid", returned=30)
    parking = {"parking": "park", "parked_voucher_id": uuid4()}
    parked = await a_return(fund_pool, payout, 30, "parked", channel_ref=f"B-{here.channel}", **parking)
    refunds = {state: await a_refund(fund_pool, 40, state) for state in ("posted", "sent", "unknown")}
    paid = await a_refund(fund_pool, 41, "paid", ending="paid", channel_ref=f"R-{here.channel}")
    bounced = await a_refund(fund_pool, 42, "bounced", ending="bounced")
    early = await a_refund(fund_pool, 43, voucher_format=2)
    lines = [(str(payout), 30), *((str(id_), -40) for id_ in refunds.values())]
    lines += [(f"R-{here.channel}", -41), (str(bounced), -42), (str(early), -43)]
    assert await outcomes(fund_pool, *lines) == [
        (AWAITED, parked),
        *((AWAITED, id_) for id_ in refunds.values()),
        (MATCHED, paid),
        (UNKNOWN, None),
        (MATCHED, early),
    ]
    assert await booked(fund_pool) == -42


async def test_a_refund_that_bounced_after_its_line_is_a_contradiction(fund_pool: Pool) -> None:
    order = await a_refund(fund_pool, 40, "unknown")
    await imported(fund_pool, (str(order), -40))
    assert order not in [found.order for found in await contradictions(fund_pool)]
    async with any_state(fund_pool) as connection:
        await connection.execute("UPDATE fund.orders SET state = 'bounced', ending = 'bounced' WHERE id = $1", order)
    assert order in [found.order for found in await contradictions(fund_pool)]


async def test_the_bank_of_the_books_is_the_bank_after_refunds_and_returns(
    worker: FundWorker, bank: RunningBank
) -> None:
    """The simulator pays out, refunds and returns. Each line of its statement is explained."""
    merchant, name = await worker.merchant(), f"c-{worker.salt}"
    for number in range(4):
        await worker.pay(merchant, f"p{number}", 1_000, channel_ref=f"IN-{number}-{worker.salt}")
        await bank.post("/receipts", {"channel_ref": f"IN-{number}-{worker.salt}", "amount": 1_000})
        of = {"merchant": merchant, "order_no": f"r{number}", "payment_order_no": f"p{number}"}
        await worker.done("refund", amount=100 + number, **of)
    drawn = {"merchant": merchant, "order_no": "w", "amount": 500, "channel": name}
    withdrawal = await worker.done("withdrawal", **drawn)
    async with HttpChannel(bank.url, token=bank.token) as channel:
        paying = Payouts(worker.pool, worker.batcher, {name: channel}, Pace(rate=10_000))
        assert await paying.pay_out_some() == (5, 0.0)
        assert paying.ended == 5
        totals = bank.totals
        assert (totals["refunded_amount"], totals["paid_amount"]) == (406, 500)
        for amount in (200, 300):
            body = {"amount": amount, "channel_ref": f"RET-{amount}-{worker.salt}"}
            assert (await bank.post(f"/payouts/{withdrawal.id}/return", body))[0] == 200
            of = {"merchant": merchant, "order_no": f"b{amount}", "withdrawal_order_no": "w", "amount": amount}
            await worker.done("payout_return", channel_ref=body["channel_ref"], **of)
        lines = await channel.statement(datetime.now(UTC).date())
    assert await worker.balance(accounts.bank(name, "CNY")) == 4_000 - 406 - 500 + 500
    assert await worker.balance(accounts.refund_transit(name, "CNY")) == 0
    body = [{"ref": line.ref, "amount": line.amount} for line in lines]
    request = {"channel": name, "statement_no": "1", "currency": "CNY", "lines": body}
    done = await import_statement(worker.batcher, worker.pool, msgspec.convert(request, StatementRequest), "tester")
    assert isinstance(done, Imported), done
    assert [line.outcome for line in done.report.lines] == [MATCHED] * (4 + 4 + 1 + 2)
    assert done.report.difference == 0
    found = await read_order(worker.pool, withdrawal.id)
    assert found is not None
    assert (found.state, found.returned) == (State.PAID, 500)
