"""Accounts over HTTP: opening, reading, freezing and closing."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.answers import instant, is_problem, refusal_of
from tests.support.client import Client, voucher


async def test_an_account_is_opened_shown_and_opened_again(client: Client) -> None:
    id_ = f"merchant:{uuid.uuid4().hex}:available"
    asked = {
        "id": id_,
        "owner": "merchant:1",
        "type": "merchant_available",
        "currency": "CNY",
        "metadata": {"b": 1, "a": "x"},
    }
    opened = await client.post("/v1/accounts", asked)
    assert opened.status == 201
    assert opened.headers["Content-Type"] == "application/json"
    shown = dict(opened.json)
    created_at = instant(shown.pop("created_at"))
    assert abs(created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert shown == {
        "id": id_,
        "module": "dev",
        "owner": "merchant:1",
        "type": "merchant_available",
        "currency": "CNY",
        "status": "open",
        "balance": {"posted": 0, "held": 0, "pending": 0, "available": 0},
        "version": 0,
        "sub_accounts": 1,
        "heat": "cold",
        "posting": "direct",
        "metadata": {"a": "x", "b": 1},
    }
    again = await client.post("/v1/accounts", {**asked, "metadata": {"a": "x", "b": 1}})
    assert (again.status, again.json) == (200, opened.json)
    assert (await client.get(f"/v1/accounts/{id_}")).json == opened.json


@pytest.mark.parametrize(
    "other",
    [
        {"owner": "merchant:2"},
        {"type": "merchant_pending"},
        {"currency": "USD"},
        {"metadata": {"a": 2}},
        {"metadata": None},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_an_account_that_exists_and_differs_is_a_conflict(client: Client, other: dict) -> None:
    id_ = f"merchant:{uuid.uuid4().hex}:available"
    asked = {"id": id_, "owner": "merchant:1", "type": "merchant_available", "currency": "CNY", "metadata": {"a": 1}}
    opened = await client.post("/v1/accounts", asked)
    answer = await client.post("/v1/accounts", {**asked, **other})
    assert is_problem(answer, 409, "account-exists")
    assert answer.json["account"] == id_
    assert (await client.get(f"/v1/accounts/{id_}")).json == opened.json


@pytest.mark.parametrize(
    ("type_", "split"),
    [
        ("bank", True),
        ("fee_income", True),
        ("channel_expense", True),
        ("payout_transit", True),
        ("suspense", True),
        ("merchant_pending", False),
        ("merchant_available", False),
        ("receivable", False),
        ("merchant_reserve", False),
        ("equity", True),
        ("other_income", True),
        ("own_transit", True),
        ("channel_payable", True),
    ],
)
async def test_every_type_of_account_opens_and_platform_accounts_are_split_from_birth(
    client: Client, type_: str, split: bool
) -> None:
    id_ = await client.open_account(f"{type_}:{uuid.uuid4().hex}", type_)
    shown = (await client.get(f"/v1/accounts/{id_}")).json
    assert shown["type"] == type_
    assert (shown["sub_accounts"] > 1) == split


async def test_balances_count_in_the_normal_direction_of_the_account(client: Client) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    owed = await client.merchant(type_="receivable")
    merchant = await client.merchant()
    await client.pay(bank, merchant, 70)
    await client.pay(owed, merchant, 30)
    assert (await client.balance(bank))["posted"] == 70
    assert (await client.balance(owed))["posted"] == 30
    assert (await client.balance(merchant))["posted"] == 100


# --- Freeze, unfreeze, close -------------------------------------------------------------------------------------------


async def test_a_frozen_account_takes_no_debits_and_with_scope_all_no_credits(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant(100)
    answer = await client.post(f"/v1/accounts/{a}/freeze", {"reason": "court order"})
    assert (answer.status, answer.json["status"]) == (200, "frozen")
    refused = await client.pay(a, b, 1)
    assert is_problem(refused, 422, "account-frozen")
    assert refused.json["account"] == a
    assert (await client.pay(b, a, 1)).status == 201
    assert is_problem(
        await client.post("/v1/holds", {"id": f"hold:{uuid.uuid4().hex}", "account": a, "amount": 1}),
        422,
        "account-frozen",
    )
    answer = await client.post(f"/v1/accounts/{a}/freeze", {"reason": "worse", "scope": "all"})
    assert (answer.status, answer.json["status"]) == (200, "frozen")
    assert is_problem(await client.pay(a, b, 1), 422, "account-frozen")
    assert is_problem(await client.pay(b, a, 1), 422, "account-frozen")
    answer = await client.post(f"/v1/accounts/{a}/freeze", {})
    assert (await client.pay(b, a, 1)).status == 201
    answer = await client.post(f"/v1/accounts/{a}/unfreeze")
    assert (answer.status, answer.json["status"]) == (200, "open")
    assert (await client.pay(a, b, 1)).status == 201


async def test_freezing_again_changes_nothing(client: Client) -> None:
    a = await client.merchant()
    first = await client.post(f"/v1/accounts/{a}/freeze", {"reason": "x"})
    again = await client.post(f"/v1/accounts/{a}/freeze", {"reason": "y"})
    assert (again.status, again.json) == (200, first.json)


async def test_a_voucher_that_met_a_frozen_account_stays_refused(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    await client.post(f"/v1/accounts/{a}/freeze")
    asked = voucher(a, b, 1)
    first = await client.post("/v1/vouchers", asked)
    await client.post(f"/v1/accounts/{a}/unfreeze", {"reason": "a mistake"})
    again = await client.post("/v1/vouchers", asked)
    assert (again.status, refusal_of(again), again.is_replay) == (422, refusal_of(first), True)
    assert (await client.post("/v1/vouchers", voucher(a, b, 1))).status == 201


async def test_a_platform_account_freezes_on_every_slot(client: Client) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    merchant = await client.merchant()
    await client.post(f"/v1/accounts/{bank}/freeze", {"scope": "all"})
    for _ in range(6):
        async with Client(client.base_url, client.token) as other:
            assert (await other.pay(bank, merchant, 1)).problem == "account-frozen"
    await client.post(f"/v1/accounts/{bank}/unfreeze")
    assert (await client.pay(bank, merchant, 1)).status == 201


async def test_an_empty_account_closes_permanently(client: Client) -> None:
    a, b = await client.merchant(10), await client.merchant()
    answer = await client.post(f"/v1/accounts/{a}/close")
    assert is_problem(answer, 422, "account-not-empty")
    hold = f"hold:{uuid.uuid4().hex}"
    await client.pay(a, b, 10)
    await client.post("/v1/holds", {"id": hold, "account": b, "amount": 10})
    assert is_problem(await client.post(f"/v1/accounts/{b}/close", {}), 422, "account-not-empty")
    for _ in range(2):
        answer = await client.post(f"/v1/accounts/{a}/close", {"reason": "moved away"})
        assert (answer.status, answer.json["status"]) == (200, "closed")
    assert is_problem(await client.pay(b, a, 1), 422, "account-closed")
    assert is_problem(await client.pay(a, b, 1), 422, "account-closed")
    for verb in ("freeze", "unfreeze"):
        assert is_problem(await client.post(f"/v1/accounts/{a}/{verb}"), 422, "account-closed")
    assert (await client.get(f"/v1/accounts/{a}")).json["status"] == "closed"
