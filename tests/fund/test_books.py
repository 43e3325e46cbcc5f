"""The proof of the fund service and the ledger while orders of many kinds are being processed."""

import asyncio
import itertools

from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import State
from fundledger.fund.model.requests import Fee
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import MODULE, FundWorker
from tests.support.running import RunningService


async def test_what_goes_on_while_it_is_proved_is_no_finding(fund_database: str, service: RunningService):
    """Orders are accepted, refused, released, ended and reversed meanwhile. No intermediate state is a finding."""
    async with FundWorker(fund_database, service.base_url, service.fund_token) as worker:
        merchant = await worker.merchant(fee=Fee(basis_points=100))
        channel = f"c-{worker.salt}"
        await worker.pay(merchant, "first", 10_000)
        stop = asyncio.Event()
        numbers = itertools.count()

        async def go_on() -> None:
            while not stop.is_set():
                no = str(next(numbers))
                await worker.pay(merchant, no, 100, settle="later" if int(no) % 2 else "now")
                members = {"merchant": merchant, "order_no": no}
                await worker.ask("refund", payment_order_no=no, amount=30, **members)
                await worker.ask("withdrawal", amount=100_000, channel=channel, **members)
                await worker.ask("settlement", **members)
                taken = await worker.ask("withdrawal", amount=10, channel=channel, **{**members, "order_no": f"{no}w"})
                if isinstance(taken, Taken) and taken.order.state is State.POSTED:
                    ending = "paid" if int(no) % 3 else "bounced"
                    await worker.batcher.end(taken.order.id, ending, None, None, MODULE)
                await worker.pay(merchant, f"{no}x", 10)
                reversal = {"of_kind": "payment", "of_order_no": f"{no}x", "reason": "r"}
                await worker.ask("reversal", **{**members, "order_no": f"{no}r"}, **reversal)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(go_on())
            try:
                proofs = [await prove_fund(fund_database, service.dsn, worker.salt) for _ in range(6)]
            finally:
                stop.set()
        # On a slow machine, an order may have got no outcome in time.
        await worker.recoverer.recover_some()
    last = await prove_fund(fund_database, service.dsn, worker.salt)
    assert proofs[0].orders < last.orders
    assert last.by_kind["withdrawal"].refused > 0
    for kind in last.by_kind.values():
        assert kind.in_flight == 0
