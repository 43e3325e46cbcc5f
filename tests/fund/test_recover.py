"""The recoverer: an order is retried until its outcome is known, and no order is posted twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from fundledger.client.faults import OutcomeUnknown, Problem, Unavailable
from fundledger.client.types import Voucher, VoucherResult
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.posting_result import PostingResult
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Fee
from fundledger.fund.store.orders import read_order
from tests.support.fund_books import prove_fund
from tests.support.fund_ids import MACS, voucher_id
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService


class Cut(AccountGateway):
    """An account gateway. A call can be cut before it is sent, or after it has taken effect."""

    before = False
    after = False
    no_reversals = False

    async def _reverse(self, order: Order) -> PostingResult | None:
        if self.before or self.no_reversals:
            raise GatewayFault("cut")
        return await super()._reverse(order)

    async def post_vouchers(self, vouchers: Sequence[Voucher]) -> list[PostingResult | None]:
        if self.before:
            self.is_away = True
            raise GatewayFault("cut")
        verdicts = await super().post_vouchers(vouchers)
        if self.after:
            self.is_away = True
            raise GatewayFault("cut")
        return verdicts


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    worker = FundWorker(fund_database, service.base_url, service.fund_token, wait_s=3.0)
    worker.gateway = Cut(worker.accounts)
    async with worker:
        yield worker
    await prove_fund(fund_database, service.dsn, worker.salt)


async def recover(worker: FundWorker) -> int:
    """Run the recoverer until no order is due. Return the number of outcomes that became known."""
    known = 0
    while await worker.value("SELECT count(*) FROM fund.orders WHERE due_at IS NOT NULL"):
        known += (await worker.recoverer.recover_some())[0]
    return known


@pytest.mark.parametrize("where", ["before", "after"])
async def test_an_order_whose_call_got_no_answer_is_posted_once_and_a_retry_returns_it(
    worker: FundWorker, where: str
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "0", 1)
    setattr(worker.gateway, where, True)
    orders = await asyncio.gather(*(worker.pay(merchant, str(i), 10) for i in range(1, 21)))
    assert {order.state for order in orders} == {State.POSTING}
    assert await worker.of(merchant) == ((201 if where == "after" else 1), 0, 0)
    repeat = await worker.ask(
        "payment", merchant=merchant, order_no="1", amount=10, currency="CNY", channel=f"c-{worker.salt}"
    )
    assert isinstance(repeat, Taken)
    assert (repeat.replay, repeat.order.state) == (True, State.POSTING)
    with pytest.raises(GatewayFault):
        await worker.recoverer.recover_some()
    setattr(worker.gateway, where, False)
    assert await recover(worker) == 20
    assert await worker.of(merchant) == (201, 0, 0)
    assert await worker.value("SELECT count(*) FROM fund.orders WHERE state = 'posted'") == 21
    assert await worker.value("SELECT count(*) FROM fund.events WHERE state = 'posted'") == 21


async def test_two_concurrent_recoveries_report_an_order_once(worker: FundWorker, service: RunningService) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "0", 1)
    worker.gateway.before = True  # type: ignore[attr-defined]
    await asyncio.gather(*(worker.pay(merchant, str(i), 10) for i in range(1, 51)))
    worker.gateway.before = False  # type: ignore[attr-defined]
    async with FundWorker(worker.dsn, service.base_url, service.fund_token, salt=worker.salt) as other:
        await asyncio.gather(recover(worker), recover(other), recover(worker))
    assert await worker.of(merchant) == (501, 0, 0)
    assert await worker.value("SELECT count(*) FROM fund.events") == 51


async def test_the_reservations_of_a_refused_order_are_released_by_the_worker_that_receives_the_refusal(
    worker: FundWorker,
) -> None:
    merchant = await worker.merchant(withdrawal_limit=100)
    await worker.pay(merchant, "p", 50)
    worker.gateway.before = True  # type: ignore[attr-defined]
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=60, channel=f"c-{worker.salt}")
    assert order.state is State.POSTING
    assert await worker.value("SELECT amount FROM fund.withdrawal_days") == 60
    worker.gateway.before = False  # type: ignore[attr-defined]
    await recover(worker)
    assert await worker.value("SELECT amount FROM fund.withdrawal_days") == 0
    assert await worker.value("SELECT state FROM fund.orders WHERE kind = 'withdrawal'") == "refused"


async def test_an_end_without_answer_is_found_again(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 50)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=f"c-{worker.salt}")
    worker.gateway.after = True  # type: ignore[attr-defined]
    answer = await worker.batcher.end(order.id, "bounced", None, "no such account", "m")
    assert isinstance(answer, Taken)
    assert answer.order.state is State.POSTED
    worker.gateway.after = False  # type: ignore[attr-defined]
    await recover(worker)
    assert await worker.value("SELECT state FROM fund.orders WHERE kind = 'withdrawal'") == "bounced"
    assert await worker.of(merchant) == (50, 0, 0)


async def test_a_payment_that_was_posted_but_not_recorded_is_answered_as_posted_and_recorded_later(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "0", 1)

    async def lost(*_: object) -> None:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    with monkeypatch.context() as broken:
        broken.setattr("fundledger.fund.store.orders.mark", lost)
        assert (await worker.pay(merchant, "1", 10)).state is State.POSTED
    assert await worker.value("SELECT state FROM fund.orders WHERE order_no = '1'") == "posting"
    await recover(worker)
    assert await worker.value("SELECT state FROM fund.orders WHERE order_no = '1'") == "posted"
    assert await worker.of(merchant) == (11, 0, 0)


async def test_an_order_that_could_not_be_written_is_not_taken(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "0", 1)
    await worker.value("ALTER TABLE fund.orders ADD CONSTRAINT no_more CHECK (order_no <> '1') NOT VALID")
    answers = await asyncio.gather(
        *(
            worker.ask("payment", merchant=merchant, order_no=n, amount=5, currency="CNY", channel=f"c-{worker.salt}")
            for n in ("1", "1")
        )
    )
    await worker.value("ALTER TABLE fund.orders DROP CONSTRAINT no_more")
    assert all(isinstance(answer, OrderFault) for answer in answers)
    assert await worker.of(merchant) == (1, 0, 0)
    assert worker.batcher.waiting == 0


async def test_a_reversal_that_gets_no_answer_does_not_hold_up_what_is_recovered_with_it(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    worker.gateway.before = True  # type: ignore[attr-defined]
    await worker.pay(merchant, "q", 5)
    await worker.done("reversal", merchant=merchant, order_no="r", of_kind="payment", of_order_no="p", reason="wrong")
    worker.gateway.before, worker.gateway.no_reversals = False, True  # type: ignore[attr-defined]
    await worker.recoverer.recover_some()
    assert await worker.value("SELECT state FROM fund.orders WHERE order_no = 'q'") == "posted"
    with pytest.raises(GatewayFault):
        await worker.recoverer.recover_some()
    worker.gateway.no_reversals = False  # type: ignore[attr-defined]
    await recover(worker)
    assert await worker.of(merchant) == (5, 0, 0)


@pytest.mark.parametrize("poisons", [{"17"}, {"0", "1", "30"}])
async def test_a_voucher_for_which_the_service_does_not_know_does_not_hold_up_the_others(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch, poisons: set[str]
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    worker.gateway.before = True  # type: ignore[attr-defined]
    written = await asyncio.gather(*(worker.pay(merchant, str(i), 1) for i in range(31)))
    worker.gateway.before = False  # type: ignore[attr-defined]
    poisoned = {order.voucher_id for order in written if order.order_no in poisons}
    post, calls = worker.accounts.post_vouchers, []

    async def poisoned_post(vouchers: Sequence[Voucher]) -> list[VoucherResult]:
        calls.append(len(vouchers))
        if poisoned & {voucher.id for voucher in vouchers}:
            raise OutcomeUnknown("503", Problem({"type": "urn:fundledger:problem:outcome-unknown", "status": 503}))
        return await post(vouchers)

    with monkeypatch.context() as broken:
        broken.setattr(worker.accounts, "post_vouchers", poisoned_post)
        assert (await worker.recoverer.recover_some())[0] == 31 - len(poisons)
        assert len(calls) < 31
    left = await worker.value("SELECT array_agg(order_no) FROM fund.orders WHERE due_at IS NOT NULL")
    assert set(left) == poisons
    assert await recover(worker) == len(poisons)


@pytest.fixture
async def ended(worker: FundWorker) -> Order:
    """Make a withdrawal whose end the recoverer has to post, because the account service was unavailable."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 200)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=f"c-{worker.salt}")
    worker.gateway.before = True  # type: ignore[attr-defined]
    await worker.batcher.end(order.id, "paid", "ref", None, "m")
    return order


async def test_an_order_whose_outcome_stays_unknown_does_not_hold_up_the_end_of_a_withdrawal(
    worker: FundWorker, ended: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = await worker.pay(ended.merchant, "q", 1)
    worker.gateway.before = False  # type: ignore[attr-defined]
    post = worker.accounts.post_vouchers

    async def unsure(vouchers: Sequence[Voucher]) -> list[VoucherResult]:
        if unknown.voucher_id in {voucher.id for voucher in vouchers}:
            raise OutcomeUnknown("503", Problem({"type": "urn:fundledger:problem:outcome-unknown", "status": 503}))
        return await post(vouchers)

    with monkeypatch.context() as broken:
        broken.setattr(worker.accounts, "post_vouchers", unsure)
        assert (await worker.recoverer.recover_some())[0] == 1
    assert await worker.value("SELECT state FROM fund.orders WHERE order_no = 'w'") == "paid"
    assert await recover(worker) == 1


async def test_a_chargeback_whose_balance_does_not_verify_holds_up_no_other_order(
    worker: FundWorker, ended: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"merchant": ended.merchant, "payment_order_no": "p"}
    await worker.done("chargeback", order_no="c", amount=150, **members)
    await worker.pay(ended.merchant, "q", 5)
    worker.gateway.before = False  # type: ignore[attr-defined]
    # The balance falls, so the account service refuses the chargeback, and the balance is read again.
    await worker.debit(ended.merchant, "a", 100)

    async def unverified(_: str) -> None:
        raise Unavailable("HTTP 500", Problem({"type": "urn:fundledger:problem:integrity", "status": 500}))

    with monkeypatch.context() as broken:
        broken.setattr(worker.accounts, "account", unverified)
        assert (await worker.recoverer.recover_some())[0] == 2
    assert await worker.value("SELECT array_agg(order_no) FROM fund.orders WHERE due_at IS NOT NULL") == ["c"]
    assert await recover(worker) == 1
    assert await worker.of(ended.merchant) == (0, 0, 95)


async def test_a_lost_connection_is_not_asked_again_by_halves(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    worker.gateway.before = True  # type: ignore[attr-defined]
    await asyncio.gather(*(worker.pay(merchant, str(i), 1) for i in range(4)))
    worker.gateway.before = False  # type: ignore[attr-defined]
    calls = []

    async def lost(vouchers: Sequence[Voucher]) -> list[VoucherResult]:
        calls.append(len(vouchers))
        raise OutcomeUnknown("the connection was lost")

    with monkeypatch.context() as broken:
        broken.setattr(worker.accounts, "post_vouchers", lost)
        with pytest.raises(GatewayFault):
            await worker.recoverer.recover_some()
    assert calls == [4]
    await recover(worker)


async def test_an_order_that_cannot_be_marked_does_not_hold_up_the_others(worker: FundWorker) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    worker.gateway.before = True  # type: ignore[attr-defined]
    for number in ("1", "poison", "2"):
        await worker.pay(merchant, number, 1)
    worker.gateway.before = False  # type: ignore[attr-defined]
    poison = "ALTER TABLE fund.orders ADD CONSTRAINT poison CHECK (order_no <> 'poison' OR state = 'posting')"
    await worker.value(poison)
    await worker.recoverer.recover_some()
    assert await worker.value("SELECT array_agg(order_no) FROM fund.orders WHERE due_at IS NOT NULL") == ["poison"]
    await worker.value("ALTER TABLE fund.orders DROP CONSTRAINT poison")
    await recover(worker)


async def test_a_refund_waits_until_it_is_known_whether_its_payment_was_settled(worker: FundWorker) -> None:
    """If the refund did not wait, it might return a fee that is never charged."""
    merchant = await worker.merchant(fee=Fee(basis_points=1000))
    await worker.pay(merchant, "now", 100)
    await worker.pay(merchant, "later", 100, settle="later")
    worker.gateway.before = True  # type: ignore[attr-defined]
    await worker.done("settlement", merchant=merchant, order_no="s")
    worker.gateway.before = False  # type: ignore[attr-defined]
    members = {"merchant": merchant, "order_no": "r", "payment_order_no": "later", "amount": 10}
    early = await worker.ask("refund", **members)
    assert isinstance(early, Refusal)
    assert early.code is Code.PAYMENT_BEING_SETTLED
    await worker.accounts.freeze(f"merchant:{merchant}:pending")
    await recover(worker)
    assert await worker.value("SELECT state FROM fund.orders WHERE order_no = 's'") == "refused"
    await worker.accounts.unfreeze(f"merchant:{merchant}:pending")
    refund = await worker.done("refund", **members)
    assert (refund.state, refund.from_pending, refund.fee) == (State.POSTED, 10, 0)
    settled = await worker.done("settlement", merchant=merchant, order_no="s2")
    assert (settled.amount, settled.fee) == (90, 9)
    assert await worker.of(merchant) == (90 + 81, 0, 0)


async def test_an_attempt_of_a_chargeback_that_is_not_inserted_is_not_posted(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account service is unavailable at the second read of the balance. Afterwards the balance suffices."""
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    look, looks = worker.posting.debitable, []

    async def debitable(of: str) -> int:
        looks.append(of)
        if len(looks) == 2:
            await worker.pay(merchant, "more", 1000)
            raise GatewayFault("cut")
        has = await look(of)
        if len(looks) == 1:
            await worker.done("withdrawal", merchant=merchant, order_no="w", amount=60, channel=f"c-{worker.salt}")
        return has

    monkeypatch.setattr(worker.posting, "debitable", debitable)
    await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=100)
    await recover(worker)
    assert looks == [merchant] * 3
    assert await worker.of(merchant) == (940, 0, 0)


async def test_the_second_of_two_concurrent_attempts_of_a_chargeback_is_not_posted(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    look, looks = worker.posting.debitable, []

    async def debitable(of: str) -> int:
        has = await look(of)
        looks.append(of)
        if len(looks) == 1:
            await worker.done("withdrawal", merchant=merchant, order_no="w", amount=60, channel=f"c-{worker.salt}")
        else:
            first = (
                """UPDATE fund.orders SET attempt = 1, voucher_id = $2, to_receivable = 70, mac = $3 WHERE id = $1"""
            )
            id_ = await worker.value("SELECT id FROM fund.orders WHERE kind = 'chargeback'")
            there = await read_order(worker.pool, id_)
            assert there is not None
            there.attempt, there.voucher_id, there.to_receivable = 1, voucher_id(id_, attempt=1), 70
            MACS.seal(there)
            await worker.pool.execute(first, id_, there.voucher_id, there.mac)
        return has

    monkeypatch.setattr(worker.posting, "debitable", debitable)
    await worker.done("chargeback", merchant=merchant, order_no="c", payment_order_no="p", amount=100)
    await recover(worker)
    assert await worker.of(merchant) == (10, 0, 70)


async def test_the_end_of_a_withdrawal_of_a_frozen_merchant_is_retried_until_it_is_unfrozen(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fundledger.fund.ending.END_AGAIN_S", 0.0)
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 50)
    order = await worker.done("withdrawal", merchant=merchant, order_no="w", amount=50, channel=f"c-{worker.salt}")
    await worker.accounts.freeze(f"merchant:{merchant}:available", "fraud?", "all")
    answer = await worker.batcher.end(order.id, "bounced", None, "no such account", "m")
    assert isinstance(answer, Taken)
    assert answer.order.state is State.POSTED
    await worker.recoverer.recover_some()
    assert await worker.value("SELECT attempt FROM fund.orders WHERE kind = 'withdrawal'") >= 1
    assert await worker.of(merchant) == (0, 0, 0)
    await worker.accounts.unfreeze(f"merchant:{merchant}:available")
    await recover(worker)
    assert await worker.value("SELECT state FROM fund.orders WHERE kind = 'withdrawal'") == "bounced"
    assert await worker.of(merchant) == (50, 0, 0)


async def test_while_the_account_service_is_slow_it_is_found_to_be_back(
    worker: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The account service answers within the time limit of a batch, but later than other batches wait for it."""
    monkeypatch.setattr("fundledger.fund.batcher.PROBE_S", 0.0)
    merchant = await worker.merchant()
    await worker.pay(merchant, "0", 1)
    worker.gateway.is_away = True
    assert (await worker.pay(merchant, "1", 10)).state is State.POSTED
    assert not worker.gateway.is_away
