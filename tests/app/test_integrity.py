"""Reads of a running platform whose rows were edited by SQL: 500 `integrity` for that account, 200 for the others."""

import json
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest

from tests.support.answers import is_problem
from tests.support.client import Client, voucher
from tests.support.running import RunningService
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
async def tampered() -> AsyncIterator[RunningService]:
    """Start both services for these tests alone, because the books do not verify at the end."""
    service = RunningService(workers=1, fund=True)
    try:
        await service.start()
        yield service
        await service.stop()
    finally:
        await service.remove()


@pytest.fixture
async def client(tampered: RunningService) -> AsyncIterator[Client]:
    async with Client(tampered.base_url, tampered.token) as client:
        yield client


OF_ENTRIES = ("/balance?at=9999-01-01T00:00:00Z", "/entries", "/entries?level=entries", "/entries?limit=1")
READS = ("", "/balance", *OF_ENTRIES)
"""Endings of paths below an account: reads of the account, of its balance and of its entries."""
EDITS = {
    "a balance": "UPDATE ledger.sub_accounts SET posted = posted + 5000000 WHERE account_number = $1",
    "an inserted slot": """INSERT INTO ledger.sub_accounts SELECT shard, account_number, 1, 5000000, 0, version, seq, posted_at_us,
        normal, bounded, status, key_version, last_entry_mac, mac FROM ledger.sub_accounts WHERE account_number = $1""",
    "an entry": "UPDATE ledger.entries SET amount = amount + 1, balance_after = balance_after + 1 WHERE account_number = $1 AND seq = 2",
    "the last entry": "DELETE FROM ledger.entries WHERE account_number = $1 AND seq = 2",
}


async def edit(service: RunningService, account: str, statement: str) -> int:
    """Edit a row of the account with triggers off. Return the number of the account."""
    connection = await asyncpg.connect(service.dsn)
    try:
        number = await connection.fetchval("SELECT number FROM ledger.accounts WHERE id = $1", account)
        async with connection.transaction():
            await connection.execute("ALTER TABLE ledger.entries DISABLE TRIGGER ALL")
            await connection.execute(statement, number)
            await connection.execute("ALTER TABLE ledger.entries ENABLE ALWAYS TRIGGER entries_append_only")
        return int(number)
    finally:
        await connection.close()


async def findings(service: RunningService, number: int) -> int:
    connection = await asyncpg.connect(service.dsn)
    try:
        statement = "SELECT count(*) FROM ledger.integrity_findings WHERE account_number = $1"
        return int(await connection.fetchval(statement, number))
    finally:
        await connection.close()


@pytest.mark.parametrize("statement", EDITS.values(), ids=EDITS)
async def test_a_read_of_an_account_that_was_edited_is_a_problem_and_its_neighbour_is_answered(
    tampered: RunningService, client: Client, statement: str
) -> None:
    account, neighbour = await client.merchant(1000), await client.merchant(1000)
    await client.pay(await client.bank(), account, 10)
    for read in READS:
        assert (await client.get(f"/v1/accounts/{account}{read}")).status == 200
    number = await edit(tampered, account, statement)
    for read in OF_ENTRIES if statement == EDITS["an entry"] else READS:
        answer = await client.get(f"/v1/accounts/{account}{read}")
        assert is_problem(answer, 500, "integrity"), read
        assert answer.json["account"] == account
        assert b"5001" not in answer.body and b"posted" not in answer.body
        assert (await client.get(f"/v1/accounts/{neighbour}{read}")).status == 200
    assert 1 <= await findings(tampered, number) <= len(READS)


async def test_a_row_that_does_not_verify_is_logged_once_however_often_it_is_read(
    tampered: RunningService, client: Client
) -> None:
    account = await client.merchant(1000)
    await edit(tampered, account, EDITS["a balance"])
    for _ in range(20):
        assert (await client.get(f"/v1/accounts/{account}")).status == 500
    voucher = (await client.pay(await client.bank(), await client.merchant(), 10)).json["id"]
    connection = await asyncpg.connect(tampered.dsn)
    try:
        async with connection.transaction():
            await connection.execute("ALTER TABLE ledger.vouchers DISABLE TRIGGER ALL")
            await connection.execute("UPDATE ledger.vouchers SET type = 'paid' WHERE id = $1", voucher)
            await connection.execute("ALTER TABLE ledger.vouchers ENABLE ALWAYS TRIGGER vouchers_append_only")
    finally:
        await connection.close()
    for _ in range(20):
        assert (await client.get(f"/v1/vouchers/{voucher}")).status in (422, 500)

    def lines() -> dict[str, int]:
        found = [json.loads(line) for line in tampered.log.read_text().splitlines() if '"integrity_finding"' in line]
        mine = {name: [line for line in found if name in line["message"]] for name in (account, voucher)}
        return {name: len(of) for name, of in mine.items()}

    await eventually(lambda: min(lines().values()) > 0, "both are logged")
    assert lines() == {account: 1, voucher: 1}


@pytest.mark.parametrize(
    ("table", "column", "path"),
    [("vouchers", "reference", "/v1/vouchers/"), ("holds", "captured", "/v1/holds/")],
)
async def test_a_read_of_a_voucher_or_a_hold_that_was_edited_is_a_problem_and_its_neighbour_is_answered(
    tampered: RunningService, client: Client, table: str, column: str, path: str
) -> None:
    account, bank = await client.merchant(1000), await client.bank()
    ids = []
    for _ in range(2):
        id_ = str(uuid.uuid4())
        if table == "vouchers":
            entries = [
                {"account": bank, "side": "debit", "amount": 5},
                {"account": account, "side": "credit", "amount": 5},
            ]
            answer = await client.post("/v1/vouchers", {"id": id_, "type": "pay", "entries": entries, "reference": "r"})
        else:
            answer = await client.post("/v1/holds", {"id": id_, "account": account, "amount": 5})
        assert answer.status == 201, answer
        ids.append(id_)
    other = "'forged'" if column == "reference" else "captured + 1"
    connection = await asyncpg.connect(tampered.dsn)
    try:
        await connection.execute(f"ALTER TABLE ledger.{table} DISABLE TRIGGER ALL")
        await connection.execute(f"UPDATE ledger.{table} SET {column} = {other} WHERE id::text = $1", ids[0])
        await connection.execute(f"ALTER TABLE ledger.{table} ENABLE TRIGGER ALL")
        for _ in range(3):
            answer = await client.get(f"{path}{ids[0]}")
            assert is_problem(answer, 500, "integrity"), answer
            assert b"forged" not in answer.body
        assert (await client.get(f"{path}{ids[1]}")).status == 200
        subject = f"SELECT count(*) FROM ledger.integrity_findings WHERE subject = 'dev {ids[0]}'"
        assert await connection.fetchval(subject) == 1
    finally:
        await connection.close()
    # A capture or release of the hold is also refused.
    if table == "holds":
        assert is_problem(await client.post(f"/v1/holds/{ids[0]}/release", {}), 422, "account-frozen")


async def created(fund: Client, name: str) -> bool:
    """Create a merchant. Return False if the answer is 503, as on a busy machine; then call it again."""
    made = await fund.post("/v1/merchants", {"id": name, "name": name, "currency": "CNY"})
    assert made.status in (200, 201, 503), made
    return made.status != 503


async def test_the_fund_service_says_that_it_is_the_books(tampered: RunningService) -> None:
    async with Client(tampered.fund_url, tampered.token) as fund:
        for name in ("edited", "whole"):
            await eventually(lambda name=name: created(fund, name), "the merchant is created")
        await edit(tampered, "merchant:edited:available", EDITS["a balance"])
        answer = await fund.get("/v1/merchants/edited")
        assert is_problem(answer, 500, "integrity")
        assert "merchant:edited:available" in answer.json["detail"]
        assert (await fund.get("/v1/merchants/whole")).status == 200


async def test_a_balance_that_a_double_cannot_hold_is_there_as_text_too(client: Client) -> None:
    most = (1 << 53) - 1
    account = await client.merchant(most)
    assert await client.balance(account) == {"posted": most, "held": 0, "pending": 0, "available": most}
    await client.pay(await client.bank(), account, most)
    text = str(2 * most)
    exact = {"posted": 2 * most, "available": 2 * most, "posted_text": text, "available_text": text}
    assert (await client.balance(account)).items() >= exact.items()
    for query in ("", "?at=9999-01-01T00:00:00Z"):
        answer = await client.get(f"/v1/accounts/{account}/balance{query}")
        assert answer.json.items() >= exact.items()
        assert "held_text" not in answer.json


async def test_an_atomic_batch_with_a_voucher_that_was_edited_is_refused(
    tampered: RunningService, client: Client
) -> None:
    a, b = await client.merchant(10), await client.merchant()
    asked = [voucher(a, b, 4), voucher(a, b, 5)]
    assert (await client.post("/v1/vouchers", asked[1])).status == 201
    connection = await asyncpg.connect(tampered.dsn)
    try:
        async with connection.transaction():
            await connection.execute("ALTER TABLE ledger.vouchers DISABLE TRIGGER ALL")
            await connection.execute("UPDATE ledger.vouchers SET type = 'paid' WHERE id::text = $1", asked[1]["id"])
            await connection.execute("ALTER TABLE ledger.vouchers ENABLE ALWAYS TRIGGER vouchers_append_only")
    finally:
        await connection.close()
    answer = await client.post("/v1/vouchers/batch", {"vouchers": asked, "atomic": True})
    assert answer.status == 200, answer
    assert [result["problem"]["type"].rpartition(":")[2] for result in answer.json["results"]] == ["account-frozen"] * 2
    assert (await client.balance(a))["posted"] == 5
