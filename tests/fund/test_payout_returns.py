"""Payout returns: the payee's bank returns a paid payout, in whole or in parts. The parts never exceed the withdrawal."""

import asyncio
from typing import Any

import pytest

from fundledger.fund.model import accounts
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AMOUNT_MAX, Fee
from fundledger.fund.store.orders import read_order
from tests.fund.test_parking import freeze, release, thaw
from tests.support.fund_books import check_shared
from tests.support.fund_worker import CHECKER, FundWorker
from tests.support.length import unless_long
from tests.support.running import RunningService
from tests.support.tampering import any_state

FEE = Fee(basis_points=100)


async def paid_out(worker: FundWorker, amount: int = 1_000, number: str = "w", name: str = "m", **terms: Any) -> Order:
    """Return a withdrawal that is paid. Its merchant has nothing left."""
    merchant = await worker.merchant(name, **terms)
    asked = {"merchant": merchant, "order_no": number, "amount": amount, "channel": f"c-{worker.salt}"}
    fee = 0 if "withdrawal_fee" not in terms else amount // 100
    await worker.pay(merchant, f"for-{number}", amount + fee)
    order = await worker.done("withdrawal", **asked)
    assert (order.state, order.fee) == (State.POSTED, fee)
    ended = await worker.batcher.end(order.id, "paid", f"out-{number}-{merchant}", None, "tests")
    assert isinstance(ended, Taken)
    assert ended.order.state is State.PAID
    return ended.order


def members(order: Order, number: str, amount: int, **more: Any) -> dict[str, Any]:
    of = {"merchant": order.merchant, "withdrawal_order_no": order.order_no, "order_no": number, "amount": amount}
    return {**of, "channel_ref": f"back-{order.order_no}-{number}-{order.merchant}", **more}


async def ask(worker: FundWorker, order: Order, number: str, amount: int, **more: Any) -> Answer:
    return await worker.ask("payout_return", **members(order, number, amount, **more))


async def returned(worker: FundWorker, order: Order, number: str, amount: int, **more: Any) -> Order:
    answer = await ask(worker, order, number, amount, **more)
    assert isinstance(answer, Taken), answer
    return answer.order


async def stored(worker: FundWorker, order: Order) -> Order:
    found = await read_order(worker.pool, order.id)
    assert found is not None
    return found


async def undo(worker: FundWorker, order: Order, number: str) -> Answer:
    of = {"merchant": order.merchant, "of_kind": "payout_return", "of_order_no": order.order_no}
    return await worker.ask("reversal", order_no=number, reason="another payout", **of)


def refused(answer: object, code: Code, field: str | None) -> None:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field)


# --- The money of a return -----------------------------------------------------------------------------------------------------


async def test_a_payout_that_returns_is_available_again_without_its_fee(worker: FundWorker) -> None:
    order = await paid_out(worker, withdrawal_fee=FEE)
    bank, income = accounts.bank(f"c-{worker.salt}", "CNY"), accounts.fee_income("CNY")
    before = await worker.balance(bank), await worker.balance(income)
    back = await returned(worker, order, "b", 1_000)
    assert (back.state, back.fee, back.fee_version, back.of_order) == (State.POSTED, 0, None, order.id)
    assert (back.channel, back.currency) == (order.channel, order.currency)
    assert await worker.of(order.merchant) == (1_000, 0, 0)
    assert (await worker.balance(bank), await worker.balance(income)) == (before[0] + 1_000, before[1])
    withdrawal = await stored(worker, order)
    assert (withdrawal.state, withdrawal.returned) == (State.PAID, 1_000)
    # The merchant can withdraw the money again.
    again = await worker.done("withdrawal", merchant=order.merchant, order_no="w2", amount=990, channel=order.channel)
    assert (again.state, again.fee) == (State.POSTED, 10)


async def test_a_fee_that_is_returned_is_returned_in_proportion_and_never_exceeded(worker: FundWorker) -> None:
    order = await paid_out(worker, withdrawal_fee=FEE)
    fees = [
        (await returned(worker, order, str(number), amount, fee="returned")).fee
        for number, amount in enumerate((333, 333, 334))
    ]
    assert fees == [3, 3, 3], "each share is rounded down"
    assert await worker.of(order.merchant) == (1_009, 0, 0)


async def test_a_whole_return_returns_the_whole_fee(worker: FundWorker) -> None:
    order = await paid_out(worker, withdrawal_fee=FEE)
    back = await returned(worker, order, "b", 1_000, fee="returned")
    assert (back.fee, back.fee_version) == (10, order.fee_version)
    assert await worker.of(order.merchant) == (1_010, 0, 0)


async def test_the_parts_of_a_payout_that_return_never_exceed_it(worker: FundWorker) -> None:
    order = await paid_out(worker)
    for number, amount in enumerate((1, 998)):
        await returned(worker, order, str(number), amount)
    refused(await ask(worker, order, "more", 2), Code.RETURN_EXCEEDS_WITHDRAWAL, "amount")
    refused(await ask(worker, order, "most", AMOUNT_MAX), Code.RETURN_EXCEEDS_WITHDRAWAL, "amount")
    await returned(worker, order, "last", 1)
    refused(await ask(worker, order, "more2", 1), Code.RETURN_EXCEEDS_WITHDRAWAL, "amount")
    assert (await stored(worker, order)).returned == 1_000


async def test_concurrent_returns_never_exceed_the_withdrawal(worker: FundWorker) -> None:
    order, many = await paid_out(worker), unless_long(30, 100)
    answers = await asyncio.gather(*(ask(worker, order, str(number), 90) for number in range(many)))
    assert sum(isinstance(answer, Taken) for answer in answers) == 11
    assert {answer.code for answer in answers if isinstance(answer, Refusal)} == {Code.RETURN_EXCEEDS_WITHDRAWAL}
    assert (await stored(worker, order)).returned == 990
    assert await worker.of(order.merchant) == (990, 0, 0)


async def test_workers_of_two_processes_share_the_returned_amount(worker: FundWorker, service: RunningService) -> None:
    order = await paid_out(worker)
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as other:
        asked = [ask((worker, other)[n % 2], order, str(n), 300) for n in range(8)]
        answers = await asyncio.gather(*asked)
    assert sum(isinstance(answer, Taken) for answer in answers) == 3
    assert (await stored(worker, order)).returned == 900


async def test_the_withdrawal_limit_of_the_day_is_not_returned(worker: FundWorker) -> None:
    order = await paid_out(worker, withdrawal_limit=1_500)
    await returned(worker, order, "b", 1_000)
    again = {"merchant": order.merchant, "order_no": "w2", "channel": order.channel}
    refused(
        await worker.ask("withdrawal", amount=501, **again),
        Code.WITHDRAWAL_LIMIT_EXCEEDED,
        "amount",
    )
    assert isinstance(await worker.ask("withdrawal", amount=500, **again), Taken)


# --- Refused returns --------------------------------------------------------------------------------------------------


async def test_only_a_paid_withdrawal_of_the_merchant_returns(worker: FundWorker) -> None:
    order = await paid_out(worker)
    other = await worker.merchant("other")
    asked = members(order, "b", 10)
    of = "withdrawal_order_no"
    refused(await worker.ask("payout_return", **{**asked, of: "none"}), Code.WITHDRAWAL_NOT_FOUND, of)
    refused(await worker.ask("payout_return", **{**asked, "merchant": other}), Code.WITHDRAWAL_NOT_FOUND, of)
    refused(await worker.ask("payout_return", **{**asked, of: "for-w"}), Code.WITHDRAWAL_NOT_FOUND, of)
    await worker.pay(order.merchant, "more", 300)
    open_ = await worker.done("withdrawal", merchant=order.merchant, order_no="w2", amount=100, channel=order.channel)
    asked = members(open_, "b2", 10)
    refused(await worker.ask("payout_return", **asked), Code.WITHDRAWAL_NOT_PAID, of)
    await worker.batcher.end(open_.id, "bounced", None, "closed", "tests")
    refused(await worker.ask("payout_return", **asked), Code.WITHDRAWAL_NOT_PAID, of)
    assert (await stored(worker, open_)).returned == 0


async def test_a_receipt_is_returned_once_and_a_repeated_request_changes_nothing(worker: FundWorker) -> None:
    order = await paid_out(worker)
    ref = f"in-{worker.salt}"
    await worker.pay(order.merchant, "in", 5, channel_ref=ref)
    back = await returned(worker, order, "b", 100)
    again = await ask(worker, order, "b", 100)
    assert isinstance(again, Taken)
    assert (again.replay, again.order.id) == (True, back.id)
    refused(await ask(worker, order, "b", 101), Code.ORDER_NO_REUSED, "order_no")
    refused(await ask(worker, order, "b", 100, fee="returned"), Code.ORDER_NO_REUSED, "order_no")
    booked = members(order, "b", 100)["channel_ref"]
    refused(await ask(worker, order, "b2", 100, channel_ref=booked), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    refused(await ask(worker, order, "b3", 100, channel_ref=ref), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    # Money that goes out may have the reference: that of the payout itself, for example.
    assert (await returned(worker, order, "b4", 100, channel_ref=order.channel_ref)).state is State.POSTED
    assert (await stored(worker, order)).returned == 200


async def test_concurrent_returns_with_one_receipt_are_booked_once(worker: FundWorker) -> None:
    order = await paid_out(worker)
    answers = await asyncio.gather(*(ask(worker, order, str(n), 10, channel_ref=f"one-{order.id}") for n in range(20)))
    assert sum(isinstance(answer, Taken) for answer in answers) == 1
    assert {answer.code for answer in answers if isinstance(answer, Refusal)} == {Code.RECEIPT_ALREADY_BOOKED}
    assert (await stored(worker, order)).returned == 10


async def test_a_withdrawal_that_was_edited_takes_no_return(worker: FundWorker) -> None:
    order = await paid_out(worker)
    await returned(worker, order, "b", 1_000)
    await worker.value("UPDATE fund.orders SET returned = 0 WHERE id = $1", order.id)
    answer = await ask(worker, order, "b2", 1_000)
    assert isinstance(answer, OrderFault)
    assert answer.tampered
    assert await worker.of(order.merchant) == (1_000, 0, 0)
    await worker.value("UPDATE fund.orders SET returned = 1000 WHERE id = $1", order.id)


@pytest.mark.parametrize("amount", [0, 1, 1_000])
async def test_a_returned_amount_that_was_edited_is_found(
    fund_database: str, service: RunningService, amount: int
) -> None:
    worker = FundWorker(fund_database, service.base_url, service.fund_token)
    async with worker:
        order = await paid_out(worker)
        await returned(worker, order, "b", 300)
        await worker.value("UPDATE fund.orders SET returned = $2 WHERE id = $1", order.id, amount)
    checks, _ = await check_shared(worker.dsn, service.dsn, worker.salt)
    found = {check.name: [str(finding.subject) for finding in check.findings] for check in checks if check.findings}
    assert set(found) == {"fund_orders_consistent", "mac_verifies_orders"}
    assert found["fund_orders_consistent"] == [f"withdrawal {order.id}: returned"]


# --- Debts and parked returns -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [60, 100, 101])
async def test_a_payout_that_returns_repays_the_debt(worker: FundWorker, amount: int) -> None:
    order = await paid_out(worker, 200)
    await worker.pay(order.merchant, "p", 100)
    await worker.done("withdrawal", merchant=order.merchant, order_no="w2", amount=100, channel=order.channel)
    await worker.done("chargeback", merchant=order.merchant, order_no="cb", payment_order_no="p", amount=100)
    assert await worker.of(order.merchant) == (0, 0, 100)
    back = await returned(worker, order, "b", amount)
    repaid = min(100, amount)
    assert back.set_off == repaid
    assert await worker.of(order.merchant) == (amount - repaid, 0, 100 - repaid)
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", order.merchant) == 100 - repaid


@pytest.mark.parametrize("fee", ["kept", "returned"])
async def test_a_return_to_a_frozen_merchant_is_parked_and_released(worker: FundWorker, fee: str) -> None:
    order = await paid_out(worker, withdrawal_fee=FEE)
    merchant = order.merchant
    before, parked = await worker.balance("suspense:parked"), await worker.balance(accounts.fee_income("CNY"))
    await freeze(worker, merchant, "available")
    back = await returned(worker, order, "b", 500, fee=fee)
    assert (back.state, back.parking, back.posted_at) == (State.PARKED, "park", None)
    assert await worker.balance("suspense:parked") == before + 500
    assert (await stored(worker, order)).returned == 500
    refused(await ask(worker, order, "more", 501), Code.RETURN_EXCEEDS_WITHDRAWAL, "amount")
    booked = members(order, "b", 500)["channel_ref"]
    refused(await ask(worker, order, "twice", 1, channel_ref=booked), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    await release(worker)
    assert (await stored(worker, back)).state is State.PARKED
    await thaw(worker, merchant, "available")
    await release(worker)
    assert (await stored(worker, back)).state is State.POSTED
    share = 5 if fee == "returned" else 0
    assert await worker.of(merchant) == (500 + share, 0, 0)
    assert await worker.balance("suspense:parked") == before
    assert await worker.balance(accounts.fee_income("CNY")) == parked - share


async def test_a_parked_return_repays_the_debt_when_it_is_released(worker: FundWorker) -> None:
    order = await paid_out(worker, 200)
    await worker.pay(order.merchant, "p", 100)
    await worker.done("withdrawal", merchant=order.merchant, order_no="w2", amount=100, channel=order.channel)
    await freeze(worker, order.merchant, "available")
    back = await returned(worker, order, "b", 150)
    assert back.state is State.PARKED
    await thaw(worker, order.merchant, "available")
    await worker.done("chargeback", merchant=order.merchant, order_no="cb", payment_order_no="p", amount=100)
    assert await worker.of(order.merchant) == (0, 0, 100)
    await release(worker)
    found = await stored(worker, back)
    assert (found.state, found.set_off) == (State.POSTED, 100)
    assert await worker.of(order.merchant) == (50, 0, 0)


# --- Reversals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fee", ["kept", "returned"])
async def test_a_return_that_is_reversed_can_be_booked_again(worker: FundWorker, fee: str) -> None:
    order = await paid_out(worker, withdrawal_fee=FEE)
    bank, income = accounts.bank(f"c-{worker.salt}", "CNY"), accounts.fee_income("CNY")
    before = await worker.balance(bank), await worker.balance(income)
    await returned(worker, order, "a", 300, fee=fee)
    wrong = await returned(worker, order, "b", 700, fee=fee)
    undone = await undo(worker, wrong, "u")
    assert isinstance(undone, Taken)
    assert undone.order.state is State.POSTED
    share = 3 if fee == "returned" else 0
    assert await worker.of(order.merchant) == (300 + share, 0, 0)
    assert (await worker.balance(bank), await worker.balance(income)) == (before[0] + 300, before[1] - share)
    assert (await stored(worker, order)).returned == 300
    refused(await undo(worker, wrong, "u2"), Code.ORDER_ALREADY_REVERSED, "of_order_no")
    # The receipt is free.
    receipt = members(order, "b", 700)["channel_ref"]
    assert (await returned(worker, order, "c", 700, fee=fee, channel_ref=receipt)).state is State.POSTED
    assert (await stored(worker, order)).returned == 1_000


async def test_a_return_counts_until_its_reversal_is_posted(worker: FundWorker) -> None:
    order = await paid_out(worker)
    back = await returned(worker, order, "b", 1_000)
    of = {"merchant": order.merchant, "of_kind": "payout_return", "of_order_no": "b"}
    waits = await worker.requested("reversal", order_no="u", reason="wrong", **of)
    assert (await stored(worker, order)).returned == 1_000
    refused(await ask(worker, order, "c", 1), Code.RETURN_EXCEEDS_WITHDRAWAL, "amount")
    assert isinstance(await worker.batcher.approve(waits.id, CHECKER), Taken)
    assert (await stored(worker, order)).returned == 0
    assert (await stored(worker, back)).reversed_by == waits.id


async def test_the_reversal_of_a_return_that_was_withdrawn_is_refused(worker: FundWorker) -> None:
    order = await paid_out(worker)
    back = await returned(worker, order, "b", 1_000)
    await worker.done("withdrawal", merchant=order.merchant, order_no="w2", amount=1_000, channel=order.channel)
    undone = await undo(worker, back, "u")
    assert isinstance(undone, Taken)
    assert undone.order.state is State.REFUSED
    found = await stored(worker, back)
    assert (found.reversed_by, (await stored(worker, order)).returned) == (None, 1_000)


async def test_a_reversed_return_makes_the_merchant_owe_what_it_repaid(worker: FundWorker) -> None:
    order = await paid_out(worker, 200)
    await worker.pay(order.merchant, "p", 100)
    await worker.done("withdrawal", merchant=order.merchant, order_no="w2", amount=100, channel=order.channel)
    await worker.done("chargeback", merchant=order.merchant, order_no="cb", payment_order_no="p", amount=100)
    back = await returned(worker, order, "b", 150)
    assert await worker.of(order.merchant) == (50, 0, 0)
    undone = await undo(worker, back, "u")
    assert isinstance(undone, Taken)
    assert undone.order.state is State.POSTED
    assert await worker.of(order.merchant) == (0, 0, 100)
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", order.merchant) == 100


async def test_a_reversed_return_restores_a_debt_that_its_fee_repaid(worker: FundWorker) -> None:
    """The debt is greater than the amount of the return, because the return also credited the fee."""
    order = await paid_out(worker, 1_000, withdrawal_fee=FEE)
    await worker.pay(order.merchant, "p", 2_020)
    await worker.done("withdrawal", merchant=order.merchant, order_no="w2", amount=2_000, channel=order.channel)
    await worker.done("chargeback", merchant=order.merchant, order_no="cb", payment_order_no="p", amount=2_020)
    back = await returned(worker, order, "b", 1_000, fee="returned")
    assert (back.fee, back.set_off) == (10, 1_010)
    assert await worker.of(order.merchant) == (0, 0, 1_010)
    undone = await undo(worker, back, "u")
    assert isinstance(undone, Taken)
    assert (undone.order.state, undone.order.to_receivable) == (State.POSTED, 1_010)
    assert await worker.of(order.merchant) == (0, 0, 2_020)


async def test_a_parked_return_is_not_reversed(worker: FundWorker) -> None:
    order = await paid_out(worker)
    await freeze(worker, order.merchant, "available")
    back = await returned(worker, order, "b", 500)
    refused(await undo(worker, back, "u"), Code.ORDER_NOT_REVERSIBLE, "of_order_no")
    await thaw(worker, order.merchant, "available")
    await release(worker)
    refused(await undo(worker, back, "u2"), Code.ORDER_NOT_REVERSIBLE, "of_order_no")


async def test_concurrent_returns_and_reversals_agree_with_the_orders(worker: FundWorker) -> None:
    order, many = await paid_out(worker, 10_000), unless_long(10, 50)

    async def one(number: int) -> None:
        answer = await ask(worker, order, str(number), 1_000)
        if isinstance(answer, Taken) and number % 2:
            assert isinstance(await undo(worker, answer.order, f"u{number}"), Taken)

    await asyncio.gather(*map(one, range(many)))
    counted = (
        "SELECT coalesce(sum(o.amount), 0)::bigint FROM fund.orders o WHERE o.kind = 'payout_return' AND o.state = 'posted'"
        " AND NOT EXISTS (SELECT FROM fund.orders r WHERE r.of_order = o.id AND r.state = 'posted')"
    )
    assert (await stored(worker, order)).returned == await worker.value(counted)


async def test_a_returned_amount_is_not_restored_by_an_edited_return(
    worker: FundWorker, service: RunningService
) -> None:
    """The reversal takes its amount from the return. If the return was edited, the withdrawal keeps its amount."""
    order = await paid_out(worker)
    back = await returned(worker, order, "b", 400)
    of = {"merchant": order.merchant, "of_kind": "payout_return", "of_order_no": "b"}
    waits = await worker.requested("reversal", order_no="u", reason="wrong", **of)
    async with any_state(worker.pool) as connection:
        await connection.execute("UPDATE fund.orders SET amount = 300 WHERE id = $1", back.id)
    answer = await worker.batcher.approve(waits.id, CHECKER)
    assert isinstance(answer, OrderFault)
    assert answer.tampered
    assert (await stored(worker, order)).returned == 400
    async with any_state(worker.pool) as connection:
        await connection.execute("UPDATE fund.orders SET amount = 400 WHERE id = $1", back.id)
