"""The trial balance: every account once, at one time, and totals that add up."""

import csv
import io
import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from fundledger.client.account_service import AccountService
from fundledger.ledger.statement import cursors
from fundledger.ledger.statement.cursors import BadCursor
from fundledger.ledger.statement.trial_balance import TrialPage, read_trial_balance
from tests.support.answers import is_problem
from tests.support.client import Client
from tests.support.ledger import Ledger, posted, transfer
from tests.support.running import RunningService


async def walk(client: Client, query: str, limit: int) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await client.get(f"/v1/balances?limit={limit}{query}{cursor}")
        assert answer.status == 200, answer
        pages.append(answer.json)
        if answer.json["next_cursor"] is None:
            return pages
        assert answer.json["totals"] == []
        cursor = f"&cursor={quote(answer.json['next_cursor'])}"


async def test_the_totals_of_the_last_page_add_up_over_all_pages(client: Client) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    merchant = await client.merchant()
    assert (await client.pay(bank, merchant, 70)).status == 201
    for limit in (7, 100):
        pages = await walk(client, "", limit)
        rows = [row for page in pages for row in page["accounts"]]
        ids = [row["account"] for row in rows]
        assert len(ids) == len(set(ids))
        by_id = {row["account"]: row for row in rows}
        assert (by_id[bank]["debit"], by_id[bank]["credit"]) == (70, 0)
        assert (by_id[merchant]["debit"], by_id[merchant]["credit"]) == (0, 70)
        assert len({page["at"] for page in pages}) == 1
        for total in pages[-1]["totals"]:
            of = [row for row in rows if row["currency"] == total["currency"]]
            assert total["debit"] == sum(row["debit"] for row in of)
            assert total["credit"] == sum(row["credit"] for row in of)


async def test_the_balances_are_those_of_the_time(client: Client) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    first, second = await client.merchant(), await client.merchant()
    at = (await client.pay(bank, first, 70)).json["posted_at"]
    assert (await client.pay(bank, first, 5)).status == 201
    later = await client.merchant()
    rows = {row["account"]: row for page in await walk(client, f"&at={at}", 100) for row in page["accounts"]}
    assert [rows[id_]["credit"] for id_ in (first, second)] == [70, 0]
    assert rows[bank]["debit"] == 70
    assert later not in rows, "it was opened later"
    for id_, normal in ((bank, -1), (first, 1)):
        balance = (await client.get(f"/v1/accounts/{id_}/balance?at={at}")).json["posted"]
        assert rows[id_]["credit"] - rows[id_]["debit"] == normal * balance
    ahead = datetime.now(UTC) + timedelta(days=1)
    page = (await client.get(f"/v1/balances?at={quote(ahead.isoformat())}")).json
    assert datetime.fromisoformat(page["at"]) < ahead


async def test_the_trial_balance_as_csv_and_in_the_client(client: Client, service: RunningService) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    merchant = await client.merchant()
    assert (await client.pay(bank, merchant, 70)).status == 201
    rows: list[dict[str, str]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await client.get(f"/v1/balances?limit=100{cursor}", headers={"Accept": "text/csv"})
        rows += csv.DictReader(io.StringIO(answer.body.decode()))
        following = answer.headers.get("X-Next-Cursor")
        cursor = None if following is None else f"&cursor={quote(following)}"
    found = {row["account"]: row for row in rows if row["row"] == "account"}
    assert found[merchant]["credit"] == "70"
    async with AccountService(service.base_url, service.token) as accounts:
        pages = [page async for page in accounts.trial_balance(limit=100)]
    listed = {row.account: row for page in pages for row in page.accounts}
    assert set(found) <= set(listed)
    assert listed[bank].debit == 70
    totals = {row["currency"]: row for row in rows if row["row"] == "total"}
    assert {total.currency for total in pages[-1].totals} == set(totals)


@pytest.mark.parametrize(
    ("query", "field"), [("at=now", "at"), ("limit=101", "limit"), ("cursor=x", "cursor"), ("cursor=%C3%A9", "cursor")]
)
async def test_a_trial_balance_names_the_parameter_that_is_wrong(client: Client, query: str, field: str) -> None:
    answer = await client.get(f"/v1/balances?{query}")
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == field


async def test_a_cursor_belongs_to_its_time(client: Client) -> None:
    await client.merchant()
    await client.merchant()
    page = (await client.get("/v1/balances?limit=1")).json
    cursor = quote(page["next_cursor"])
    answer = await client.get(f"/v1/balances?limit=1&cursor={cursor}&at=2026-01-01T00:00:00Z")
    assert is_problem(answer, 400, "malformed")
    account = await client.merchant()
    assert is_problem(await client.get(f"/v1/accounts/{account}/entries?cursor={cursor}"), 400, "malformed")


# --- On a ledger of the test's own ---


async def read(ledger: Ledger, at: datetime | None = None, cursor: str | None = None, limit: int = 100) -> TrialPage:
    async with ledger.reading() as reader:
        return await read_trial_balance(reader, ledger.directory, ledger.layout, at, cursor, limit)


@pytest.mark.layout(shards=2, platform_slots=3)
async def test_vouchers_that_are_posted_between_pages_change_no_page(ledger: Ledger) -> None:
    accounts = [await ledger.account(f"m:{number}", balance=100 * number) for number in range(1, 6)]
    usd = await ledger.account("m:usd", balance=9, currency="USD")
    first = await read(ledger, limit=2)
    pages = [first]
    while pages[-1].cursor is not None:
        for one, other in itertools.pairwise(accounts):
            assert posted(await ledger.post_one(transfer(other, one, 7)))
        pages.append(await read(ledger, cursor=pages[-1].cursor, limit=2))
    rows = {row.account.id: (row.debit, row.credit) for page in pages for row in page.rows}
    assert rows == {
        "bank:funding:CNY": (1500, 0),
        "bank:funding:USD": (9, 0),
        **{f"m:{number}": (0, 100 * number) for number in range(1, 6)},
        usd.id: (0, 9),
    }
    assert {name: (sums.debit, sums.credit) for name, sums in pages[-1].totals.items()} == {
        "CNY": (1500, 1500),
        "USD": (9, 9),
    }
    assert {page.at for page in pages} == {first.at}


async def test_an_account_that_does_not_verify_is_in_no_total(ledger: Ledger) -> None:
    for name in "abc":
        await ledger.account(f"m:{name}", balance=5)
    number = (await ledger.account("m:b")).number
    await ledger.connection.execute("UPDATE ledger.sub_accounts SET posted = 7 WHERE account_number = $1", number)
    page = await read(ledger)
    assert page.unverified == ["m:b"]
    assert (page.totals["CNY"].debit, page.totals["CNY"].credit) == (15, 10)


async def test_totals_beyond_64_bits_go_from_page_to_page(ledger: Ledger) -> None:
    for name in "ab":
        await ledger.open(f"m:{name}")
    at = datetime.now(UTC)
    us = int(at.timestamp() * 1_000_000)
    huge = (1 << 70).to_bytes(9)
    begun = cursors.TrialCursor(None, us, "", [("CNY", huge, b"")])
    page = await read(ledger, cursor=cursors.encode_trial(ledger.keys, begun), limit=1)
    assert page.cursor is not None
    last = await read(ledger, cursor=page.cursor, limit=1)
    assert (last.totals["CNY"].debit, last.totals["CNY"].credit) == (1 << 70, 0)
    with pytest.raises(BadCursor):
        await read(ledger, at=at, cursor=page.cursor)
