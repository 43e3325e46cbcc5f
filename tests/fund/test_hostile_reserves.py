"""Rolling reserves and reserve holds that are attacked: lost answers, races, frozen accounts and late days."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from fundledger.fund import account_gateway as gateway
from fundledger.fund import rolling
from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.change import ChangeKind
from fundledger.fund.model.change_requests import MerchantPatch
from fundledger.fund.model.merchant import Rolling
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.rolling import days_of
from fundledger.fund.store.queries import SQL
from tests.fund.test_rolling_reserves import RULE, close, code, holds, job, release, reserve, state, today, withdraw
from tests.support.database import Databases
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService
from tests.support.tampering import any_state


@pytest.fixture
async def own(postgres: Databases, service: RunningService) -> AsyncIterator[FundWorker]:
    """Return a worker with a fund database of its own. Callers wait 0.3 s for an outcome."""
    dsn = await postgres.new_fund()
    async with FundWorker(dsn, service.base_url, service.fund_token, wait_s=0.3) as worker:
        yield worker
    await postgres.drop(dsn)


class Lost:
    """The link to the account service, on which the vouchers of some kinds get no answer. `posts`: they are posted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kind: Kind, *, posts: bool = False) -> None:
        self.on = True
        real = AccountGateway.post

        async def post(to: AccountGateway, orders: Any) -> Any:
            if self.on and any(order.kind is kind for order in orders):
                if posts:
                    await real(to, orders)
                raise GatewayFault("lost", is_answer=True)
            return await real(to, orders)

        monkeypatch.setattr(AccountGateway, "post", post)


# --- Holds without an outcome ---------------------------------------------------------------------------------------


async def test_a_hold_without_an_outcome_lets_no_money_leave(own: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant, other = await own.merchant(**RULE), await own.merchant("other")
    await own.pay(merchant, "p", 1_000)
    link = Lost(monkeypatch, Kind.RESERVE_HOLD)
    for _ in range(2):
        assert isinstance(await withdraw(own, merchant, "w", 1_000), OrderFault)
    transfer = {"merchant": merchant, "to_merchant": other, "order_no": "t", "amount": 1_000}
    assert isinstance(await own.ask("transfer", **transfer), OrderFault)
    assert await own.of(merchant) == (1_000, 0, 0)
    link.on = False
    await own.recoverer.recover_some()
    assert state(await withdraw(own, merchant, "w", 1_000)) is State.REFUSED
    assert (await reserve(own, merchant), await holds(own, merchant)) == (100, [(f"auto-{today()}-1", 100)])


async def test_a_hold_of_the_job_without_an_outcome_lets_no_money_leave(
    own: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    own.days_back = -1
    link = Lost(monkeypatch, Kind.RESERVE_HOLD)
    await job(own).run_some()
    assert isinstance(await withdraw(own, merchant, "w", 1_000), OrderFault)
    link.on = False
    # The orders of this worker are due tomorrow.
    await own.pool.execute("UPDATE fund.orders SET due_at = now() WHERE due_at IS NOT NULL")
    await own.recoverer.recover_some()
    assert state(await withdraw(own, merchant, "w", 1_000)) is State.REFUSED


async def test_a_stuck_hold_lets_no_money_leave(own: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    real = gateway.voucher_of

    def voucher_of(order: Order) -> Any:
        if order.kind is Kind.RESERVE_HOLD:
            raise KeyError("kind")
        return real(order)

    with monkeypatch.context() as broken:
        broken.setattr(gateway, "voucher_of", voucher_of)
        answers = [await withdraw(own, merchant, f"w{n}", 1_000) for n in range(2)]
    assert [isinstance(answer, OrderFault) for answer in answers] == [True, True]
    stuck = await own.value("SELECT id FROM fund.orders WHERE state = 'stuck'")
    assert isinstance(await own.batcher.retry(stuck, "tester"), Taken)
    assert state(await withdraw(own, merchant, "w", 900)) is State.POSTED


async def test_a_slow_hold_is_shared_by_concurrent_withdrawals(
    own: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    posting, go_on = asyncio.Event(), asyncio.Event()
    real = AccountGateway.post

    async def post(to: AccountGateway, orders: Any) -> Any:
        if any(order.kind is Kind.RESERVE_HOLD for order in orders):
            posting.set()
            await go_on.wait()
        return await real(to, orders)

    monkeypatch.setattr(AccountGateway, "post", post)
    own.batcher._wait_s = 30.0
    first = asyncio.create_task(withdraw(own, merchant, "w1", 1))
    await posting.wait()
    second = asyncio.create_task(withdraw(own, merchant, "w2", 1_000))
    go_on.set()
    assert (state(await first), state(await second)) == (State.POSTED, State.REFUSED)
    assert (await reserve(own, merchant), len(await holds(own, merchant))) == (100, 1)


# --- Traffic --------------------------------------------------------------------------------------------------------


async def test_withdrawals_succeed_while_payments_arrive(own: FundWorker, service: RunningService) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 100_000)
    own.batcher._wait_s = 30.0
    done = asyncio.Event()

    async def pay(payer: int) -> int:
        paid = 0
        while not done.is_set():
            await own.pay(merchant, f"{payer}-{paid}", 1_000)
            paid += 1
        return paid

    payers = [asyncio.create_task(pay(n)) for n in range(3)]
    async with FundWorker(own.dsn, service.base_url, service.fund_token, salt=own.salt, wait_s=30.0) as other:
        asked = [withdraw((own, other)[n % 2], merchant, f"w{n}", 10) for n in range(40)]
        answers = [await answer for answer in asked[:10]] + await asyncio.gather(*asked[10:])
    done.set()
    paid = sum(await asyncio.gather(*payers))
    assert paid > 0
    assert {str(state(answer)) for answer in answers} == {"posted"}
    assert state(await withdraw(own, merchant, "rest", None)) is State.POSTED
    assert (await reserve(own, merchant), await own.of(merchant)) == (10_000 + 100 * paid, (0, 0, 0))


async def test_a_payment_that_is_posted_and_not_recorded_is_held(
    own: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await own.merchant(**RULE)
    link = Lost(monkeypatch, Kind.PAYMENT, posts=True)
    assert (await own.pay(merchant, "p", 1_000)).state is State.POSTING
    link.on = False
    answer = await withdraw(own, merchant, "w", None)
    assert (answer.order.amount, await reserve(own, merchant)) == (900, 100)


async def test_a_payment_counts_until_its_reversal_is_posted(own: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    await own.debit(merchant, "d", 1)
    link = Lost(monkeypatch, Kind.REVERSAL)
    members = {"of_kind": "payment", "of_order_no": "p", "reason": "x"}
    assert (await own.done("reversal", merchant=merchant, order_no="r", **members)).state is State.POSTING
    await close(own, today())
    own.days_back = -1
    await job(own).run_some()
    assert await reserve(own, merchant) == 100
    link.on = False
    await own.recoverer.recover_some()
    assert state(await withdraw(own, merchant, "w", 900)) is State.REFUSED


# --- Refusals -------------------------------------------------------------------------------------------------------


async def test_a_reserve_that_takes_nothing_stops_withdrawals_without_orders(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    assert state(await withdraw(own, merchant, "w", 10)) is State.POSTED
    await own.pay(merchant, "p2", 1_000)
    await own.accounts.freeze(f"merchant:{merchant}:reserve", "tests", "all")
    assert isinstance(await withdraw(own, merchant, "w2", 10), OrderFault)
    own.days_back = -1
    for _ in range(3):
        await job(own).run_some()
    assert len(await holds(own, merchant)) == 1
    # A repeated request is answered, whatever the reserve takes.
    own.days_back = 0
    assert state(await withdraw(own, merchant, "w", 10)) is State.POSTED
    await own.accounts.unfreeze(f"merchant:{merchant}:reserve")
    assert state(await withdraw(own, merchant, "w2", 10)) is State.POSTED


async def test_a_hold_that_is_refused_although_the_balance_covers_it_is_asked_once(
    own: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    asked = []
    real = own.batcher.rolling._ask

    async def ask(request: Any, module: str) -> Any:
        answer = await real(request, module)
        asked.append(request.order_no)
        answer.order.state, answer.order.problem = State.REFUSED, b'{"detail": "made up"}'
        return answer

    monkeypatch.setattr(own.batcher.rolling, "_ask", ask)
    answer = await withdraw(own, merchant, "w", 10)
    assert isinstance(answer, OrderFault) and "made up" in answer.detail
    assert len(asked) == 1


async def test_a_repeated_withdrawal_needs_no_account_service(own: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    assert state(await withdraw(own, merchant, "w", 10)) is State.POSTED
    await own.pay(merchant, "p2", 1_000)

    async def away(*_: Any) -> Any:
        raise GatewayFault("away")

    monkeypatch.setattr(own.gateway, "balances", away)
    assert state(await withdraw(own, merchant, "w", 10)) is State.POSTED


async def test_a_refused_withdrawal_of_a_suspended_merchant_holds_nothing(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    assert await own.changes.suspend(merchant, "looked at", "tests") is True
    await own.merchants.look()
    assert code(await withdraw(own, merchant, "w", 10)) is Code.MERCHANT_SUSPENDED
    assert await holds(own, merchant) == []


async def test_a_release_of_an_amount_does_not_count_on_a_dated_hold_in_progress(
    own: FundWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    merchant = await own.merchant()
    await own.pay(merchant, "p", 1_000)
    link = Lost(monkeypatch, Kind.RESERVE_HOLD)
    dated = {"order_no": "dated", "amount": 100, "release_on": today()}
    assert (await own.done("reserve_hold", merchant=merchant, **dated)).state is State.POSTING
    assert code(await release(own, merchant, "r", amount=30)) is Code.RESERVE_EXCEEDED
    link.on = False
    await own.recoverer.recover_some()
    assert await job(own).run_some() == (1, 0.0)
    assert (await reserve(own, merchant), await own.of(merchant)) == (0, (1_000, 0, 0))


async def test_one_slow_merchant_blocks_no_other(own: FundWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, good = await own.merchant("a", **RULE), await own.merchant("b", **RULE)
    for each in (bad, good):
        await own.pay(each, "p", 1_000)
    real = rolling.credits_of

    async def credits_of(connection: Any, days: Any, merchant: str, day: date) -> int:
        if merchant == bad:
            raise TimeoutError
        return await real(connection, days, merchant, day)

    monkeypatch.setattr(rolling, "credits_of", credits_of)
    own.days_back = -1
    await job(own).run_some()
    assert (await reserve(own, bad), await reserve(own, good)) == (0, 100)


# --- Days -----------------------------------------------------------------------------------------------------------


async def test_a_day_that_is_closed_late_is_held_when_it_has_ended(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    own.days_back = -8
    await job(own).run_some()
    await close(own, today())
    assert await reserve(own, merchant) == 100


def test_open_days_are_looked_at_for_longer_than_closed_ones() -> None:
    day, rule = timedelta(days=1), Rolling(1, 1, date(2026, 1, 1))
    now = date(2026, 6, 30)
    assert days_of(rule, now, now - day)[0] == now - 7 * day
    assert days_of(rule, now, now - 20 * day)[0] == now - 19 * day
    assert days_of(rule, now, now - 90 * day)[0] == days_of(rule, now, None)[0] == now - 60 * day
    assert days_of(Rolling(1, 1, now), now, None) == [now]
    assert days_of(Rolling(1, 1, now + day), now, None) == []


async def test_another_rule_completes_the_days_before_it(own: FundWorker) -> None:
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    own.changes._now = lambda: datetime.now(UTC) + timedelta(days=1)
    patch = MerchantPatch(rolling_basis_points=2_000, rolling_days=31)
    await own.approved(ChangeKind.MERCHANT, merchant, patch)
    await own.merchants.look()
    own.days_back = -1
    assert state(await withdraw(own, merchant, "w", 801)) is State.REFUSED
    assert await reserve(own, merchant) == 200


async def test_a_refusal_names_no_other_member(own: FundWorker) -> None:
    answer = await release(own, await own.merchant(), "r", amount=1)
    assert isinstance(answer, Refusal)
    assert (answer.code, answer.field, answer.detail) == (
        *(Code.RESERVE_EXCEEDED, "amount"),
        "0 is held without a release day",
    )


# --- Large tables ---------------------------------------------------------------------------------------------------


async def test_the_credits_of_a_day_are_found_by_an_index(own: FundWorker) -> None:
    """The statement reads only the payments of the last two days, also by a plan that does not know the merchant."""
    merchant = await own.merchant(**RULE)
    await own.pay(merchant, "p", 1_000)
    listed = """SELECT string_agg(attname, ', ') FROM pg_attribute
                WHERE attrelid = 'fund.orders'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'seq'"""
    names = (await own.value(listed)).split(", ")
    made = {
        "id": "gen_random_uuid()",
        "voucher_id": "gen_random_uuid()",
        "order_no": "'x' || n",
        "created_at": "now() - (40001 - n) * interval '40 days' / 40000",
        "posted_at": "now() - (40001 - n) * interval '40 days' / 40000",
    }
    values = ", ".join(made.get(name, f"o.{name}") for name in names)
    async with any_state(own.pool) as fund:
        await fund.execute("SET session_replication_role = replica")
        await fund.execute(
            f"INSERT INTO fund.orders ({', '.join(names)}) SELECT {values} FROM fund.orders o, generate_series(1, 40000) n"
        )
        await fund.execute("SET session_replication_role = origin")
    await own.pool.execute("ANALYZE fund.orders")
    begins = own.macs.days.beginning_of(today())
    async with own.pool.acquire() as connection:
        await connection.execute("SET plan_cache_mode = force_generic_plan")
        explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + SQL["reserve_credits"]
        (plan,) = await connection.fetchrow(explain, merchant, begins, begins + timedelta(days=1))
    assert "seq" in plan
    read = [int(part.split(",")[0].split("\n")[0]) for part in plan.split('"Shared Hit Blocks": ')[1:2]]
    assert read[0] < 1_000, plan
