"""The statement of an account, page by page, and its balance at a time."""

import csv
import io
import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from tests.support.answers import at, instant, is_problem
from tests.support.client import Client, voucher


async def a_history(client: Client) -> tuple[str, list[tuple[str, int, str]]]:
    """Open an account with 30 entries. Return its id, and `(voucher id, signed amount, posted_at)` of each entry."""
    a, b = await client.merchant(), await client.merchant(10_000)
    history = []
    for i in range(30):
        there = i % 3 != 2
        asked = voucher(b, a, 10 + i) if there else voucher(a, b, 5)
        answer = await client.post("/v1/vouchers", asked)
        assert answer.status == 201
        history.append((asked["id"], 10 + i if there else -5, answer.json["posted_at"]))
    return a, history


async def walk(client: Client, path: str, limit: int) -> list[dict]:
    """Return the entries of all pages, in order."""
    found: list[dict] = []
    cursor = ""
    joint = "&" if "?" in path else "?"
    for _ in range(1000):
        answer = await client.get(f"{path}{joint}limit={limit}{cursor}")
        assert answer.status == 200, answer
        found += answer.json["entries"]
        assert len(answer.json["entries"]) <= limit
        if answer.json["next_cursor"] is None:
            return found
        cursor = "&cursor=" + quote(answer.json["next_cursor"])
    raise AssertionError("the statement does not end")


async def test_a_statement_shows_each_entry_with_the_balance_after_it(client: Client) -> None:
    account, history = await a_history(client)
    answer = await client.get(f"/v1/accounts/{account}/entries")
    assert answer.json["next_cursor"] is None
    entries = answer.json["entries"]
    assert [e["voucher_id"] for e in entries] == [id_ for id_, _, _ in history]
    assert [e["amount"] if e["side"] == "credit" else -e["amount"] for e in entries] == [
        amount for _, amount, _ in history
    ]
    assert [e["posted_at"] for e in entries] == [posted_at for _, _, posted_at in history]
    assert [e["seq"] for e in entries] == list(range(1, 31))
    balance = 0
    for entry, (_, amount, posted_at) in zip(entries, history, strict=True):
        balance += amount
        assert entry["balance_after"] == balance
        assert entry["type"] == "pay"
        assert entry["accounting_date"] == posted_at[:10]


@pytest.mark.parametrize("limit", [1, 7, 29, 30, 31, 1000])
async def test_pages_one_after_the_other_are_the_whole_statement(client: Client, limit: int) -> None:
    account, _ = await a_history(client)
    whole = (await client.get(f"/v1/accounts/{account}/entries?limit=1000")).json["entries"]
    assert await walk(client, f"/v1/accounts/{account}/entries", limit) == whole


async def test_the_statement_of_a_split_account_is_in_order_and_its_balances_run(client: Client) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    merchants = [await client.merchant() for _ in range(3)]
    for i in range(40):
        assert (await client.pay(bank, merchants[i % 3], i + 1)).status == 201
    whole = (await client.get(f"/v1/accounts/{bank}/entries")).json["entries"]
    assert len(whole) == 40
    assert [e["posted_at"] for e in whole] == sorted(e["posted_at"] for e in whole)
    balance = 0
    for entry in whole:
        balance += entry["amount"] if entry["side"] == "debit" else -entry["amount"]
        assert entry["balance_after"] == balance
    assert balance == 820
    for limit in (1, 7):
        assert await walk(client, f"/v1/accounts/{bank}/entries", limit) == whole


async def test_from_and_to_bound_the_statement_and_both_are_inclusive(client: Client) -> None:
    account, history = await a_history(client)
    path = f"/v1/accounts/{account}/entries"
    whole = (await client.get(path)).json["entries"]
    first, last = history[9][2], history[19][2]
    expected = [e for e in whole if first <= e["posted_at"] <= last]
    assert len(expected) == 11
    bounded = f"{path}?from={first}&to={last}"
    assert (await client.get(bounded)).json["entries"] == expected
    assert await walk(client, bounded, 4) == expected
    assert await walk(client, f"{path}?from={first}", 4) == [e for e in whole if e["posted_at"] >= first]
    assert await walk(client, f"{path}?to={last}", 4) == [e for e in whole if e["posted_at"] <= last]
    assert (await client.get(f"{path}?from={last}&to={first}")).json == {"entries": [], "next_cursor": None}


@pytest.mark.parametrize(
    ("from_", "to"),
    [
        ("1960-01-01T00:00:00Z", "9999-12-31T23:59:59Z"),
        ("1970-01-01T00:00:00Z", "2200-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "2200-01-01T00:00:00.000001Z"),
        ("2000-01-01T08:00:00%2B08:00", "9999-12-31T23:59:59Z"),
    ],
)
async def test_bounds_far_away_page_like_any_other(client: Client, from_: str, to: str) -> None:
    account, _ = await a_history(client)
    path = f"/v1/accounts/{account}/entries"
    whole = (await client.get(path)).json["entries"]
    assert await walk(client, f"{path}?from={from_}&to={to}", 7) == whole


async def test_a_cursor_belongs_to_its_account_and_its_bounds(client: Client) -> None:
    account, history = await a_history(client)
    other, _ = await a_history(client)
    since = history[2][2]
    cursor = quote((await client.get(f"/v1/accounts/{account}/entries?limit=5&from={since}")).json["next_cursor"])
    assert (await client.get(f"/v1/accounts/{account}/entries?limit=9&from={since}&cursor={cursor}")).status == 200
    for path in (
        f"/v1/accounts/{other}/entries?from={since}&cursor={cursor}",
        f"/v1/accounts/{account}/entries?from={history[3][2]}&cursor={cursor}",
        f"/v1/accounts/{account}/entries?to={since}&cursor={cursor}",
        f"/v1/accounts/{account}/entries?cursor=nonsense",
        f"/v1/accounts/{account}/entries?cursor=",
        f"/v1/accounts/{account}/entries?cursor={cursor[:-4]}",
    ):
        answer = await client.get(path)
        assert is_problem(answer, 400, "malformed")
        assert answer.json["field"] == "cursor"


async def test_an_entry_that_comes_while_pages_are_read_is_neither_skipped_nor_repeated(client: Client) -> None:
    account, _ = await a_history(client)
    path = f"/v1/accounts/{account}/entries"
    first = await client.get(f"{path}?limit=20")
    await client.pay(await client.bank(), account, 1)
    rest = await client.get(f"{path}?limit=20&cursor={quote(first.json['next_cursor'])}")
    seqs = [e["seq"] for e in first.json["entries"] + rest.json["entries"]]
    assert seqs == list(range(1, 32))


async def test_a_statement_as_csv_has_the_same_entries(client: Client) -> None:
    account, _ = await a_history(client)
    path = f"/v1/accounts/{account}/entries?limit=20"
    as_json = (await client.get(path)).json
    answer = await client.get(path, headers={"Accept": "text/csv"})
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    names = ["seq", "voucher_id", "type", "side", "amount", "balance_after", "posted_at", "accounting_date"]
    assert list(rows[0])[: len(names)] == names
    assert [[row[name] for name in names] for row in rows] == [
        [str(e[name]) for name in names] for e in as_json["entries"]
    ]


async def test_the_balance_at_a_time_is_what_it_was(client: Client) -> None:
    account, history = await a_history(client)
    path = f"/v1/accounts/{account}/balance"
    balance = 0
    for _, amount, posted_at in history[::7]:
        index = [p for _, _, p in history].index(posted_at)
        balance = sum(amount for _, amount, _ in history[: index + 1])
        answer = await client.get(f"{path}?at={posted_at}")
        expected = {"account": account, "at": posted_at, "posted": balance, "held": 0, "available": balance}
        assert answer.json == expected
        before = instant(posted_at) - timedelta(microseconds=1)
        answer = await client.get(f"{path}?at={at(before)}")
        assert answer.json["posted"] == balance - amount
    now = (await client.get(path)).json
    assert (now["posted"], now["available"]) == (sum(a for _, a, _ in history),) * 2
    for then, expected in (("2001-01-01T00:00:00Z", 0), ("9999-12-31T23:59:59Z", now["posted"])):
        assert (await client.get(f"{path}?at={then}")).json["posted"] == expected


async def test_the_balance_at_a_time_counts_the_holds_of_that_time(client: Client) -> None:
    a = await client.merchant(100)
    hold = f"hold:{uuid.uuid4().hex}"
    placed = (await client.post("/v1/holds", {"id": hold, "account": a, "amount": 60})).json["created_at"]
    released = (await client.post(f"/v1/holds/{hold}/release")).json["ended_at"]
    path = f"/v1/accounts/{a}/balance?at="
    held = []
    for moment in (instant(placed) - timedelta(microseconds=1), instant(placed), instant(released)):
        shown = (await client.get(path + at(moment))).json
        assert shown["available"] == shown["posted"] - shown["held"]
        held.append(shown["held"])
    assert held == [0, 60, 0]


async def test_a_refused_hold_never_counts_as_held(client: Client) -> None:
    a = await client.merchant(1)
    await client.post("/v1/holds", {"id": f"hold:{uuid.uuid4().hex}", "account": a, "amount": 60})
    assert (await client.get(f"/v1/accounts/{a}/balance?at={at(datetime.now(UTC) + timedelta(hours=1))}")).json[
        "held"
    ] == 0


async def test_lines_say_what_they_come_from(client: Client) -> None:
    bank, m, fees = await client.bank(), await client.merchant(), await client.merchant()
    asked = {
        "id": str(uuid.uuid4()),
        "type": "pay",
        "reference": "order 7",
        "metadata": {"order_no": "2026-0007", "kind": "payment"},
        "entries": [
            {"account": bank, "side": "debit", "amount": 100},
            {"account": m, "side": "credit", "amount": 99},
            {"account": fees, "side": "credit", "amount": 1},
        ],
    }
    assert (await client.post("/v1/vouchers", asked)).status == 201
    (line,) = (await client.get(f"/v1/accounts/{m}/entries")).json["entries"]
    expected = {"reference": "order 7", "currency": "CNY", "order_no": "2026-0007", "kind": "payment"}
    assert line.items() >= {**expected, "counter_account": bank, "counter_accounts": [bank]}.items()
    whole = (await client.get(f"/v1/accounts/{bank}/entries?from={line['posted_at']}")).json["entries"]
    (of_bank,) = [e for e in whole if e["voucher_id"] == asked["id"]]
    assert (of_bank["counter_account"], of_bank["counter_accounts"]) == (None, [m, fees])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
async def test_free_text_in_csv_runs_in_no_spreadsheet(client: Client, text: str) -> None:
    m = await client.merchant()
    entries = [
        {"account": await client.bank(), "side": "debit", "amount": 1},
        {"account": m, "side": "credit", "amount": 1},
    ]
    asked = {"id": str(uuid.uuid4()), "type": "pay", "reference": text, "entries": entries}
    answer = await client.post("/v1/vouchers", asked)
    if answer.status == 400:
        pytest.skip("not accepted as a reference")
    answer = await client.get(f"/v1/accounts/{m}/entries", headers={"Accept": "text/csv"})
    (row,) = csv.DictReader(io.StringIO(answer.body.decode(), newline=""))
    assert row["reference"] == f"'{text}"
