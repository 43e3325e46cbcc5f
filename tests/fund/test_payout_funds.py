"""The withdrawals that a channel may pay out: its payout method, its overdraft, and the payouts that are under way."""

from collections.abc import Mapping, Sequence
from datetime import date
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.channels.channel import ChannelAway, Payout, Standing, StatementLine
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.jobs.payout_sending import Pace
from fundledger.fund.jobs.payouts import Payouts
from fundledger.fund.model.bank_account import BankAccount
from fundledger.fund.model.change import Change, ChangeKind, ChangeState
from fundledger.fund.model.channel import Channel
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.store.channels import Channels
from fundledger.fund.store.macs import open_macs
from tests.fund.bank import Pool, here
from tests.support.fund_ids import KEYS
from tests.support.fund_worker import FundWorker
from tests.support.fund_world import AT, an_order, write


class Registered:
    """A registry with one channel in CNY and USD."""

    names = ()

    def __init__(self, **terms: Any) -> None:
        self.terms = terms

    def known(self, name: str, currency: str) -> Channel | None:
        terms = {"payout": "http", "references_unique": False, "overdraft": 0, "state": "open", **self.terms}
        return Channel(name, currency, f"bank:{currency}", registered_by="tests", created_at=AT, **terms)

    async def get(self, name: str, currency: str) -> Channel | None:
        return None if name == "unknown" else self.known(name, currency)

    async def look(self) -> None:
        """Read nothing: the channel does not change."""


class Banks:
    """The balances of bank accounts. None: the account service does not answer."""

    def __init__(self, balances: Mapping[str, int] | None) -> None:
        self.posted = balances

    async def balances(self, ids: Sequence[str]) -> dict[str, Any]:
        if self.posted is None:
            raise GatewayFault("away")
        return {
            id_: SimpleNamespace(balance=SimpleNamespace(posted=self.posted[id_])) for id_ in ids if id_ in self.posted
        }


def withdrawals(*amounts: int, currency: str = "CNY") -> list[Order]:
    return [an_order(Kind.WITHDRAWAL, str(i), amount, currency=currency) for i, amount in enumerate(amounts)]


async def payable(
    pool: Pool, orders: list[Order], balances: Mapping[str, int] | None, **terms: Any
) -> tuple[list[int], set[str]]:
    name = terms.pop("name", here.channel)
    funds = PayoutFunds(pool, Banks(balances), Registered(**terms))  # type: ignore[arg-type]
    found, barred = await funds.payable(name, orders)
    return [order.amount for order in found], barred


async def test_a_channel_pays_out_what_its_bank_account_holds_in_sequence(fund_pool: Pool) -> None:
    orders = withdrawals(60, 40, 20, 5)
    assert await payable(fund_pool, orders, {"bank:CNY": 110}) == ([60, 40], {"CNY"})
    assert await payable(fund_pool, orders, {"bank:CNY": 110}, overdraft=10) == ([60, 40, 20], {"CNY"})
    assert await payable(fund_pool, orders, {"bank:CNY": 110}, overdraft=15) == ([60, 40, 20, 5], set())
    assert await payable(fund_pool, orders, {"bank:CNY": -10}, overdraft=None) == ([60, 40, 20, 5], set())
    assert await payable(fund_pool, orders, {}) == ([], {"CNY"})


async def test_an_exhausted_currency_does_not_stop_another_one(fund_pool: Pool) -> None:
    orders = [*withdrawals(60), *withdrawals(7, currency="USD")]
    assert await payable(fund_pool, orders, {"bank:CNY": 59, "bank:USD": 7}) == ([7], {"CNY"})


@pytest.mark.parametrize("payout", ["file", "manual"])
async def test_a_channel_that_a_person_operates_pays_nothing_out(fund_pool: Pool, payout: str) -> None:
    assert await payable(fund_pool, withdrawals(1), {"bank:CNY": 9}, payout=payout) == ([], {"CNY"})


async def test_nothing_is_paid_out_through_an_unknown_channel_or_without_a_balance(fund_pool: Pool) -> None:
    assert await payable(fund_pool, withdrawals(1), {"bank:CNY": 9}, name="unknown") == ([], {"CNY"})
    assert await payable(fund_pool, withdrawals(1), None) == ([], {"CNY"})


async def test_a_payout_that_is_under_way_counts_until_it_has_ended(fund_pool: Pool) -> None:
    def sent(state: State) -> Order:
        return an_order(Kind.WITHDRAWAL, f"{here.channel}-{state}", 50, state, channel=here.channel)

    async with fund_pool.acquire() as connection:
        await write(connection, [sent(State.PAID)])  # type: ignore[arg-type]
        assert await payable(fund_pool, withdrawals(60), {"bank:CNY": 100}) == ([60], set())
        await write(connection, [sent(State.SENT)])  # type: ignore[arg-type]
        assert await payable(fund_pool, withdrawals(60), {"bank:CNY": 100}) == ([], {"CNY"})


async def test_a_change_of_a_channel_takes_effect_in_the_next_run(fund_database: str) -> None:
    """The job keeps channels in memory, as a worker does. Otherwise a person and the job could send one payout each."""
    async with asyncpg.create_pool(fund_database, min_size=1, max_size=1) as pool:
        macs = await open_macs(pool, KEYS)
        channels = Channels(pool, macs, {"c": False})
        funds = PayoutFunds(pool, Banks({"bank:c": 100}), channels)  # type: ignore[arg-type]
        assert await channels.get("c", "CNY") is not None
        assert (await funds.payable("c", withdrawals(60)))[1] == set()
        assert await funds.is_sent_by_service("c", "CNY")
        for patch, left_out in (({"overdraft": 0}, set()), ({"payout": "manual"}, {"CNY"})):
            body = msgspec.json.encode({"currency": "CNY", **patch})
            change = Change(uuid4(), ChangeKind.CHANNEL, "c CNY", body, ChangeState.WAITING, "tests", AT)
            async with pool.acquire() as connection, connection.transaction():
                assert await channels.apply(connection, change) is None
            assert await funds.is_sent_by_service("c", "CNY") is ("payout" not in patch)
            assert (await funds.payable("c", withdrawals(60)))[1] == left_out
            assert (await funds.payable("c", withdrawals(101)))[1] == {"CNY"}


class Lost:
    """A channel that is away when it is asked to pay, and later reports that it has no such payout."""

    def __init__(self) -> None:
        self.asked = 0

    async def pay_out(self, ref: str, amount: int, currency: str, payee: BankAccount | None = None) -> Payout:
        self.asked += 1
        raise ChannelAway("away")

    async def query(self, ref: str) -> Payout:
        return Payout(Standing.ABSENT)

    async def statement(self, day: date) -> list[StatementLine]:
        return []


async def test_a_payout_is_not_sent_again_after_its_channel_was_given_to_a_person(worker: FundWorker) -> None:
    name, channel, terms = f"c-{worker.salt}", Lost(), {"overdraft": None, "payout": "http"}
    merchant = await worker.merchant()
    await worker.pay(merchant, "p", 100)
    await worker.done("withdrawal", merchant=merchant, order_no="w", amount=60, channel=name)
    registry = Registered()
    registry.terms = terms
    funds = PayoutFunds(worker.pool, worker.gateway, registry)
    job = Payouts(worker.pool, worker.batcher, {name: channel}, Pace(rate=10_000, again_s=0.0), funds)
    await job.pay_out_some()
    assert channel.asked == 1
    for payout, asked in (("manual", 1), ("http", 2)):
        terms["payout"] = payout
        await worker.value("UPDATE fund.payouts SET due_at = clock_timestamp()")
        await job.pay_out_some()
        assert channel.asked == asked
