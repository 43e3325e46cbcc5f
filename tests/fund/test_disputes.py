"""Disputes: the amount is taken when a dispute is opened, and goes to the bank or back to the merchant. Won disputes after
a chargeback, and the fees of disputes.
"""

import asyncio
import random
from typing import Any

import pytest

from fundledger.fund.jobs.release import Releaser
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.merchant_requests import DisputeFee
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from tests.support.fund_worker import FundWorker
from tests.support.length import unless_long

FEE = Fee(basis_points=100)


def refused(answer: Any, code: Code, field: str | None = "amount") -> bool:
    assert isinstance(answer, Refusal), answer
    assert (answer.code, answer.field) == (code, field), answer
    return True


async def dispute(worker: FundWorker, merchant: str, amount: int, payment: str = "p", number: str = "d") -> Order:
    return await worker.done("dispute", merchant=merchant, order_no=number, payment_order_no=payment, amount=amount)


async def end(worker: FundWorker, order: Order, ending: Any, ref: str | None = None) -> Order:
    answer = await worker.batcher.end(order.id, ending, ref, None, "bank")
    assert isinstance(answer, Taken), answer
    assert answer.order.state is State(ending)
    return answer.order


async def win(worker: FundWorker, merchant: str, amount: int, number: str = "w", **more: Any) -> Any:
    members = {"chargeback_order_no": "c", **more}
    return await worker.ask("dispute_won", merchant=merchant, order_no=number, amount=amount, **members)


async def held(worker: FundWorker, merchant: str) -> int:
    return await worker.balance(f"merchant:{merchant}:disputed")


async def bank(worker: FundWorker) -> int:
    return await worker.balance(f"bank:c-{worker.salt}")


async def withdraw(worker: FundWorker, merchant: str, amount: int, number: str = "out") -> Any:
    return await worker.ask("withdrawal", merchant=merchant, order_no=number, amount=amount, channel=f"c-{worker.salt}")


async def progress(worker: FundWorker, merchant: str, payment: str = "p") -> tuple[int, ...]:
    row = await worker.pool.fetchrow(
        "SELECT settled, refunded, charged_back, charged_back_unsettled, p.fee_waived FROM fund.payments p"
        " JOIN fund.orders o ON o.id = p.order_id WHERE o.merchant = $1 AND o.order_no = $2",
        *(merchant, payment),
    )
    return tuple(row)


# --- Open disputes --------------------------------------------------------------------------------------------------


async def test_money_in_dispute_cannot_be_withdrawn_and_returns_if_the_dispute_is_won(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    order = await dispute(worker, merchant, 600)
    assert (order.state, order.channel, order.reason) == (State.POSTED, f"c-{worker.salt}", None)
    assert (await worker.of(merchant), await held(worker, merchant), await bank(worker)) == ((400, 0, 0), 600, 1_000)
    assert (await withdraw(worker, merchant, 401)).order.state is State.REFUSED
    await end(worker, order, "won")
    assert (await worker.of(merchant), await held(worker, merchant), await bank(worker)) == ((1_000, 0, 0), 0, 1_000)
    assert await progress(worker, merchant) == (1_000, 0, 0, 0, 0)
    assert (await withdraw(worker, merchant, 1_000, "all")).order.state is State.POSTED


async def test_a_lost_dispute_is_the_chargeback_of_its_payment(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    order = await dispute(worker, merchant, 600)
    lost = await end(worker, order, "lost", "CB1")
    assert lost.channel_ref == "CB1"
    assert (await worker.of(merchant), await held(worker, merchant), await bank(worker)) == ((400, 0, 0), 0, 400)
    for kind in ("refund", "chargeback", "dispute"):
        no = await worker.ask(kind, merchant=merchant, order_no="more", payment_order_no="p", amount=401)
        assert refused(no, Code.REFUND_EXCEEDS_PAYMENT if kind == "refund" else Code.CHARGEBACK_EXCEEDS_PAYMENT)
    # The reference counts once among all movements out of the channel.
    back = {"merchant": merchant, "payment_order_no": "p", "amount": 1, "channel_ref": "CB1"}
    assert refused(await worker.ask("chargeback", order_no="x", **back), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")
    for ending, ref, field in (("won", None, None), ("lost", "CB2", "channel_ref")):
        no = await worker.batcher.end(order.id, ending, ref, None, "bank")  # type: ignore[arg-type]
        assert refused(no, Code.ORDER_ENDED, field)
    again = await worker.batcher.end(order.id, "lost", "CB1", None, "bank")
    assert isinstance(again, Taken)
    assert again.replay


async def test_a_dispute_reserves_the_amount_of_its_payment(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    await worker.pay(merchant, "q", 1_000)
    await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=300)
    order = await dispute(worker, merchant, 600)
    no = await worker.ask("refund", merchant=merchant, order_no="r2", payment_order_no="p", amount=101)
    assert refused(no, Code.REFUND_EXCEEDS_PAYMENT)
    reversal = {"of_kind": "payment", "of_order_no": "p", "reason": "r", "merchant": merchant}
    assert refused(await worker.ask("reversal", order_no="v", **reversal), Code.ORDER_NOT_REVERSIBLE, "of_order_no")
    await end(worker, order, "won")
    await worker.done("refund", merchant=merchant, order_no="r3", payment_order_no="p", amount=700)


async def test_a_dispute_takes_the_pending_part_first_and_it_is_not_settled_meanwhile(worker: FundWorker) -> None:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", 10_000, settle="later")
    await worker.done("settlement", merchant=merchant, order_no="s1", amount=4_000)
    order = await dispute(worker, merchant, 7_000)
    assert (order.from_pending, order.fee_waived, order.to_receivable) == (6_000, 60, 0)
    assert (await worker.of(merchant), await held(worker, merchant)) == ((2_960, 0, 0), 7_000)
    nothing = await worker.ask("settlement", merchant=merchant, order_no="s2")
    assert refused(nothing, Code.NOTHING_TO_SETTLE, None)
    await end(worker, order, "won")
    assert (await worker.of(merchant), await held(worker, merchant)) == ((3_960, 6_000, 0), 0)
    assert (await worker.done("settlement", merchant=merchant, order_no="s3")).fee == 60
    assert await worker.of(merchant) == (9_900, 0, 0)


async def test_a_merchant_owes_the_part_that_it_has_not_and_a_win_repays_it(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    assert isinstance(await withdraw(worker, merchant, 700), Taken)
    order = await dispute(worker, merchant, 1_000)
    assert order.to_receivable == 700
    assert (await worker.of(merchant), await held(worker, merchant)) == ((0, 0, 700), 1_000)
    await worker.pay(merchant, "q", 300)
    assert await worker.of(merchant) == (0, 0, 400)
    won = await end(worker, order, "won")
    assert won.end_set_off == 400
    assert (await worker.of(merchant), await held(worker, merchant)) == ((600, 0, 0), 0)
    assert await worker.value("SELECT owed FROM fund.debts WHERE merchant = $1", merchant) == 0


async def test_a_dispute_of_a_frozen_merchant_is_refused_and_reserves_nothing(worker: FundWorker) -> None:
    """Its money cannot be withdrawn anyway. A chargeback of the payment is a fact, and is parked."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    for name in ("available", "receivable"):
        await worker.accounts.freeze(f"merchant:{merchant}:{name}", "tests", "all")
    order = await dispute(worker, merchant, 600)
    assert (order.state, order.attempt) == (State.REFUSED, 3)
    for name in ("available", "receivable"):
        await worker.accounts.unfreeze(f"merchant:{merchant}:{name}")
    assert await progress(worker, merchant) == (1_000, 0, 0, 0, 0)
    assert (await dispute(worker, merchant, 1_000, number="d2")).state is State.POSTED


async def test_the_end_of_a_dispute_is_tried_again_until_the_merchant_takes_it(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    order = await dispute(worker, merchant, 600)
    await worker.accounts.freeze(f"merchant:{merchant}:available", "tests", "all")
    answer = await worker.batcher.end(order.id, "won", None, None, "bank")
    assert isinstance(answer, Taken)
    assert (answer.order.state, answer.order.ending) == (State.POSTED, "won")
    no = await worker.batcher.end(order.id, "lost", None, None, "bank")
    assert refused(no, Code.ORDER_ENDED, None)
    await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    retried = await worker.batcher.retry(order.id, "tester")
    assert isinstance(retried, Taken)
    assert retried.order.state is State.WON
    assert (await worker.of(merchant), await held(worker, merchant)) == ((1_000, 0, 0), 0)


async def test_no_withdrawal_passes_the_end_of_a_dispute_that_repays_a_debt(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    assert isinstance(await withdraw(worker, merchant, 700), Taken)
    order = await dispute(worker, merchant, 1_000)
    disputed = f"merchant:{merchant}:disputed"
    await worker.accounts.freeze(disputed, "tests", "all")
    await worker.batcher.end(order.id, "won", None, None, "bank")
    await worker.pay(merchant, "q", 300)
    assert refused(await withdraw(worker, merchant, 1, "w2"), Code.DEBT_IN_PROGRESS, None)
    await worker.accounts.unfreeze(disputed)
    await worker.batcher.retry(order.id, "tester")
    assert await worker.of(merchant) == (600, 0, 0)
    assert (await withdraw(worker, merchant, 600, "w3")).order.state is State.POSTED


async def test_the_same_end_is_posted_once_by_many_callers(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    order = await dispute(worker, merchant, 600)
    ends = [("won", None), ("lost", "R")] * 6
    answers = await asyncio.gather(
        *(worker.batcher.end(order.id, ending, ref, None, "bank") for ending, ref in ends)  # type: ignore[arg-type]
    )
    taken = {answer.order.ending for answer in answers if isinstance(answer, Taken)}
    assert len(taken) == 1
    assert all(refused(answer, Code.ORDER_ENDED, None) for answer in answers if not isinstance(answer, Taken))
    available, _, _ = await worker.of(merchant)
    assert (available, await bank(worker)) == ((1_000, 1_000) if taken == {"won"} else (400, 400))


async def test_a_dispute_of_a_payment_that_does_not_exist_or_is_another_merchants(worker: FundWorker) -> None:
    merchant, other = await worker.merchant(), await worker.merchant("other")
    await worker.pay(other, "p", 100)
    members = {"merchant": merchant, "order_no": "d", "amount": 1}
    for payment in ("p", "q"):
        no = await worker.ask("dispute", payment_order_no=payment, **members)
        assert refused(no, Code.PAYMENT_NOT_FOUND, "payment_order_no")


# --- Won after a chargeback -----------------------------------------------------------------------------------------


async def charged_back(worker: FundWorker, amount: int = 1_000, back: int = 1_000, **more: Any) -> str:
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", amount, **more)
    members = {"merchant": merchant, "payment_order_no": "p", "amount": back}
    await worker.done("chargeback", order_no="c", **members)
    return merchant


async def test_a_won_dispute_repays_the_debt_and_credits_the_rest(worker: FundWorker) -> None:
    merchant = await charged_back(worker)
    assert await worker.of(merchant) == (0, 0, 10)
    answer = await win(worker, merchant, 1_000, channel_ref="R")
    assert (answer.order.state, answer.order.set_off) == (State.POSTED, 10)
    assert (await worker.of(merchant), await bank(worker)) == ((990, 0, 0), 1_000)
    payment = {"merchant": merchant, "order_no": "q", "amount": 5, "currency": "CNY", "channel": f"c-{worker.salt}"}
    assert refused(await worker.ask("payment", channel_ref="R", **payment), Code.RECEIPT_ALREADY_BOOKED, "channel_ref")


async def test_an_edited_win_lets_no_more_come_back(worker: FundWorker) -> None:
    merchant = await charged_back(worker)
    won = (await win(worker, merchant, 900)).order
    edit = "UPDATE fund.orders SET amount = $2 WHERE id = $1"
    await worker.value(edit, won.id, 1)
    answer = await win(worker, merchant, 900, "w2")
    assert isinstance(answer, OrderFault)
    assert answer.tampered
    await worker.value(edit, won.id, 900)
    assert refused(await win(worker, merchant, 900, "w2"), Code.WIN_EXCEEDS_CHARGEBACK)


async def test_no_more_comes_back_than_the_chargeback_took(worker: FundWorker) -> None:
    merchant = await charged_back(worker, back=600)
    assert refused(await win(worker, merchant, 601), Code.WIN_EXCEEDS_CHARGEBACK)
    answers = await asyncio.gather(*(win(worker, merchant, 250, str(n)) for n in range(20)))
    taken = [answer.order for answer in answers if isinstance(answer, Taken)]
    assert len(taken) == 2
    assert all(refused(no, Code.WIN_EXCEEDS_CHARGEBACK) for no in answers if not isinstance(no, Taken))
    assert isinstance(await win(worker, merchant, 100, "rest"), Taken)
    assert refused(await win(worker, merchant, 1, "one"), Code.WIN_EXCEEDS_CHARGEBACK)
    assert await worker.of(merchant) == (990, 0, 0)


async def test_the_payment_of_a_won_dispute_can_be_charged_back_and_refunded_again(worker: FundWorker) -> None:
    merchant = await charged_back(worker, back=600)
    await win(worker, merchant, 600)
    members = {"merchant": merchant, "payment_order_no": "p"}
    await worker.done("chargeback", order_no="c2", amount=700, **members)
    assert refused(await win(worker, merchant, 701, "w2", chargeback_order_no="c2"), Code.WIN_EXCEEDS_CHARGEBACK)
    await win(worker, merchant, 700, "w2", chargeback_order_no="c2")
    refund = await worker.done("refund", order_no="r", amount=1_000, **members)
    assert refund.fee == 10
    assert await worker.of(merchant) == (0, 0, 0)


@pytest.mark.parametrize("first", [1, 300, 400, 401, 699])
async def test_the_pending_part_that_comes_back_is_available(worker: FundWorker, first: int) -> None:
    """A chargeback of 700 took 300 of the pending part. The settled part comes back first."""
    merchant = await worker.merchant(fee=FEE)
    await worker.pay(merchant, "p", 1_000, settle="later")
    await worker.done("settlement", merchant=merchant, order_no="s", amount=700)
    await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=700)
    assert await progress(worker, merchant) == (700, 0, 700, 300, 3)
    parts = [(await win(worker, merchant, n, str(n))).order.from_pending for n in (first, 700 - first)]
    assert parts == [max(0, first - 400), min(300, 700 - first)]
    assert await progress(worker, merchant) == (1_000, 0, 0, 0, 3)
    assert await worker.of(merchant) == (993, 0, 0)
    refund = await worker.done("refund", merchant=merchant, order_no="r", payment_order_no="p", amount=1_000)
    assert refund.fee == 7
    assert await worker.of(merchant) == (0, 0, 0)


async def test_a_lost_dispute_can_be_won_later(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 1_000)
    order = await dispute(worker, merchant, 600)
    named = {"of_kind": "dispute", "chargeback_order_no": "d"}
    assert refused(await win(worker, merchant, 600, **named), Code.CHARGEBACK_NOT_POSTED, "chargeback_order_no")
    await end(worker, order, "lost")
    assert refused(await win(worker, merchant, 601, **named), Code.WIN_EXCEEDS_CHARGEBACK)
    assert isinstance(await win(worker, merchant, 600, **named), Taken)
    assert (await worker.of(merchant), await bank(worker)) == ((1_000, 0, 0), 1_000)
    other = await worker.merchant("other")
    assert refused(await win(worker, other, 1, **named), Code.ORDER_NOT_FOUND, "chargeback_order_no")


async def test_a_won_dispute_of_a_closed_merchant_is_parked_and_released(worker: FundWorker) -> None:
    merchant = await charged_back(worker)
    available = f"merchant:{merchant}:available"
    await worker.accounts.freeze(available, "tests", "all")
    answer = await win(worker, merchant, 1_000)
    assert answer.order.state is State.PARKED
    assert refused(await win(worker, merchant, 1, "x"), Code.WIN_EXCEEDS_CHARGEBACK)
    await worker.accounts.unfreeze(available)
    await worker.value("UPDATE fund.orders SET due_at = now() WHERE state = 'parked' AND merchant = $1", merchant)
    assert (await Releaser(worker.posting, 0.0).release_some())[0] == 1
    assert await worker.of(merchant) == (990, 0, 0)


async def test_a_chargeback_that_is_parked_can_be_won(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    for name in ("available", "receivable"):
        await worker.accounts.freeze(f"merchant:{merchant}:{name}", "tests", "all")
    await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=60)
    assert (await win(worker, merchant, 60)).order.state is State.PARKED
    for name in ("available", "receivable"):
        await worker.accounts.unfreeze(f"merchant:{merchant}:{name}")
    await worker.value("UPDATE fund.orders SET due_at = now() WHERE state = 'parked' AND merchant = $1", merchant)
    await Releaser(worker.posting, 0.0).release_some()
    assert await worker.of(merchant) == (100, 0, 0)


# --- Fees of disputes -----------------------------------------------------------------------------------------------


async def test_a_dispute_fee_takes_the_balance_and_then_becomes_a_debt(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    fee = {"merchant": merchant, "channel": f"c-{worker.salt}"}
    order = await worker.done("dispute_fee", order_no="1", amount=70, channel_ref="F", **fee)
    assert (order.to_receivable, await worker.of(merchant), await bank(worker)) == (0, (30, 0, 0), 30)
    order = await worker.done("dispute_fee", order_no="2", amount=70, **fee)
    assert (order.to_receivable, await worker.of(merchant), await bank(worker)) == (40, (0, 0, 40), -40)
    assert refused(
        await worker.ask("dispute_fee", order_no="3", amount=1, channel_ref="F", **fee),
        *(Code.RECEIPT_ALREADY_BOOKED, "channel_ref"),
    )
    await worker.pay(merchant, "q", 50)
    assert await worker.of(merchant) == (10, 0, 0)


async def test_a_dispute_fee_of_a_frozen_merchant_is_parked_and_blocks_withdrawals(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    for name in ("available", "receivable"):
        await worker.accounts.freeze(f"merchant:{merchant}:{name}", "tests", "all")
    fee = {"merchant": merchant, "channel": f"c-{worker.salt}", "against": "payable", "amount": 70}
    order = await worker.done("dispute_fee", order_no="1", **fee)
    assert order.state is State.PARKED
    assert await worker.balance(f"payable:c-{worker.salt}") == 70
    for name in ("available", "receivable"):
        await worker.accounts.unfreeze(f"merchant:{merchant}:{name}")
    assert refused(await withdraw(worker, merchant, 1), Code.DEBT_IN_PROGRESS, None)
    retried = await worker.batcher.retry(order.id, "tester")
    assert isinstance(retried, Taken)
    assert retried.order.state is State.POSTED
    assert await worker.of(merchant) == (30, 0, 0)


def test_a_fee_that_is_collected_later_has_no_reference_yet() -> None:
    with pytest.raises(ValueError, match="channel_ref must be omitted"):
        DisputeFee(merchant="m", order_no="1", amount=1, channel="c", channel_ref="R", against="payable")


# --- Together -------------------------------------------------------------------------------------------------------


async def test_concurrent_disputes_and_other_orders_leave_the_books_whole(worker: FundWorker) -> None:
    pick = random.Random(11)
    for turn in range(unless_long(3, 60)):
        merchant = await worker.merchant(f"t{turn}")
        for n in range(4):
            await worker.pay(merchant, f"p{n}", 1_000, settle=("now", "later")[n % 2])

        async def one(n: int, merchant: str = merchant) -> Any:
            about = {"merchant": merchant, "order_no": f"{n}", "payment_order_no": f"p{n % 4}"}
            amount = pick.randint(1, 700)
            if n % 4 == 0:
                answer = await worker.ask("dispute", amount=amount, **about)
                if isinstance(answer, Taken) and answer.order.state is State.POSTED:
                    ending = pick.choice(["won", "lost"])
                    return await worker.batcher.end(answer.order.id, ending, None, None, "bank")  # type: ignore[arg-type]
                return answer
            if n % 4 == 1:
                return await worker.ask(pick.choice(["refund", "chargeback"]), amount=amount, **about)
            if n % 4 == 2:
                return await withdraw(worker, merchant, amount, f"{n}")
            return await worker.ask("settlement", merchant=merchant, order_no=f"{n}")

        answers = await asyncio.gather(*(one(n) for n in range(32)))
        assert not [answer for answer in answers if isinstance(answer, OrderFault)]
        assert await held(worker, merchant) == 0
