"""Sums with MACs while orders of several workers change them: no update is lost, and no unedited row is a finding."""

import asyncio
import random
from typing import Any

import pytest

from fundledger.fund.jobs import sweep as sweeping
from fundledger.fund.jobs.sweep import FundSweep
from fundledger.fund.model.answer import OrderFault, Taken
from fundledger.fund.model.order import State
from fundledger.fund.model.requests import Fee
from tests.fund.test_sweep import age, left, nobody_else
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService

ORDERS = 200


@pytest.mark.parametrize("seed", range(2))
async def test_concurrent_orders_and_a_sweep_lose_no_update_and_find_nothing(
    fund_database: str, service: RunningService, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(sweeping, "AT_ONCE", 2)
    at = fund_database, service.base_url, service.fund_token
    async with FundWorker(*at) as first, FundWorker(*at, salt=first.salt) as second:
        channel = f"c-{first.salt}"
        merchants = [await first.merchant(name, fee=Fee(basis_points=100)) for name in ("m", "n")]
        for merchant in merchants:
            await first.pay(merchant, "now", 3_000)
            await first.pay(merchant, "later", 2_000, settle="later")
            await first.pay(merchant, "second", 1_000, settle="later")
            # This payment is never reversed, so that there is always something to settle.
            await first.pay(merchant, "kept", 1_000, settle="later")
            members = {"merchant": merchant, "amount": 10}
            await first.done("refund", **members, order_no="old", payment_order_no="now")
            await first.done("withdrawal", **members, order_no="old", channel=channel)
        await age(first)
        await second.start_worker()
        rng = random.Random(seed)
        answered = asyncio.Event()

        async def one(i: int) -> Any:
            worker = rng.choice([first, second])
            merchant = rng.choice(merchants)
            kind = rng.choice(["refund", "refund", "withdrawal", "chargeback", "settlement", "reversal"])
            members: dict[str, Any] = {"merchant": merchant, "order_no": f"{i}"}
            payment = rng.choice(["now", "later", "second"])
            if kind in {"refund", "chargeback"}:
                members |= {"payment_order_no": payment, "amount": rng.randint(1, 90)}
            elif kind == "withdrawal":
                # Some exceed the balance, and are released while others reserve.
                members |= {"channel": channel, "amount": rng.choice([1, 7, 20, 100_000])}
            elif kind == "settlement":
                members |= {"amount": rng.choice([None, 1, 50])}
            else:
                members |= {"of_kind": "payment", "of_order_no": payment, "reason": "r"}
            answer = await worker.ask(kind, **members)
            if isinstance(answer, Taken) and answer.order.state is State.POSTED and kind == "withdrawal":
                ending = rng.choice(["paid", "bounced", None])
                if ending is not None:
                    await rng.choice([first, second]).batcher.end(answer.order.id, ending, None, "r", "m")
            return answer

        async def sweeps(worker: FundWorker) -> None:
            while (await FundSweep(worker.pool, worker.posting).step(nobody_else))[1] and not answered.is_set():
                pass

        runs = [asyncio.ensure_future(sweeps(worker)) for worker in (first, second)]
        answers = await asyncio.gather(*(one(i) for i in range(ORDERS)))
        # While debts are undecided, every large withdrawal may be refused before it is an order. This one is one.
        large = {"merchant": merchants[0], "order_no": "large", "amount": 100_000, "channel": channel}
        answers.append(await first.ask("withdrawal", **large))
        answered.set()
        await asyncio.gather(*runs)
        sweep = FundSweep(first.pool, first.posting)
        while (await sweep.step(nobody_else))[1]:
            pass
        taken = {(str(a.order.kind), str(a.order.state)) for a in answers if isinstance(a, Taken)}
        assert taken >= {("refund", "posted"), ("chargeback", "posted"), ("withdrawal", "posted")}
        assert taken >= {("settlement", "posted"), ("withdrawal", "refused")}
        assert [answer for answer in answers if isinstance(answer, OrderFault)] == []
        for worker in (first, second):
            assert worker.macs._found == []
        assert await left(first) == {}
        assert await first.value("SELECT count(*) FROM fund.orders WHERE state = 'posting'") == 0
    await prove_fund(fund_database, service.dsn, first.salt)
