"""Migrations of the fund database on orders of an earlier version: receipts that repeat, and debts."""

from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.database import migrations
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.store import debts
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.migrate import migrate
from fundledger.security.keys import make_keys
from tests.support.database import Databases
from tests.support.fund_world import COLUMNS, an_order
from tests.support.tampering import any_state

LATER = {
    *("set_off", "end_set_off", "parking", "parked_voucher_id", "returned"),
    *("against", "counterparty", "counter_ref", "counter_set_off", "of_kind", "tax", "parts", "period"),
    *("settle_on", "takes_all", "payee"),
}
BEFORE = 13
"""The last migration of the earlier version."""


async def nothing_to_seal(*_: object) -> None:
    """Do nothing: the database has no rows yet."""


async def write(fund: Any, macs: OrderMacs, *orders: Order) -> None:
    """Insert orders as the earlier version did."""
    names = [name for name in COLUMNS if name not in LATER]
    places = ", ".join(f"${i + 1}" for i in range(len(names)))
    async with any_state(fund):
        for order in orders:
            macs.seal(order)
            row = msgspec.structs.asdict(order) | {"problem": order.problem and order.problem.decode()}
            statement = f"INSERT INTO fund.orders ({', '.join(names)}) VALUES ({places})"
            await fund.execute(statement, *[row[name] for name in names])


async def test_the_receipts_and_debts_of_earlier_orders(
    postgres: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = await postgres.empty()
    fund = await asyncpg.connect(dsn)
    all_, folder = migrations.migrations, tmp_path / "fund-keys"
    with monkeypatch.context() as older:
        older.setattr(migrations, "migrations", lambda package: [one for one in all_(package) if one[0] <= BEFORE])
        # The statement of this version reads columns that the earlier one did not have.
        older.setattr("fundledger.fund.store.migrate.seal_first", nothing_to_seal)
        await migrate(fund, folder)
    macs = OrderMacs(make_keys(folder))
    wrong = an_order(Kind.PAYMENT, "wrong", 10, channel_ref="S")
    undone = an_order(Kind.REVERSAL, "undone", 10, of_order=wrong.id)
    wrong.reversed_by = undone.id
    late = an_order(Kind.CHARGEBACK, "late", 30, State.POSTING, merchant="b", to_receivable=30)
    edited = an_order(Kind.CHARGEBACK, "edited", 9, merchant="c", to_receivable=9)
    await write(
        *(fund, macs, wrong, undone, late, edited),
        an_order(Kind.PAYMENT, "undecided", 10, State.POSTING, channel_ref="R"),
        an_order(Kind.PAYMENT, "first", 10, channel_ref="R"),
        an_order(Kind.PAYMENT, "second", 10, channel_ref="R", merchant="other"),
        an_order(Kind.PAYMENT, "refused", 10, State.REFUSED, channel_ref="R"),
        an_order(Kind.PAYMENT, "right", 10, channel_ref="S"),
        an_order(Kind.CHARGEBACK, "owes", 70, merchant="a", to_receivable=50),
        an_order(Kind.RECOVERY, "repays", 20, merchant="a"),
        an_order(Kind.RECOVERY, "no", 9, State.REFUSED, merchant="a"),
        an_order(Kind.RECOVERY, "early", 10, merchant="b"),
    )
    await fund.execute("UPDATE fund.orders SET module = 'thief' WHERE order_no = 'edited'")
    await migrate(fund, folder)
    void = await fund.fetchval("SELECT array_agg(order_no ORDER BY order_no) FROM fund.orders WHERE receipt_void")
    assert void == ["second", "undecided", "wrong"]
    rows = await fund.fetch("SELECT merchant, owed, mac_key FROM fund.debts ORDER BY merchant")
    assert [tuple(row) for row in rows] == [("a", 30, 1), ("b", 0, 0), ("c", 9, 0)]
    async with fund.transaction():
        found, bad = await debts.lock(fund, macs, ["a", "b", "c", "d"])
    assert (found, set(bad)) == ({"a": 30, "d": 0}, {"b", "c"})
    late.state, late.posted_at = State.POSTED, late.created_at
    macs.seal(late)
    async with any_state(fund):
        changed = "UPDATE fund.orders SET state = 'posted', posted_at = $2, mac = $3 WHERE id = $1"
        await fund.execute(changed, late.id, late.posted_at, late.mac)
    async with fund.transaction():
        await debts.change(fund, macs, [late], [])
    async with fund.transaction():
        found, bad = await debts.lock(fund, macs, ["a", "b", "c"])
    assert (found, set(bad)) == ({"a": 30, "b": 20}, {"c"})
    await fund.close()
    await postgres.drop(dsn)
