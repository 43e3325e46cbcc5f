"""Lists of the fund service over HTTP: orders of all merchants, day sums, bank statements, bills of merchants."""

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import pytest

from fundledger.client import AccountService, FundService, Voucher, credit, debit
from tests.support.answers import is_problem
from tests.support.client import Answer
from tests.support.fund_http import OTHER_TOKEN, TOKEN, FundClient, a_fund_service
from tests.support.orders import an_order
from tests.support.running import RunningService

CSV = {"Accept": "text/csv"}


def table(answer: Answer) -> list[dict[str, str]]:
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.body.decode())))


async def walk(fund: FundClient, path: str, name: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(1000):
        answer = await fund.get(f"{path}&limit={limit}{cursor}")
        assert answer.status == 200, answer
        found += answer.json[name]
        if answer.json["next_cursor"] is None:
            return found
        cursor = "&cursor=" + quote(answer.json["next_cursor"])
    raise AssertionError("the list does not end")


async def a_busy_day(fund: FundClient) -> str:
    """Make orders of a new merchant, of most kinds and in several states. Return its id."""
    shop = await fund.shop("busy", fee={"basis_points": 100}, withdrawal_fee={"fixed": 7})
    named = {"merchant": shop}
    requests: list[tuple[str, dict[str, Any]]] = [
        ("payments", fund.payment(shop, "p1", 10_000, channel_ref=f"r1-{fund.salt}")),
        ("payments", fund.payment(shop, "p2", 5_000, settle="later")),
        ("payments", fund.payment(shop, "p3", 300)),
        ("refunds", {**named, "order_no": "f1", "payment_order_no": "p1", "amount": 1_000}),
        ("refunds", {**named, "order_no": "f2", "payment_order_no": "p2", "amount": 500}),
        ("settlements", {**named, "order_no": "s1", "amount": 2_000}),
        ("withdrawals", {**named, "order_no": "w1", "amount": 1_600, "channel": f"c-{fund.salt}"}),
        ("withdrawals", {**named, "order_no": "w2", "amount": 600, "channel": f"c-{fund.salt}"}),
        ("chargebacks", {**named, "order_no": "c1", "payment_order_no": "p1", "amount": 9_000}),
        ("reversals", {**named, "order_no": "v1", "of_kind": "payment", "of_order_no": "p3", "reason": "twice"}),
    ]
    made = [await fund.post(f"/v1/{path}", body) for path, body in requests]
    assert [answer.status for answer in made] == [201] * 10, made
    async with FundClient(fund.base_url, OTHER_TOKEN) as other:
        # The chargeback takes all that is available, so the reversal is refused.
        assert (await other.post(f"/v1/reversals/{made[9].json['id']}/approve")).status == 422
    bounced = await fund.post(f"/v1/withdrawals/{made[7].json['id']}/bounced", {"reason": "closed"})
    assert bounced.status == 200
    refused = {**named, "order_no": "w3", "amount": 10**9, "channel": f"c-{fund.salt}"}
    assert (await fund.post("/v1/withdrawals", refused)).status == 422
    return shop


async def test_orders_of_all_merchants_are_listed_by_each_filter(fund: FundClient) -> None:
    shop = await a_busy_day(fund)
    other = await fund.shop("other", 300)
    for limit in (1, 4, 500):
        orders = await walk(fund, f"/v1/orders?merchant={shop}", "orders", limit)
        assert [order["order_no"] for order in orders] == [
            *("p1", "p2", "p3", "f1", "f2", "s1", "w1", "w2", "c1", "v1", "w3")
        ]
    for order in orders:
        path = {"recovery": "recoveries"}.get(order["kind"], order["kind"] + "s")
        assert order == (await fund.get(f"/v1/{path}/{order['id']}")).json
    versions = {order["order_no"]: order.get("fee_version") for order in orders}
    assert versions["p1"] == versions["p2"] == versions["p3"] is not None
    assert versions["w1"] == versions["w2"] not in (None, versions["p1"])
    assert versions["f1"] is None
    assert [order.get("fee_waived") for order in orders if order["kind"] == "refund"] == [None, 5]
    filters = {
        "kind=refund": {"f1", "f2"},
        "state=bounced": {"w2"},
        "state=refused&kind=withdrawal": {"w3"},
        f"channel_ref=r1-{fund.salt}": {"p1"},
        f"channel=c-{fund.salt}&channel_ref=r1-{fund.salt}": {"p1"},
        f"channel=c-{fund.salt}&amount=300": {"p3", "v1"},
        f"from={orders[3]['created_at']}&to={orders[4]['created_at']}": {"f1", "f2"},
    }
    for query, numbers in filters.items():
        found = await walk(fund, f"/v1/orders?merchant={shop}&{query}", "orders", 2)
        assert {order["order_no"] for order in found} == numbers, query
    recent = await walk(fund, f"/v1/orders?channel=c-{fund.salt}&from={orders[0]['created_at']}", "orders", 3)
    assert {order["merchant"] for order in recent} == {shop, other}
    assert [order["created_at"] for order in recent] == sorted(order["created_at"] for order in recent)


async def test_orders_as_csv_have_the_same_members(fund: FundClient) -> None:
    shop = await a_busy_day(fund)
    first = await fund.get(f"/v1/orders?merchant={shop}&limit=9", headers=CSV)
    rows = table(first)
    second = await fund.get(f"/v1/orders?merchant={shop}&limit=9&cursor={first.headers['X-Next-Cursor']}", headers=CSV)
    assert "X-Next-Cursor" not in second.headers
    rows += table(second)
    orders = (await fund.get(f"/v1/orders?merchant={shop}")).json["orders"]
    for row, order in zip(rows, orders, strict=True):
        assert {name: value for name, value in row.items() if value and name != "problem"} == {
            name: str(value) for name, value in order.items() if name != "problem" and value is not None
        }


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("merchant=a%20b", "merchant"),
        ("kind=sale", "kind"),
        ("state=gone", "state"),
        ("from=yesterday", "from"),
        ("to=2026-02-30T00:00:00Z", "to"),
        ("channel=a%20b", "channel"),
        ("channel_ref=", "channel_ref"),
        ("channel_ref=%00", "channel_ref"),
        ("amount=0", "amount"),
        ("amount=9007199254740992", "amount"),
        ("limit=501", "limit"),
        ("cursor=1", "cursor"),
        ("cursor=999999999999999999-1", "cursor"),
    ],
)
async def test_a_list_of_orders_names_the_parameter_that_is_wrong(fund: FundClient, query: str, field: str) -> None:
    answer = await fund.get(f"/v1/orders?{query}")
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == field


async def test_a_day_that_is_not_closed_has_no_sums(fund: FundClient) -> None:
    empty = await fund.get("/v1/days/2031-03-01")
    named = {"day": "2031-03-01", "begins_at": "2031-03-01T00:00:00.000000Z", "ends_at": "2031-03-02T00:00:00.000000Z"}
    nothing = {"closed_at": None, "orders": None, "ends": None, "sums": [], "next_cursor": None}
    assert empty.json == {**named, **nothing}
    for date, field in (
        ("2026-02-30", "date"),
        ("20260301", "date"),
        ("1969-12-31", "date"),
        ("2026-W01-1", "date"),
        ("9999-12-01", "date"),
    ):
        answer = await fund.get(f"/v1/days/{date}")
        assert is_problem(answer, 400, "malformed")
        assert answer.json["field"] == field
    assert is_problem(await fund.get("/v1/days/2026-03-01?cursor=x"), 400, "malformed")


async def test_a_day_that_is_closed_has_its_sums(tmp_path: Any, fund_database: str, service: RunningService) -> None:
    async with (
        a_fund_service(fund_database, tmp_path, service) as (started, url),
        FundClient(url) as fund,
        FundService(url, TOKEN) as client,
    ):
        at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        for merchant, kind, amount in (
            ("a", "payment", 1 << 53),
            ("a", "payment", 5),
            ("a", "refund", 7),
            ("b", "payment", 9),
        ):
            await an_order(started.pool, merchant, kind=kind, amount=amount, posted_at=at)
        sums = """INSERT INTO fund.day_sums SELECT DATE '2026-03-01', merchant, kind, currency, state, count(*), sum(amount), sum(fee)
                  FROM fund.orders GROUP BY merchant, kind, currency, state"""
        await started.pool.execute(sums)
        await started.pool.execute("INSERT INTO fund.day_ends (day, orders) VALUES ('2026-03-01', 4)")
        expected = [("a", "payment", 2, (1 << 53) + 5, 2), ("a", "refund", 1, 7, 1), ("b", "payment", 1, 9, 1)]
        for limit in (1, 2, 100):
            found = await walk(fund, "/v1/days/2026-03-01?", "sums", limit)
            names = ("merchant", "kind", "orders", "amount", "fee")
            assert [tuple(one[name] for name in names) for one in found] == expected
        assert found[0]["amount_text"] == str((1 << 53) + 5)
        rows = table(await fund.get("/v1/days/2026-03-01", headers=CSV))
        assert [(row["merchant"], row["kind"], int(row["amount"])) for row in rows] == [
            (merchant, kind, amount) for merchant, kind, _, amount, _ in expected
        ]
        pages = [page async for page in client.day_sums(at.date(), limit=2)]
        assert [page.orders for page in pages] == [4, 4]
        assert [one.amount for page in pages for one in page.sums] == [amount for *_, amount, _ in expected]


async def test_bank_statements_are_listed_with_their_counts(fund: FundClient, fund_url: str) -> None:
    channel = f"b-{fund.salt}"
    for number, amounts in (("s2", [5, 6]), ("s1", [7]), ("s3", [-8])):
        lines = [{"ref": f"{number}-{amount}", "amount": amount} for amount in amounts]
        body = {"channel": channel, "statement_no": number, "currency": "CNY", "lines": lines}
        assert (await fund.post("/v1/bank-statements", body)).status == 201
    for limit in (1, 2, 50):
        found = await walk(fund, f"/v1/bank-statements?channel={channel}", "statements", limit)
        assert [(one["statement_no"], one["lines"], one["difference"]) for one in found] == [
            ("s1", 1, 7),
            ("s2", 2, 11),
            ("s3", 1, -8),
        ]
    assert found[1]["counts"] == {
        **dict.fromkeys(("matched", "awaited", "different", "duplicate", "repeated"), 0),
        "unknown": 2,
    }
    rows = table(await fund.get(f"/v1/bank-statements?channel={channel}", headers=CSV))
    assert [(row["statement_no"], row["unknown"], row["total"]) for row in rows] == [
        ("s1", "1", "7"),
        ("s2", "2", "11"),
        ("s3", "1", "-8"),
    ]
    async with FundService(fund_url, TOKEN) as client:
        assert [one.statement_no async for one in client.bank_statements(channel, limit=2)] == ["s1", "s2", "s3"]
    everything = await walk(fund, "/v1/bank-statements?", "statements", 50)
    assert {one["statement_no"] for one in everything if one["channel"] == channel} == {"s1", "s2", "s3"}
    for query, field in (("channel=a%20b", "channel"), ("cursor=x", "cursor"), ("limit=51", "limit")):
        answer = await fund.get(f"/v1/bank-statements?{query}")
        assert is_problem(answer, 400, "malformed")
        assert answer.json["field"] == field


# --- Bills ---


def signed(entry: Any) -> int:
    return int(entry.amount if entry.side == "credit" else -entry.amount)


@pytest.mark.parametrize("limit", [1, 3, 500])
async def test_the_lines_of_a_bill_are_the_movement_of_the_accounts(
    fund: FundClient, fund_url: str, service: RunningService, limit: int
) -> None:
    shop = await a_busy_day(fund)
    begun = datetime.now(UTC).date()
    async with FundService(fund_url, TOKEN) as client, AccountService(service.base_url, service.token) as accounts:
        pages = [page async for page in client.bill(shop, month=f"{begun:%Y-%m}", limit=limit)]
        lines = [line for page in pages for line in page.lines]
        assert [(line.kind, line.order_no, line.fee) for line in lines] == [
            ("payment", "p1", 100),
            ("payment", "p2", 0),
            ("payment", "p3", 3),
            ("refund", "f1", -10),
            ("refund", "f2", 0),
            ("settlement", "s1", 20),
            ("withdrawal", "w1", 7),
            ("withdrawal", "w2", 7),
            ("chargeback", "c1", 0),
            ("withdrawal", "w2", -7),
        ]
        versions = {line.order_no: line.fee_version for line in lines}
        assert versions["p1"] == versions["p3"] is not None
        assert versions["f1"] is None
        assert [line.tax for line in lines] == [0] * 10
        for name, normal in (("available", 1), ("pending", 1), ("receivable", -1)):
            statement = [entry async for entry in accounts.entries(f"merchant:{shop}:{name}")]
            assert sum(getattr(line.change, name) for line in lines) == normal * sum(map(signed, statement))
            moving = [line for line in lines if getattr(line.change, name)]
            assert [getattr(line.balance, name) for line in moving] == [entry.balance_after for entry in statement]
            assert [line.posted_at for line in moving] == [entry.posted_at for entry in statement]
            assert [line.voucher_id for line in moving] == [entry.voucher_id for entry in statement]
            assert getattr(pages[0].opening, name) == 0
            now = await accounts.balance(f"merchant:{shop}:{name}")
            assert getattr(pages[-1].closing, name) == now.posted
    by_net = {order["id"]: order["net"] for order in (await fund.get(f"/v1/orders?merchant={shop}")).json["orders"]}
    for line in lines[:-1]:
        change = line.change
        assert change.available + change.pending - change.receivable == by_net[str(line.order)]
    last = lines[-1].change
    expected = -by_net[str(lines[-1].order)]
    assert last.available + last.pending - last.receivable == expected, "the end of a withdrawal that bounced"


async def test_a_bill_as_csv_begins_and_ends_with_the_balances(fund: FundClient) -> None:
    shop = await a_busy_day(fund)
    path = f"/v1/merchants/{shop}/bill?limit=6"
    first = await fund.get(path, headers=CSV)
    second = await fund.get(f"{path}&cursor={first.headers['X-Next-Cursor']}", headers=CSV)
    assert "X-Next-Cursor" not in second.headers
    rows = [*table(first), *table(second)]
    assert [row["row"] for row in rows] == ["opening", *["line"] * 10, "closing"]
    available = 0
    for row in rows[1:-1]:
        available += int(row["available_change"])
        assert int(row["available"]) == available
    assert int(rows[-1]["available"]) == available
    assert {row["currency"] for row in rows} == {"CNY"}


async def test_a_movement_without_an_order_is_a_line_of_the_bill(fund: FundClient, service: RunningService) -> None:
    shop = await fund.shop("raw", 500)
    order = (await fund.get(f"/v1/orders?merchant={shop}")).json["orders"][0]
    account = f"merchant:{shop}:available"
    async with AccountService(service.base_url, service.token) as accounts:
        entries = [debit("suspense:short", 5), credit(account, 5)]
        # A reference may name an order that did not cause the voucher.
        claim = Voucher(uuid4(), "gift", entries, reference=f"fund:{order['id']}")
        await accounts.post_voucher(claim)
    bill = (await fund.get(f"/v1/merchants/{shop}/bill")).json
    assert [(line["kind"], line["type"], line["change"]["available"]) for line in bill["lines"]] == [
        ("payment", "pay", 500),
        (None, "gift", 5),
    ]
    assert bill["closing"]["available"] == 505


async def test_a_bill_of_another_day_has_no_lines(fund: FundClient) -> None:
    shop = await fund.shop("quiet", 500)
    today = datetime.now(UTC).date()
    before = (await fund.get(f"/v1/merchants/{shop}/bill?day={today - timedelta(days=3)}")).json
    nothing = {"available": 0, "pending": 0, "receivable": 0}
    assert (before["lines"], before["opening"], before["closing"]) == ([], nothing, nothing)
    after = (await fund.get(f"/v1/merchants/{shop}/bill?day={today + timedelta(days=3)}")).json
    there = {**nothing, "available": 500}
    assert (after["lines"], after["opening"], after["closing"]) == ([], there, there)
    assert after["begins"] == f"{today + timedelta(days=3)}T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("day=2026-02-30", "day"),
        ("day=2026-W01-1", "day"),
        ("day=9999-12-01", "day"),
        ("month=2026-13", "month"),
        ("month=2026-1", "month"),
        ("month=9999-12", "month"),
        ("day=2026-01-01&month=2026-01", "month"),
        ("limit=501", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=0.aaaa.0..0.", "cursor"),
    ],
)
async def test_a_bill_names_the_parameter_that_is_wrong(fund: FundClient, query: str, field: str) -> None:
    shop = await fund.shop("bad")
    answer = await fund.get(f"/v1/merchants/{shop}/bill?{query}")
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == field


async def test_a_merchant_that_does_not_exist_has_no_bill(fund: FundClient) -> None:
    assert is_problem(await fund.get("/v1/merchants/nobody/bill"), 404, "not-found")
    assert is_problem(await fund.get("/v1/merchants/a%20b/bill"), 400, "malformed")


async def test_a_bill_shows_an_order_that_does_not_match_its_mac_without_its_terms(
    tmp_path: Any, fund_database: str, service: RunningService
) -> None:
    async with a_fund_service(fund_database, tmp_path, service) as (_, url), FundClient(url) as fund:
        shop = await fund.shop("edited", 500)
        connection = await asyncpg.connect(fund_database)
        await connection.execute("UPDATE fund.orders SET fee_version = 99")
        await connection.close()
        bill = (await fund.get(f"/v1/merchants/{shop}/bill")).json
        assert [(line["order"], line["fee_version"], line["change"]["available"]) for line in bill["lines"]] == [
            (None, None, 500)
        ]
        assert len(bill["unverified"]) == 1
        listed = (await fund.get(f"/v1/orders?merchant={shop}")).json
        assert (listed["orders"], [one["id"] for one in listed["unverified"]]) == ([], [bill["unverified"][0]["id"]])
        for path in (f"/v1/orders?merchant={shop}", f"/v1/merchants/{shop}/bill"):
            assert (await fund.get(path, headers=CSV)).headers["X-Unverified"] == "1"
