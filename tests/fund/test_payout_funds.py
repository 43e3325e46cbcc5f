"""The withdrawals that a channel may pay out: its payout method, its overdraft, and the payouts that are under way."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.model.channel import Channel
from fundledger.fund.model.order import Kind, Order
from tests.fund.bank import Pool, here
from tests.support.fund_world import AT, an_order


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
    sent = """INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, due_at, outcome, mac_key, mac)
              VALUES ($1, $2, 50, 'CNY', now(), CASE WHEN $3::text IS NULL THEN now() END, $3, 1, 'x')"""
    await fund_pool.execute(sent, uuid4(), here.channel, "paid")
    assert await payable(fund_pool, withdrawals(60), {"bank:CNY": 100}) == ([60], set())
    await fund_pool.execute(sent, uuid4(), here.channel, None)
    assert await payable(fund_pool, withdrawals(60), {"bank:CNY": 100}) == ([], {"CNY"})
