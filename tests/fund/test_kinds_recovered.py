"""Orders of own money, suspense, disputes and merchants' money whose call was cut: each is posted once, and moves what it
says.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from fundledger.fund.model.answer import Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.requests import Fee
from tests.fund.test_recover import Cut, recover
from tests.support.currencies import unused_currency
from tests.support.fund_books import prove_fund
from tests.support.fund_worker import FundWorker
from tests.support.running import RunningService

CURRENCY = unused_currency()
CUTS = ("before", "after", "unrecorded")
Moves = dict[str, int]


@pytest.fixture
async def worker(fund_database: str, service: RunningService) -> AsyncIterator[FundWorker]:
    worker = FundWorker(fund_database, service.base_url, service.fund_token, wait_s=3.0)
    worker.gateway = Cut(worker.accounts)
    async with worker:
        yield worker
    await prove_fund(fund_database, service.dsn, worker.salt)


class World:
    """A merchant with 1,000 of one payment, a second merchant with nothing, and two banks of the platform."""

    def __init__(self, worker: FundWorker) -> None:
        self.worker = worker
        self.bank, self.other = f"a-{worker.salt}", f"b-{worker.salt}"

    async def open(self) -> None:
        self.m = await self.worker.merchant("m", CURRENCY, fee=Fee(fixed=50))
        self.n = await self.worker.merchant("n", CURRENCY)
        await self.worker.pay(self.m, "p", 1_050, currency=CURRENCY, channel=self.bank, channel_ref="p")

    def members(self, kind: str, number: str = "x", **more: Any) -> dict[str, Any]:
        named = {"order_no": f"{number}-{self.worker.salt}", "amount": 40, **more}
        if kind in (
            "own_transfer",
            "own_funds",
            "fee_sweep",
            "payable_payment",
            "suspense_clearing",
            "bank_difference",
        ):
            named["currency"] = CURRENCY
        else:
            named["merchant"] = self.m
        return {"kind": kind, **named}

    async def done(self, kind: str, number: str = "first", **more: Any) -> Order:
        return await self.worker.done(**self.members(kind, number, **more))

    async def balances(self) -> Moves:
        names = [f"merchant:{self.m}:{name}" for name in ("available", "receivable", "reserve", "disputed")]
        names += [f"merchant:{self.n}:available"]
        shared = ("transit:bank", "equity:own", "income:fee", "income:other", "suspense:over", "suspense:parked")
        banks = (f"bank:{self.bank}", f"bank:{self.other}", f"payable:{self.bank}")
        names += [f"{name}:{CURRENCY}" for name in (*shared, *banks)]
        return {name: await self.worker.balance(name) for name in names}

    def short(self, moves: Moves) -> Moves:
        """Return moves by short names, without those of 0."""
        names = {f"merchant:{self.m}:": "", f"merchant:{self.n}:": "other:", f":{CURRENCY}": ""}
        found = {}
        names |= {self.bank: "a", self.other: "b"}
        for account, amount in moves.items():
            name = account
            for long, short in names.items():
                name = name.replace(long, short)
            found[name] = amount
        return {name: amount for name, amount in found.items() if amount}


async def own_transfer(world: World) -> dict[str, Any]:
    return world.members("own_transfer", from_channel=world.bank, channel=world.other)


async def own_funds(world: World) -> dict[str, Any]:
    return world.members("own_funds", channel=world.bank, direction="in", reason="r")


async def fee_sweep(world: World) -> dict[str, Any]:
    return world.members("fee_sweep", channel=world.bank, reason="r")


async def payable_payment(world: World) -> dict[str, Any]:
    await world.done("dispute_fee", channel=world.bank, against="payable")
    return world.members("payable_payment", channel=world.bank)


async def suspense_clearing(world: World) -> dict[str, Any]:
    await world.done("bank_difference", channel=world.bank, direction="more", reason="r")
    return world.members("suspense_clearing", merchant=world.m, direction="more", against="merchant", reason="r")


async def parked_clearing(world: World) -> dict[str, Any]:
    await world.worker.accounts.freeze(f"merchant:{world.n}:available", "tests", "all")
    pay = {"currency": CURRENCY, "channel": world.bank, "channel_ref": "parked"}
    parked = await world.worker.pay(world.n, "parked", 40, **pay)
    assert parked.state is State.PARKED
    of = {"of_kind": "payment", "of_merchant": world.n, "of_order_no": "parked"}
    return {"kind": "parked_clearing", "order_no": f"x-{world.worker.salt}", "against": "income", "reason": "r", **of}


async def top_up(world: World) -> dict[str, Any]:
    return world.members("top_up", currency=CURRENCY, channel=world.bank, channel_ref="t")


async def transfer(world: World) -> dict[str, Any]:
    return world.members("transfer", to_merchant=world.n)


async def reserve_hold(world: World) -> dict[str, Any]:
    return world.members("reserve_hold")


async def reserve_release(world: World) -> dict[str, Any]:
    await world.done("reserve_hold")
    return world.members("reserve_release")


async def dispute(world: World) -> dict[str, Any]:
    return world.members("dispute", payment_order_no="p")


async def dispute_won(world: World) -> dict[str, Any]:
    order = await world.done("chargeback", payment_order_no="p")
    return world.members("dispute_won", chargeback_order_no=order.order_no)


async def dispute_fee(world: World) -> dict[str, Any]:
    return world.members("dispute_fee", channel=world.bank)


Prepare = Callable[[World], Awaitable[dict[str, Any]]]
MOVES: dict[Prepare, Moves] = {
    own_transfer: {"bank:a": -40, "transit:bank": 40},
    own_funds: {"bank:a": 40, "equity:own": 40},
    fee_sweep: {"bank:a": -40, "equity:own": -40},
    payable_payment: {"bank:a": -40, "payable:a": -40},
    suspense_clearing: {"available": 40, "suspense:over": -40},
    parked_clearing: {"income:other": 40, "suspense:parked": -40},
    top_up: {"available": 40, "bank:a": 40},
    transfer: {"available": -40, "other:available": 40},
    reserve_hold: {"available": -40, "reserve": 40},
    reserve_release: {"available": 40, "reserve": -40},
    dispute: {"available": -40, "disputed": 40},
    dispute_won: {"available": 40, "bank:a": 40},
    dispute_fee: {"available": -40, "bank:a": -40},
}
"""The moves of each order. A balance is that of the account's own side."""
ENDS: list[tuple[Prepare, str, Moves]] = [
    (own_transfer, "paid", {"transit:bank": -40, "bank:b": 40}),
    (own_transfer, "bounced", {"transit:bank": -40, "bank:a": 40}),
    (dispute, "won", {"disputed": -40, "available": 40}),
    (dispute, "lost", {"disputed": -40, "bank:a": -40}),
]


async def cut(worker: FundWorker, where: str, patch: pytest.MonkeyPatch, lost: str, do: Awaitable[Any]) -> Any:
    """Await a request while calls are cut `before` or `after` the account service, or the outcome is not recorded:
    `lost` is the function that records it.
    """

    async def gone(*_: object) -> None:
        raise asyncpg.ConnectionDoesNotExistError("gone")

    with patch.context() as broken:
        if where == "unrecorded":
            broken.setattr(lost, gone)
            return await do
        setattr(worker.gateway, where, True)
        try:
            return await do
        finally:
            setattr(worker.gateway, where, False)


@pytest.mark.parametrize("where", CUTS)
@pytest.mark.parametrize("prepare", MOVES, ids=lambda prepare: prepare.__name__)
async def test_an_order_whose_outcome_is_lost_is_posted_once(
    worker: FundWorker, prepare: Prepare, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(worker)
    await world.open()
    members = await prepare(world)
    before = await world.balances()
    lost = "fundledger.fund.store.orders.mark"
    answer = await cut(worker, where, monkeypatch, lost, worker.ask(**members))
    assert isinstance(answer, Taken), answer
    stored = "SELECT state FROM fund.orders WHERE id = $1"
    assert await worker.value(stored, answer.order.id) == "posting"
    await recover(worker)
    assert await worker.value(stored, answer.order.id) == "posted"
    for _ in range(2):
        after = await world.balances()
        assert world.short({name: after[name] - before[name] for name in before}) == MOVES[prepare]
        await worker.recoverer.recover_some()
        again = await worker.ask(**members)
        assert isinstance(again, Taken)
        assert again.replay
    if prepare is parked_clearing:
        assert await worker.value("SELECT state FROM fund.orders WHERE order_no = 'parked'") == "cleared"


@pytest.mark.parametrize("where", CUTS)
@pytest.mark.parametrize(("prepare", "ending", "moves"), ENDS, ids=[f"{row[0].__name__}-{row[1]}" for row in ENDS])
async def test_an_end_whose_outcome_is_lost_is_posted_once(
    worker: FundWorker, prepare: Prepare, ending: Any, moves: Moves, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(worker)
    await world.open()
    order = await worker.done(**await prepare(world))
    before = await world.balances()
    lost = "fundledger.fund.poster.Posting._mark_ended"
    ref = f"end-{worker.salt}" if ending in ("paid", "lost") else None
    answer = await cut(worker, where, monkeypatch, lost, worker.batcher.end(order.id, ending, ref, "r", "bank"))
    assert isinstance(answer, Taken), answer
    stored = "SELECT state FROM fund.orders WHERE id = $1"
    assert await worker.value(stored, order.id) == "posted"
    await recover(worker)
    assert await worker.value(stored, order.id) == ending
    after = await world.balances()
    assert world.short({name: after[name] - before[name] for name in before}) == moves
    settled = "SELECT refunded, charged_back, charged_back_unsettled FROM fund.payments WHERE order_id = $1"
    if prepare is dispute:
        row = await worker.pool.fetchrow(settled, order.of_order)
        assert tuple(row) == ((0, 0, 0) if ending == "won" else (0, 40, 0))
