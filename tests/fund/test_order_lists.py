"""Lists of orders over all merchants: every filter, every page size, at bounded cost."""

import itertools
import json
import random
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from fundledger.app.commands import orders as command
from fundledger.fund.model.order import Kind, State
from fundledger.fund.store import order_lists
from fundledger.fund.store.order_lists import FROM, TO, OrderFilter, Place, find_orders
from fundledger.fund.store.pool import BY_INDEX
from fundledger.fund.store.queries import SQL
from fundledger.settings import Settings
from tests.support.fund_ids import MACS
from tests.support.orders import an_order
from tests.support.plans import nodes, plan_of
from tests.support.tampering import any_state

BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
STATEMENTS = {
    "find_orders": {"orders_by_time"},
    "find_orders_of_merchant": {"orders_by_merchant", "split_parts_by_merchant", "orders_id_once"},
    "find_orders_of_kind": {"orders_of_kind_by_time"},
    "find_orders_in_state": {"orders_in_state_by_time"},
    "find_orders_by_ref": {"orders_receipt_once"},
    "find_orders_posting": {"orders_due"},
    "channels_with_refs": {"orders_receipt_once"},
    "seqs_of_times": {"orders_by_time"},
}


@pytest.fixture
async def connection(fund_database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(fund_database, server_settings=BY_INDEX)
    yield connection
    await connection.close()


@pytest.mark.parametrize(("name", "indexes"), STATEMENTS.items())
async def test_a_list_is_read_by_its_index_also_when_it_was_planned_on_an_empty_table(
    connection: "asyncpg.Connection[asyncpg.Record]", name: str, indexes: set[str]
) -> None:
    plan = await plan_of(connection, SQL[name], like_a_lane=False)
    used = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
    assert used == indexes
    # An ordered index returns the rows in their order: nothing is sorted before the limit but the kinds of a merchant, and
    # the orders that it owns with those in which it has a part.
    sorts = [node for node in nodes(plan) if node["Node Type"] == "Sort"]
    assert len(sorts) == (2 if name == "find_orders_of_merchant" else 0)


class Row(msgspec.Struct, frozen=True):
    id: uuid.UUID
    seq: int
    created_at: datetime
    merchant: str
    kind: str
    state: str
    channel: str | None
    channel_ref: str | None
    amount: int
    parts: str = ""
    """The merchants of the parts of a split order."""

    def is_of(self, merchant: str | None) -> bool:
        return merchant is None or merchant == self.merchant or merchant in self.parts


INSERT = """
INSERT INTO fund.orders (id, kind, merchant, order_no, state, amount, fee, currency, module, digest, voucher_id, created_at,
                         layout, channel, channel_ref, receipt_void, due_at, problem, stuck_from, voucher_format, parts)
VALUES ($1, $2, $3, gen_random_uuid()::text, $4, $5, 0, 'CNY', 'tests', '', $1, $6::timestamptz, 1, $7, $8, true,
        CASE WHEN $4::text = 'posting' THEN $6::timestamptz END,
        CASE WHEN $4 IN ('stuck', 'refused') THEN '{}'::json END, CASE WHEN $4 = 'stuck' THEN 'posting' END, 3, $9)
RETURNING seq
"""
INSERT_PART = """
INSERT INTO fund.split_parts (order_id, merchant, kind, seq, amount, fee, tax, mac_key, mac) VALUES ($1, $2, $3, $4, 1, 0, 0, 0, '')
"""


@pytest.fixture
async def rows(connection: "asyncpg.Connection[asyncpg.Record]") -> list[Row]:
    """Insert 300 orders. Their times are not quite in the order of insertion, and some are equal."""
    draw = random.Random(16)
    found = []
    async with any_state(connection):
        for i in range(300):
            row = Row(
                uuid.UUID(int=draw.getrandbits(128), version=4),
                0,
                BEGAN + timedelta(hours=i // 2 + draw.randint(-3, 3)),
                draw.choice("abc"),
                draw.choice(["payment"] * 3 + ["refund", "withdrawal", "split_payment"]),
                draw.choice(["posted"] * 3 + ["posting", "refused", "stuck", "paid"]),
                *draw.choice(
                    [("x", f"r{draw.randint(0, 5)}"), ("y", f"r{draw.randint(0, 5)}"), ("y", None), (None, None)]
                ),
                draw.randint(1, 4),
            )
            parts = draw.choice(["ab", "ac", "bc"]) if row.kind == "split_payment" else ""
            terms = json.dumps([{"merchant": merchant} for merchant in parts]) if parts else None
            more = row.channel, row.channel_ref, terms
            seq = await connection.fetchval(
                INSERT, row.id, row.kind, row.merchant, row.state, row.amount, row.created_at, *more
            )
            for merchant in parts:
                await connection.execute(INSERT_PART, row.id, merchant, row.kind, seq)
            found.append(msgspec.structs.replace(row, seq=seq, parts=parts))
    return found


def expected(rows: list[Row], wanted: OrderFilter) -> set[uuid.UUID]:
    named = ("kind", "state", "channel", "channel_ref", "amount")
    return {
        row.id
        for row in rows
        if wanted.from_ <= row.created_at <= wanted.to
        and row.is_of(wanted.merchant)
        and all(getattr(wanted, name) in (None, getattr(row, name)) for name in named)
    }


async def walk(connection: Any, wanted: OrderFilter, limit: int) -> list[uuid.UUID]:
    found: list[uuid.UUID] = []
    after: Place | None = None
    for _ in range(1000):
        ids, after = await find_orders(connection, wanted, after, limit)
        assert len(ids) <= limit
        found += ids
        if after is None:
            return found
    raise AssertionError("the list does not end")


def filters() -> list[OrderFilter]:
    """Return one filter for each combination of parameters, with values that the seed draws."""
    draw = random.Random(17)
    found = []
    for given in itertools.product([False, True], repeat=7):
        timed, *rest = given
        begin = BEGAN + timedelta(hours=draw.randint(0, 60))
        found.append(
            OrderFilter(
                begin if timed else FROM,
                begin + timedelta(hours=draw.randint(0, 90)) if timed and draw.random() < 0.7 else TO,
                *[draw.choice(values) if is_given else None for is_given, values in zip(rest, VALUES, strict=True)],
            )
        )
    return found


VALUES: list[Any] = [
    ["a", "b", "d"],
    [Kind.PAYMENT, Kind.REFUND, Kind.SPLIT_PAYMENT],
    [State.POSTED, State.POSTING, State.REFUSED, State.STUCK],
    ["x", "y"],
    ["r1", "r2", "r9"],
    [1, 2],
]


@pytest.mark.parametrize(("looked_max", "channels_max"), [(5000, 100), (7, 100), (7, 1)])
async def test_every_combination_of_filters_lists_each_matching_order_once(
    connection: Any, rows: list[Row], looked_max: int, channels_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_lists, "LOOKED_MAX", looked_max)
    monkeypatch.setattr(order_lists, "CHANNELS_SEARCHED_MAX", channels_max)
    by_id = {row.id: row for row in rows}
    for wanted in filters():
        listed = await walk(connection, wanted, 3)
        assert len(listed) == len(set(listed)), wanted
        assert set(listed) == expected(rows, wanted), wanted
        places = [by_id[id_] for id_ in listed]
        in_time = [(row.created_at, row.seq) for row in places]
        assert in_time == sorted(in_time) or [row.seq for row in places] == sorted(row.seq for row in places), wanted


async def test_a_page_looks_at_a_bounded_number_of_orders(
    connection: Any, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_lists, "LOOKED_MAX", 50)
    ids, after = await find_orders(connection, OrderFilter(FROM, TO, amount=9), None, 10)
    ordered = sorted((row.created_at, row.seq) for row in rows)
    assert (ids, after) == ([], Place(*ordered[49]))
    ids, after = await find_orders(connection, OrderFilter(FROM, TO, merchant="a", amount=9), None, 10)
    of_a = sorted((row.seq, row.created_at) for row in rows if row.is_of("a"))
    assert (ids, after) == ([], Place(of_a[49][1], of_a[49][0]))


async def test_the_period_of_a_list_of_one_merchant_bounds_what_is_looked_at(
    connection: Any, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_lists, "SKEW", timedelta(hours=7))
    monkeypatch.setattr(order_lists, "LOOKED_MAX", 25)
    begin = BEGAN + timedelta(hours=100)
    wanted = OrderFilter(begin, begin + timedelta(hours=4), merchant="a")
    ids, after = await find_orders(connection, wanted, None, 100)
    assert (set(ids), after) == (expected(rows, wanted), None), "25 orders are enough for the four hours"


async def test_stuck_orders_of_all_merchants_are_listed_with_age_and_reason(
    fund_database: str, connection: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    async def macs(*_: object) -> Any:
        return MACS

    monkeypatch.setattr(command, "open_macs", macs)
    monkeypatch.setattr(command, "FileKeys", lambda folder: folder)
    monkeypatch.setattr(command, "PAGE", 2)
    for merchant in "abc":
        await an_order(connection, merchant, posted_at=BEGAN + timedelta(days=ord(merchant)))
        await an_order(connection, merchant, "posting", posted_at=BEGAN - timedelta(days=ord(merchant)))
    stuck = "UPDATE fund.orders SET state = 'stuck', stuck_from = 'posting', problem = $1 WHERE state = 'posting'"
    await connection.execute(stuck, '{"type":"urn:fundledger:problem:malformed","detail":"too long"}')
    found = await command._read(Settings(data_dir=tmp_path), fund_database)
    assert [(one.merchant, one.reason, one.detail, one.stuck_from) for one in found] == [
        (merchant, "malformed", "too long", "posting") for merchant in "cba"
    ]
    assert found[0].age_s > found[1].age_s > found[2].age_s
    # The states were changed without the service, so the orders do not match their MACs.
    assert not any(one.verified for one in found)
