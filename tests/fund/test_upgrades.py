"""Migrations of the fund database on rows of an earlier version: receipts that repeat, debts, and refunds without an
end.
"""

from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.database import migrations
from fundledger.fund.model.channel import Channel
from fundledger.fund.model.order import Kind, Order, State
from fundledger.fund.store import debts
from fundledger.fund.store.mac_layouts import CHANNEL, PAYOUT, channel_fields, fields_of_payout, payout_fields
from fundledger.fund.store.macs import OrderMacs, open_macs_alone
from fundledger.fund.store.migrate import migrate
from fundledger.fund.store.orders import read_order
from fundledger.fund.store.queries import SQL
from fundledger.security.keys import make_keys
from tests.support.database import Databases
from tests.support.fund_world import AT, COLUMNS, an_order
from tests.support.tampering import any_state

LATER = frozenset(
    {
        *("set_off", "end_set_off", "parking", "parked_voucher_id", "returned"),
        *("against", "counterparty", "counter_ref", "counter_set_off", "of_kind", "tax", "parts", "period"),
        *("settle_on", "takes_all", "payee"),
    }
)
RETURNED = LATER - {"set_off", "end_set_off", "parking", "parked_voucher_id"}
"""Columns that migration 18 and later ones added."""
BEFORE = 13
"""The last migration of the earlier version."""


async def nothing_to_seal(*_: object) -> None:
    """Do nothing: the database has no rows yet."""


async def write(fund: Any, macs: OrderMacs, *orders: Order, later: frozenset[str] = LATER) -> None:
    """Insert orders as the earlier version did. `later`: columns that it did not have."""
    names = [name for name in COLUMNS if name not in later]
    places = ", ".join(f"${i + 1}" for i in range(len(names)))
    async with any_state(fund):
        for order in orders:
            macs.seal(order)
            row = msgspec.structs.asdict(order) | {"problem": order.problem and order.problem.decode()}
            statement = f"INSERT INTO fund.orders ({', '.join(names)}) VALUES ({places})"
            await fund.execute(statement, *[row[name] for name in names])


async def earlier(
    postgres: Databases, folder: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> tuple[str, "asyncpg.Connection[Any]"]:
    """Return a database of the version whose last migration is `last`."""
    dsn = await postgres.empty()
    fund = await asyncpg.connect(dsn)
    all_ = migrations.migrations
    with monkeypatch.context() as older:
        older.setattr(migrations, "migrations", lambda package: [one for one in all_(package) if one[0] <= last])
        # The statement of this version reads columns that the earlier one did not have.
        older.setattr("fundledger.fund.store.migrate.seal_first", nothing_to_seal)
        older.setattr("fundledger.fund.store.migrate.open_macs", open_macs_alone)
        older.setattr("fundledger.fund.store.debts.begin", nothing_to_seal)
        await migrate(fund, folder)
    return dsn, fund


async def test_the_receipts_and_debts_of_earlier_orders(
    postgres: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "fund-keys"
    dsn, fund = await earlier(postgres, folder, monkeypatch, BEFORE)
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


async def test_refunds_of_an_earlier_version_keep_their_state_and_are_never_sent(
    postgres: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of the earlier version keep their MACs. The refunds of its channels were made by hand."""
    folder = tmp_path / "fund-keys"
    dsn, fund = await earlier(postgres, folder, monkeypatch, 17)
    macs = OrderMacs(make_keys(folder))
    refunds = [
        an_order(Kind.REFUND, str(state), 10, state, voucher_format=2, channel="c")
        for state in (State.POSTED, State.POSTING, State.REFUSED)
    ]
    paid = an_order(Kind.WITHDRAWAL, "w", 10, State.PAID, ending="paid", voucher_format=2, channel="c")
    await write(fund, macs, *refunds, paid, later=RETURNED)
    channel = Channel("c", "CNY", "bank:c", "http", False, None, "open", "bob", AT, "manual")
    terms = msgspec.structs.asdict(channel)
    terms["mac_key"], terms["mac"] = macs.rows.tag(CHANNEL, channel_fields(terms))
    del terms["refund"]
    places = ", ".join(f"${i + 1}" for i in range(len(terms)))
    await fund.execute(f"INSERT INTO fund.channels ({', '.join(terms)}) VALUES ({places})", *terms.values())
    _, mac = macs.rows.tag(PAYOUT, fields_of_payout(paid.id, "c", 10, "CNY", "paid"))
    payout = "INSERT INTO fund.payouts (order_id, channel, amount, currency, sent_at, called_at, outcome, mac_key, mac)"
    await fund.execute(f"{payout} VALUES ($1, 'c', 10, 'CNY', now(), now(), 'paid', 1, $2)", paid.id, mac)
    await migrate(fund, folder)
    for before in (*refunds, paid):
        there = await read_order(fund, before.id)
        assert there is not None
        assert (there.state, there.returned, there.mac) == (before.state, 0, before.mac)
        macs.check(there)
    (row,) = await fund.fetch(SQL["read_channels"])
    assert row["refund"] == "manual"
    assert macs.agrees(CHANNEL, "channel", "c", channel_fields, row)
    (row,) = await fund.fetch("SELECT * FROM fund.payouts")
    assert row["kind"] == "withdrawal"
    assert macs.agrees(PAYOUT, "payout", paid.id, payout_fields, row)
    assert await fund.fetch(SQL["payouts_next_refunds"], "c", 10, []) == []
    # A process of the earlier version that still runs inserts its rows.
    late = an_order(Kind.REFUND, "late", 10, voucher_format=2, channel="c")
    await write(fund, macs, late, later=RETURNED)
    sent = an_order(Kind.WITHDRAWAL, "sent", 10, State.SENT, voucher_format=2, channel="c")
    await write(fund, macs, sent, later=RETURNED)
    await fund.execute(f"{payout} VALUES ($1, 'c', 10, 'CNY', now(), now(), 'paid', 1, '\\x00')", sent.id)
    assert await fund.fetchval("SELECT kind FROM fund.payouts WHERE order_id = $1", sent.id) == "withdrawal"
    # The database refuses an end of a refund of an earlier format.
    for edit in ("ending = 'paid'", "state = 'sent'", "state = 'paid'", "state = 'stuck', stuck_from = 'posted'"):
        with pytest.raises(asyncpg.CheckViolationError, match="orders_end_of_refund"):
            async with any_state(fund):
                await fund.execute(f"UPDATE fund.orders SET {edit}, problem = '{{}}' WHERE id = $1", late.id)
    await fund.close()
    await postgres.drop(dsn)
