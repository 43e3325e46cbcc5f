"""`GET /v1/accounts`: every matching account is on exactly one page, for any filter and page size."""

import csv
import io
import uuid
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from fundledger.client.account_service import AccountService
from fundledger.ledger.model.batch import Resplit
from fundledger.ledger.store import accounts as ledger_accounts
from fundledger.ledger.store.accounts import AccountFilter, list_account_ids, read_accounts, read_accounts_apart
from tests.support.answers import is_problem
from tests.support.client import Client
from tests.support.ledger import Ledger, posted, transfer
from tests.support.running import RunningService


async def pages(client: Client, query: str, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        answer = await client.get(f"/v1/accounts?{query}&limit={limit}{cursor}")
        assert answer.status == 200, answer
        assert len(answer.json["accounts"]) <= limit
        assert answer.json["unverified"] == []
        found += answer.json["accounts"]
        if answer.json["next_cursor"] is None:
            return found
        cursor = f"&cursor={quote(answer.json['next_cursor'])}"


@pytest.fixture
async def owner(client: Client) -> str:
    """Open seven accounts of one owner: three types, two currencies, one frozen, one closed."""
    owner = f"merchant:{uuid.uuid4().hex}"
    for name, type_, currency in (
        ("a", "merchant_available", "CNY"),
        ("b", "merchant_pending", "CNY"),
        ("c", "merchant_available", "USD"),
        ("d", "receivable", "CNY"),
        ("e", "merchant_available", "CNY"),
        ("f", "merchant_pending", "USD"),
        ("g", "merchant_available", "CNY"),
    ):
        await client.open_account(f"{owner}:{name}", type_, owner, currency)
    assert (await client.post(f"/v1/accounts/{owner}:e/freeze")).status == 200
    assert (await client.post(f"/v1/accounts/{owner}:g/close")).status == 200
    return owner


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", "abcdefg"),
        ("&type=merchant_available", "aceg"),
        ("&currency=USD", "cf"),
        ("&type=merchant_available&currency=CNY", "aeg"),
        ("&status=open", "abcdf"),
        ("&status=frozen", "e"),
        ("&status=closed", "g"),
        ("&status=closed&currency=USD", ""),
        ("&currency=EUR", ""),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_each_account_that_matches_is_shown_once_as_a_get_shows_it(
    client: Client, owner: str, query: str, names: str, limit: int
) -> None:
    shown = await pages(client, f"owner={owner}{query}", limit)
    assert [account["id"] for account in shown] == [f"{owner}:{name}" for name in names]
    for account in shown:
        assert account == (await client.get(f"/v1/accounts/{account['id']}")).json


async def test_without_an_owner_all_accounts_are_listed(client: Client, owner: str) -> None:
    found = [account["id"] for account in await pages(client, "type=receivable", 100)]
    assert f"{owner}:d" in found
    assert found == sorted(found)


async def test_the_same_page_as_csv(client: Client, owner: str) -> None:
    answer = await client.get(f"/v1/accounts?owner={owner}&limit=2", headers={"Accept": "text/csv"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [row["id"] for row in rows] == [f"{owner}:a", f"{owner}:b"]
    assert (rows[0]["status"], rows[0]["available"]) == ("open", "0")
    assert answer.headers["X-Next-Cursor"] == f"{owner}:b"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("owner=a%20b", "owner"),
        ("type=savings", "type"),
        ("status=merged", "status"),
        ("currency=cny", "currency"),
        ("currency=CNY%00", "currency"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=0000000101", "limit"),
        ("cursor=", "cursor"),
        ("cursor=" + "a" * 129, "cursor"),
        ("name=x", "name"),
    ],
)
async def test_a_bad_query_names_its_parameter(client: Client, query: str, field: str) -> None:
    answer = await client.get(f"/v1/accounts?{query}")
    assert is_problem(answer, 400, "malformed")
    assert answer.json["field"] == field


async def test_the_client_follows_the_pages(service: RunningService, client: Client, owner: str) -> None:
    async with AccountService(service.base_url, service.token) as accounts:
        found = [account.id async for account in accounts.accounts(owner=owner, limit=3)]
    assert found == [f"{owner}:{name}" for name in "abcdefg"]


async def test_a_filter_that_matches_nothing_looks_at_a_bounded_number_of_accounts(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_accounts, "LOOKED_MAX", 3)
    for name in "abcdefg":
        await ledger.open(f"m:{name}", "merchant_available", "m", "CNY" if name != "f" else "USD")
    wanted = AccountFilter(owner="m", currency="USD")
    seen = []
    after: str | None = ""
    while after is not None:
        ids, after = await list_account_ids(ledger.connection, wanted, after, 10)
        seen.append((ids, after))
    assert seen == [([], "m:c"), (["m:f"], "m:f"), ([], None)]


@pytest.mark.parametrize(
    "edit",
    ["metadata = '{\"edited\":1}'", "key_version = 99", "created_at = 'infinity'", "created_at = '4000-01-01 BC'"],
)
async def test_an_account_that_does_not_verify_hides_no_other(
    service: RunningService, client: Client, owner: str, edit: str
) -> None:
    connection = await asyncpg.connect(service.dsn)
    before = "SELECT metadata, key_version, created_at::text FROM ledger.accounts WHERE id = $1"
    was = await connection.fetchrow(before, f"{owner}:c")
    assert was is not None
    try:
        await connection.execute(f"UPDATE ledger.accounts SET {edit} WHERE id = $1", f"{owner}:c")
        answer = await client.get(f"/v1/accounts?owner={owner}&limit=4")
        assert [account["id"][-1] for account in answer.json["accounts"]] == ["a", "b", "d"]
        assert answer.json["unverified"] == [f"{owner}:c"]
        page = await client.get(f"/v1/accounts?owner={owner}&limit=4", headers={"Accept": "text/csv"})
        assert page.headers["X-Unverified"] == "1"
    finally:
        back = "UPDATE ledger.accounts SET metadata = $2::json, key_version = $3, created_at = $4::text::timestamptz WHERE id = $1"
        await connection.execute(back, f"{owner}:c", *was)
        await connection.close()


class Counting:
    """A reader that counts its queries."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.statements = 0

    async def fetch(self, query: str, *arguments: object) -> list[Any]:
        self.statements += 1
        return list(await self._reader.fetch(query, *arguments))


async def test_a_page_is_read_in_two_statements_as_its_accounts_are_one_by_one(ledger: Ledger) -> None:
    bank, split = await ledger.account("bank", "bank"), await ledger.account("m:split", balance=90)
    assert (await ledger.post_one(Resplit(split, 3, "a test", "tests"))).refusal is None
    ids = ["bank", "m:split", "nobody", *(f"m:{number}" for number in range(30))]
    for id_ in ids[3:]:
        await ledger.open(id_, "merchant_available", id_, "CNY", buffered=True)
    async with ledger.reading() as reader:
        for number in range(3, 12):
            to = (await ledger.directory.resolve(reader, [ids[number]]))[ids[number]]
            for amount in range(1, number):
                assert posted(await ledger.post_one(transfer(bank, to, amount)))
        counting = Counting(reader)
        views, unverified = await read_accounts_apart(counting, ledger.directory, ledger.layout, ids)
        alone = await read_accounts(reader, ledger.directory, ledger.layout, ids)
    assert counting.statements == 2
    assert unverified == []
    assert [view.account.id for view in views] == [id_ for id_ in ids if id_ != "nobody"]
    assert {view.account.id: view for view in views} == alone
    assert any(view.pending for view in views)


@pytest.mark.parametrize("edit", ["posted = posted + 1", "key_version = 99", "slots = 2"])
async def test_sub_accounts_that_do_not_verify_hide_no_other_account(ledger: Ledger, edit: str) -> None:
    for name in "abc":
        await ledger.account(f"m:{name}", balance=5)
    number = (await ledger.account("m:b")).number
    ids = ["m:a", "m:b", "m:c"]
    await ledger.connection.execute(f"UPDATE ledger.sub_accounts SET {edit} WHERE account_number = $1", number)
    views, unverified = await read_accounts_apart(ledger.connection, ledger.directory, ledger.layout, ids)
    assert ([view.account.id for view in views], unverified) == (["m:a", "m:c"], ["m:b"])
