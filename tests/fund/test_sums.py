"""Sums from before rows had MACs: a sum is accepted if it equals that of its orders, until the sweep is complete."""

from collections.abc import AsyncIterator
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from fundledger.fund.model.order import Kind, State
from fundledger.fund.store import sums
from fundledger.fund.store.mac_layouts import Day, Progress, is_of
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.queries import SQL
from tests.fund.bank import Pool, an_order
from tests.fund.test_reserve import AT, World
from tests.support.fund_ids import KEYS, MACS
from tests.support.fund_world import an_order as fund_order

Row = dict[str, Any]
NO_MAC: Row = {"mac_key": 0, "mac": b""}
TODAY = AT.date()
YESTERDAY = TODAY - timedelta(days=1)


def unswept() -> OrderMacs:
    """Return the MACs object for a database that may have rows without a MAC."""
    return OrderMacs(KEYS, None, 1 << 40)


class Sums(World):
    """Payments with refunds, chargebacks, settlements and a reversal, and two days of withdrawals."""

    payments: dict[str, UUID]
    refund_id: UUID
    charge_id: UUID
    withdrawal_id: UUID

    async def fill(self) -> None:
        names = ("both", "now", "reversed", "untouched")
        numbers = {name: await self.payment(100, 10, tax=8, settled=None if name == "now" else 0) for name in names}
        self.payments = {name: self.id_of(number) for name, number in numbers.items()}
        days = [self.withdraw(7), self.withdraw(8), self.withdraw(5, at=AT - timedelta(days=1))]
        assert await self.codes(*days) == [None] * 3
        refunds = [self.refund(numbers["both"], 30), self.refund(numbers["now"], 20), self.refund(numbers["now"], 10)]
        charges = [self.charge_back(numbers["both"], 20), self.charge_back(numbers["now"], 5)]
        assert await self.codes(*refunds, *charges, self.reverse(numbers["reversed"])) == [None] * 6
        assert await self.codes(self.draft(Kind.SETTLEMENT, amount=40)) == [None]
        self.refund_id, self.charge_id = refunds[0].order.id, charges[0].order.id
        for order in (refunds[1].order, charges[0].order):
            order.state, order.posted_at = State.POSTED, AT
            MACS.seal(order)
            marked = "UPDATE fund.orders SET state = 'posted', posted_at = $2, mac = $3 WHERE id = $1"
            await self.connection.execute(marked, order.id, AT, order.mac)
        refused = {"merchant": self.name, "of_order": self.payments["both"], "problem": "{}", "posted_at": None}
        for kind in ("refund", "chargeback", "reversal"):
            await an_order(self.connection, kind, 9, "refused", order_no=f"no-{kind}-{self.name}", **refused)
        for state, ending in (("refused", None), ("bounced", "bounced")):
            columns = {"merchant": self.name, "created_at": AT, "problem": "{}" if ending is None else None}
            await an_order(
                self.connection, "withdrawal", 9, state, order_no=f"{state}-{self.name}", ending=ending, **columns
            )
        self.withdrawal_id = days[0].order.id
        # The payments of this test have other numbers than their orders.
        await self.connection.execute(
            "UPDATE fund.payments p SET seq = o.seq FROM fund.orders o WHERE o.id = p.order_id AND p.merchant = $1",
            self.name,
        )

    async def old_payments(self) -> dict[str, Row]:
        """Return the rows of payments, without MACs."""
        rows = await self.connection.fetch(SQL["lock_payments"], list(self.payments.values()))
        by_id = {row["order_id"]: {**row, **NO_MAC} for row in rows}
        return {name: by_id[id_] for name, id_ in self.payments.items()}

    async def old_days(self) -> dict[date, Row]:
        rows = await self.connection.fetch(SQL["lock_withdrawal_days"], [self.name] * 2, [TODAY, YESTERDAY])
        return {row["day"]: {**row, **NO_MAC} for row in rows}

    async def good(self, rows: dict[str, Row], macs: OrderMacs | None = None) -> set[str]:
        """Return the names of the payments whose rows are accepted. Assert that all others are refused."""
        good, bad = await sums.verified(self.connection, macs or unswept(), list(rows.values()))
        assert {*good} ^ bad == {row["order_id"] for row in rows.values()}
        assert not {*good} & bad
        return {name for name, row in rows.items() if row["order_id"] in good}

    async def good_days(self, rows: dict[date, Row], macs: OrderMacs | None = None) -> dict[Day, int]:
        good, bad = await sums.verified_days(self.connection, macs or unswept(), list(rows.values()))
        assert {*good} ^ bad == {(row["merchant"], row["day"]) for row in rows.values()}
        assert not {*good} & bad
        return dict(good)

    async def edit(self, id_: UUID) -> None:
        await self.connection.execute("UPDATE fund.orders SET module = 'thief' WHERE id = $1", id_)


@pytest.fixture
async def world(fund_pool: Pool) -> AsyncIterator[Sums]:
    async with fund_pool.acquire() as connection:
        world = Sums(connection)
        await world.fill()
        yield world


async def test_the_sums_of_payments_are_those_of_their_orders(world: Sums) -> None:
    rows = await world.old_payments()
    found = await sums.payments_by_orders(world.connection, MACS, list(world.payments.values()))
    assert {id_: progress.fields() for id_, progress in found.items()} == {
        row["order_id"]: sums.progress_of(row).fields() for row in rows.values()
    }
    sums_of = {name: msgspec.structs.astuple(found[id_])[5:] for name, id_ in world.payments.items()}
    assert sums_of == {
        "both": (40, 4, 30, 30, 5, 0, 20, 20, False, 8, 3, 0, None),
        "now": (100, 10, 30, 0, 0, 3, 5, 0, False, 8, 8, 1, None),
        "reversed": (0, 0, 0, 0, 0, 0, 0, 0, True, 8, 0, 0, None),
        "untouched": (0, 0, 0, 0, 0, 0, 0, 0, False, 8, 0, 0, None),
    }
    assert await world.good(rows) == set(rows)
    assert await world.good(rows, MACS) == set()


@pytest.mark.parametrize(
    "column", [name for name in Progress.__struct_fields__ if name not in ("order_id", "merchant")]
)
async def test_an_old_sum_that_differs_from_its_orders_is_refused(world: Sums, column: str) -> None:
    rows = await world.old_payments()
    row = rows["both"]
    if column == "settle_on":
        row[column] = TODAY
    else:
        row[column] = not row[column] if column == "reversed" else row[column] + 1
    assert await world.good(rows) == set(rows) - {"both"}


async def test_a_sum_with_a_mac_is_verified_by_it_alone(world: Sums) -> None:
    rows = await world.old_payments()
    tagged = {"mac_key": 1, "mac": MACS.rows.tag(sums.PAYMENT, sums.payment_fields(rows["both"]))[1]}
    edited = {**rows["now"], "mac_key": 1, "mac": bytes(32)}
    mixed = {**rows, "both": {**rows["both"], **tagged}, "now": edited}
    assert await world.good(mixed) == set(rows) - {"now"}
    assert await world.good(mixed, MACS) == {"both"}


@pytest.mark.parametrize("order", ["payment", "refund", "chargeback", "reversal"])
async def test_an_old_sum_is_refused_if_one_of_its_orders_was_edited(world: Sums, order: str) -> None:
    """The sum was also edited, so that it does not contain the order."""
    rows = await world.old_payments()
    about = "reversed" if order == "reversal" else "both"
    if order == "payment":
        await world.edit(world.payments["both"])
    elif order == "reversal":
        await world.edit(
            await world.connection.fetchval(
                "SELECT id FROM fund.orders WHERE kind = 'reversal' AND of_order = $1", world.payments["reversed"]
            )
        )
        rows["reversed"]["reversed"] = False
    elif order == "refund":
        await world.edit(world.refund_id)
        rows["both"] |= {"refunded": 0, "refunded_unsettled": 0, "fee_waived": 2, "fee_returned": 0}
    else:
        await world.edit(world.charge_id)
        rows["both"] |= {"charged_back": 0, "charged_back_unsettled": 0, "fee_waived": 3}
    assert await world.good(rows) == set(rows) - {about}


@pytest.mark.parametrize("state", ["posting", "refused"])
async def test_a_payment_that_was_not_posted_has_no_sum(world: Sums, state: str) -> None:
    number = await world.payment(
        10, settled=0, state=state, posted_at=None, problem="{}" if state == "refused" else None
    )
    (row,) = await world.connection.fetch(SQL["lock_payments"], [world.id_of(number)])
    seq = await world.connection.fetchval("SELECT seq FROM fund.orders WHERE id = $1", world.id_of(number))
    assert await world.good({number: {**row, **NO_MAC, "seq": seq}}) == set()


async def test_the_sums_of_days_are_those_of_their_withdrawals(world: Sums) -> None:
    rows = await world.old_days()
    expected = {(world.name, TODAY): 15, (world.name, YESTERDAY): 5}
    other = (world.name, TODAY + timedelta(days=1))
    found = await sums.days_by_orders(world.connection, MACS, [*expected, other])
    assert found == {**expected, other: 0}
    assert await world.good_days(rows) == expected
    assert await world.good_days(rows, MACS) == {}
    rows[TODAY]["amount"] += 1
    assert await world.good_days(rows) == {(world.name, YESTERDAY): 5}
    rows[YESTERDAY] |= {"mac_key": 1, "mac": bytes(32)}
    assert await world.good_days(rows) == {}


@pytest.mark.parametrize("amount", [15, 8])
async def test_the_sum_of_a_day_is_refused_if_one_of_its_withdrawals_was_edited(world: Sums, amount: int) -> None:
    """The sum (8) was also edited, so that it does not contain the withdrawal."""
    rows = await world.old_days()
    await world.edit(world.withdrawal_id)
    rows[TODAY]["amount"] = amount
    assert await world.good_days(rows) == {(world.name, YESTERDAY): 5}


async def test_a_day_without_a_row_has_no_sum_unless_the_last_withdrawal_is_of_that_day(world: Sums) -> None:
    tomorrow = (world.name, TODAY + timedelta(days=1))
    others = (f"{world.name}-x", TODAY)
    days = [(world.name, TODAY), (world.name, YESTERDAY)]
    found, bad = await sums.lock_days(world.connection, MACS, [*days, tomorrow, others])
    assert (found, bad) == ({days[0]: 15, days[1]: 5, tomorrow: 0, others: 0}, set())
    macs = OrderMacs(KEYS)
    async with world.connection.transaction():
        await world.connection.execute("ALTER TABLE fund.withdrawal_days DISABLE TRIGGER ALL")
        await world.connection.execute("DELETE FROM fund.withdrawal_days WHERE merchant = $1", world.name)
        for trigger in ("no_delete", "no_truncate"):
            await world.connection.execute(
                f"ALTER TABLE fund.withdrawal_days ENABLE ALWAYS TRIGGER withdrawal_days_{trigger}"
            )
    # The last withdrawal of this merchant is the one that bounced, of today.
    found, bad = await sums.lock_days(world.connection, macs, [*days, tomorrow, others])
    assert (found, bad) == ({days[1]: 0, tomorrow: 0, others: 0}, {days[0]})
    assert [(row.kind, row.key) for row in macs._found] == [("withdrawal_day", f"{world.name} {TODAY}")]


@pytest.mark.parametrize("edited", ["", "kind", "channel", "amount", "currency"])
def test_a_payout_is_of_its_order_if_kind_channel_amount_and_currency_are(edited: str) -> None:
    order = fund_order(Kind.WITHDRAWAL, "w", 100)
    row: Row = {"kind": "withdrawal", "channel": "c", "amount": 100, "currency": "CNY"}
    if edited:
        row[edited] = row[edited] * 2
    assert is_of(row, order) is (not edited)


async def test_nothing_is_written_without_sums(world: Sums) -> None:
    class Refuses:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"{name} of the connection is used")

    unused: Any = Refuses()
    await sums.write_payments(unused, MACS, [])
    await sums.write_days(unused, MACS, {})
    await sums.give_back_days(unused, MACS, [])
