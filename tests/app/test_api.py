"""The contract of the account service, route by route, over HTTP against running workers."""

import csv
import io
import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from tests.support.client import Answer, Client, line, new_id, voucher
from tests.support.running import RunningService
from tests.support.waiting import eventually


def is_problem(answer: Answer, status: int, problem: str) -> bool:
    """A refusal in the form that RFC 9457 and the contract ask for."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer
    assert answer.json["status"] == answer.status == status, answer
    assert answer.problem == problem, answer
    assert answer.json["title"] and answer.json["detail"]
    return True


def instant(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


def at(moment: datetime) -> str:
    return quote(moment.astimezone(UTC).isoformat().replace("+00:00", "Z"))


# --- Accounts -------------------------------------------------------------------------------------------------------


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
        "owner": "merchant:1",
        "type": "merchant_available",
        "currency": "CNY",
        "status": "open",
        "balance": {"posted": 0, "held": 0, "pending": 0, "available": 0},
        "version": 0,
        "sub_accounts": 1,
        "heat": "cold",
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


# --- Vouchers -------------------------------------------------------------------------------------------------------


async def test_a_voucher_is_posted_and_answered_as_the_contract_says(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    bank = await client.bank()
    entries = [line(a, "debit", 100), line(b, "credit", 70), line(bank, "credit", 30)]
    asked = {
        "id": new_id(),
        "type": "pay",
        "entries": entries,
        "reference": "order 7 / 订单",
        "metadata": {"k": [1, None]},
    }
    answer = await client.post("/v1/vouchers", asked)
    assert answer.status == 201
    assert not answer.is_replay
    assert answer.headers["Content-Type"] == "application/json"
    shown = dict(answer.json)
    posted_at = instant(shown.pop("posted_at"))
    assert abs(posted_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert shown == {**asked, "status": "posted", "accounting_date": posted_at.date().isoformat()}
    assert [(await client.balance(x))["posted"] for x in (a, b)] == [0, 70]
    assert (await client.get(f"/v1/vouchers/{asked['id']}")).json == answer.json


async def test_a_repeat_is_byte_identical_and_marked_on_every_connection(
    service: RunningService, client: Client
) -> None:
    a, b = await client.merchant(100), await client.merchant()
    asked = voucher(a, b, 10, reference="r")
    first = await client.post("/v1/vouchers", asked)
    for _ in range(8):
        async with Client(service.base_url, service.token) as other:
            again = await other.post("/v1/vouchers", asked)
        assert (again.status, again.is_replay) == (200, True)
        assert again.body == first.body
    reordered = json.dumps(dict(reversed(asked.items())), indent=2).encode()
    again = await client.post("/v1/vouchers", body=reordered)
    assert (again.status, again.body) == (200, first.body)
    again = await client.post("/v1/vouchers", {**asked, "id": asked["id"].upper()})
    assert (again.status, again.body) == (200, first.body)
    assert (await client.balance(b))["posted"] == 10


async def test_a_refusal_for_funds_is_final_and_repeated_byte_by_byte(client: Client) -> None:
    a, b = await client.merchant(5), await client.merchant(100)
    asked = voucher(a, b, 10)
    first = await client.post("/v1/vouchers", asked)
    assert is_problem(first, 422, "insufficient-funds")
    assert first.json["account"] == a
    assert not first.is_replay
    await client.pay(b, a, 50)
    again = await client.post("/v1/vouchers", asked)
    assert (again.status, again.body, again.is_replay) == (422, first.body, True)
    shown = await client.get(f"/v1/vouchers/{asked['id']}")
    assert (shown.status, shown.json["status"]) == (200, "refused")
    assert shown.json["problem"] == first.json
    assert (await client.balance(a))["posted"] == 55


async def test_an_id_with_other_content_is_refused(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    asked = voucher(a, b, 10, reference="r")
    await client.post("/v1/vouchers", asked)
    for other in (
        {"type": "refund"},
        {"reference": "s"},
        {"reference": None},
        {"metadata": {}},
        {"entries": voucher(a, b, 11)["entries"]},
        {"entries": voucher(b, a, 10)["entries"]},
    ):
        answer = await client.post("/v1/vouchers", {**asked, **other})
        assert is_problem(answer, 422, "voucher-id-reused")
        assert answer.json["field"] == "id"
    assert (await client.balance(b))["posted"] == 10


async def test_refusals_that_leave_the_id_free(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    dollars = await client.merchant(currency="USD")
    id_ = new_id()
    nobody = f"merchant:{uuid.uuid4().hex}"
    unbalanced = {**voucher(a, b, 10, id_), "entries": [line(a, "debit", 10), line(b, "credit", 11)]}
    for asked, status, problem, member, value in (
        (unbalanced, 400, "voucher-unbalanced", "field", "entries"),
        (voucher(a, nobody, 10, id_), 422, "account-not-found", "account", nobody),
        (voucher(a, dollars, 10, id_), 422, "currency-mismatch", "account", dollars),
    ):
        answer = await client.post("/v1/vouchers", asked)
        assert is_problem(answer, status, problem)
        assert answer.json[member] == value
        assert is_problem(await client.get(f"/v1/vouchers/{id_}"), 404, "not-found")
    assert (await client.post("/v1/vouchers", voucher(a, b, 10, id_))).status == 201


async def test_an_account_that_was_missing_is_found_once_it_is_there(client: Client) -> None:
    a = await client.merchant(100)
    late = f"merchant:{uuid.uuid4().hex}:available"
    id_ = new_id()
    assert (await client.pay(a, late, 10, id_)).problem == "account-not-found"
    await client.open_account(late)
    for _ in range(4):
        assert (await client.pay(a, late, 10, id_)).status in (201, 200)
    assert (await client.balance(late))["posted"] == 10


async def test_a_voucher_of_64_lines_with_the_largest_amounts(client: Client) -> None:
    bank = await client.open_account(f"bank:{uuid.uuid4().hex}", "bank")
    rich = await client.merchant()
    most = 2**53 - 1
    entries = [line(bank, "debit", most), line(rich, "credit", most)] * 32
    answer = await client.post("/v1/vouchers", {"id": new_id(), "type": "pay", "entries": entries})
    assert answer.status == 201
    assert (await client.balance(rich))["posted"] == 32 * most


async def test_a_voucher_that_nobody_posted_is_not_found(client: Client) -> None:
    assert is_problem(await client.get(f"/v1/vouchers/{new_id()}"), 404, "not-found")


# --- Batches --------------------------------------------------------------------------------------------------------


async def test_results_answer_the_vouchers_in_their_places(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    dollars = await client.merchant(currency="USD")
    twice = new_id()
    asked = [
        voucher(a, b, 10),
        voucher(b, a, 1000),
        {**voucher(a, b, 1), "entries": [line(a, "debit", 1), line(b, "credit", 2)]},
        voucher(a, f"merchant:{uuid.uuid4().hex}", 1),
        voucher(a, dollars, 1),
        voucher(a, b, 5, twice),
        voucher(a, b, 5, twice),
        voucher(a, b, 6, twice),
        voucher(a, b, 10),
    ]
    answer = await client.post("/v1/vouchers/batch", {"vouchers": asked})
    assert answer.status == 200
    results = answer.json["results"]
    assert [result["id"] for result in results] == [v["id"] for v in asked]
    told = [
        result["problem"]["type"].rpartition(":")[2] if "problem" in result else result["status"] for result in results
    ]
    assert told == [
        "posted",
        "insufficient-funds",
        "voucher-unbalanced",
        "account-not-found",
        "currency-mismatch",
        "posted",
        "posted",
        "voucher-id-reused",
        "posted",
    ]
    assert [result["status"] for result in results] == ["posted" if t == "posted" else "refused" for t in told]
    assert (await client.balance(b))["posted"] == 25
    again = (await client.post("/v1/vouchers/batch", {"vouchers": asked})).json["results"]
    assert [result["status"] for result in again] == [result["status"] for result in results]
    assert (await client.balance(b))["posted"] == 25


async def test_a_batch_of_5000_is_taken_and_one_of_5001_is_not(client: Client) -> None:
    bank, b = await client.bank(), await client.merchant()
    vouchers = [voucher(bank, b, 1) for _ in range(5001)]
    answer = await client.post("/v1/vouchers/batch", {"vouchers": vouchers})
    assert is_problem(answer, 400, "malformed")
    assert (await client.balance(b))["posted"] == 0
    answer = await client.post("/v1/vouchers/batch", {"vouchers": vouchers[:5000]})
    assert answer.status == 200
    assert {result["status"] for result in answer.json["results"]} == {"posted"}
    assert (await client.balance(b))["posted"] == 5000


async def test_one_item_that_is_no_voucher_makes_the_whole_batch_malformed(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    for bad, field in (
        ({"id": new_id(), "type": "pay"}, "vouchers[1].entries"),
        ({**voucher(a, b, 1), "id": "7"}, "vouchers[1].id"),
        ({**voucher(a, b, 1), "type": "PAY"}, "vouchers[1].type"),
        ({**voucher(a, b, 1), "entries": [line(a, "debit", 0), line(b, "credit", 0)]}, "vouchers[1].entries[0].amount"),
    ):
        answer = await client.post("/v1/vouchers/batch", {"vouchers": [voucher(a, b, 1), bad, voucher(a, b, 1)]})
        assert is_problem(answer, 400, "malformed")
        assert answer.json["field"] == field
    assert (await client.balance(b))["posted"] == 0


async def test_an_atomic_batch_posts_all(client: Client) -> None:
    a, b = await client.merchant(10), await client.merchant()
    asked = [voucher(a, b, 4), voucher(a, b, 6)]
    answer = await client.post("/v1/vouchers/batch", {"vouchers": asked, "atomic": True})
    assert answer.json["results"] == [{"id": v["id"], "status": "posted"} for v in asked]
    again = await client.post("/v1/vouchers/batch", {"vouchers": asked, "atomic": True})
    assert [r["status"] for r in again.json["results"]] == ["posted", "posted"]
    assert (await client.balance(b))["posted"] == 10


async def test_an_atomic_batch_posts_none_when_one_is_refused(client: Client) -> None:
    a, b = await client.merchant(10), await client.merchant()
    asked = [voucher(a, b, 4), voucher(a, b, 7), voucher(b, a, 1)]
    answer = await client.post("/v1/vouchers/batch", {"vouchers": asked, "atomic": True})
    assert answer.status == 200
    results = answer.json["results"]
    assert [r["status"] for r in results] == ["refused"] * 3
    told = [r["problem"]["type"].rpartition(":")[2] for r in results]
    assert told == ["batch-aborted", "insufficient-funds", "batch-aborted"]
    assert (await client.balance(a))["posted"] == 10
    assert (await client.get(f"/v1/vouchers/{asked[1]['id']}")).json["status"] == "refused"
    assert (await client.get(f"/v1/vouchers/{asked[0]['id']}")).status == 404
    assert (await client.post("/v1/vouchers", asked[0])).status == 201
    assert (await client.post("/v1/vouchers", {**asked[1], "entries": voucher(a, b, 1)["entries"]})).problem == (
        "voucher-id-reused"
    )


# --- Reversals ------------------------------------------------------------------------------------------------------


async def test_a_voucher_is_reversed_once_and_both_say_so(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    original = voucher(a, b, 30)
    await client.post("/v1/vouchers", original)
    id_ = new_id()
    answer = await client.post(f"/v1/vouchers/{original['id']}/reverse", {"id": id_})
    assert answer.status == 201
    assert answer.json["id"] == id_
    assert answer.json["reverses"] == original["id"]
    assert answer.json["entries"] == [line(a, "credit", 30), line(b, "debit", 30)]
    assert [(await client.balance(x))["posted"] for x in (a, b)] == [100, 0]
    assert (await client.get(f"/v1/vouchers/{original['id']}")).json["reversed_by"] == id_
    assert (await client.get(f"/v1/vouchers/{id_}")).json == answer.json
    again = await client.post(f"/v1/vouchers/{original['id']}/reverse", {"id": id_})
    assert (again.status, again.is_replay, again.body) == (200, True, answer.body)
    second = await client.post(f"/v1/vouchers/{original['id']}/reverse", {"id": new_id()})
    assert is_problem(second, 422, "voucher-already-reversed")
    assert [(await client.balance(x))["posted"] for x in (a, b)] == [100, 0]


async def test_a_reversal_needs_the_money_and_a_voucher_that_was_posted(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    original, refused = voucher(a, b, 30), voucher(b, a, 1000)
    await client.post("/v1/vouchers", original)
    await client.post("/v1/vouchers", refused)
    await client.pay(b, a, 10)
    answer = await client.post(f"/v1/vouchers/{original['id']}/reverse", {"id": new_id()})
    assert is_problem(answer, 422, "insufficient-funds")
    answer = await client.post(f"/v1/vouchers/{refused['id']}/reverse", {"id": new_id()})
    assert is_problem(answer, 422, "voucher-not-posted")
    answer = await client.post(f"/v1/vouchers/{new_id()}/reverse", {"id": new_id()})
    assert is_problem(answer, 404, "not-found")
    answer = await client.post(f"/v1/vouchers/{original['id']}/reverse", {"id": original["id"]})
    assert is_problem(answer, 422, "voucher-id-reused")


async def test_a_reversal_can_be_reversed(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    original, first, second = voucher(a, b, 30), new_id(), new_id()
    await client.post("/v1/vouchers", original)
    await client.post(f"/v1/vouchers/{original['id']}/reverse", {"id": first})
    assert (await client.post(f"/v1/vouchers/{first}/reverse", {"id": second})).status == 201
    assert [(await client.balance(x))["posted"] for x in (a, b)] == [70, 30]


# --- Holds ----------------------------------------------------------------------------------------------------------


async def test_a_hold_is_placed_shown_and_placed_again(client: Client) -> None:
    a = await client.merchant(100)
    id_ = f"hold:{uuid.uuid4().hex}"
    expires = at(datetime.now(UTC) + timedelta(hours=1))
    asked = {"id": id_, "account": a, "amount": 60, "expires_at": expires.replace("%3A", ":")}
    answer = await client.post("/v1/holds", asked)
    assert answer.status == 201
    assert {key: answer.json[key] for key in ("id", "account", "amount", "status", "captured")} == {
        "id": id_,
        "account": a,
        "amount": 60,
        "status": "open",
        "captured": 0,
    }
    assert instant(answer.json["expires_at"]) == instant(asked["expires_at"])
    assert await client.balance(a) == {"posted": 100, "held": 60, "pending": 0, "available": 40}
    again = await client.post("/v1/holds", asked)
    assert (again.status, again.is_replay, again.body) == (200, True, answer.body)
    assert is_problem(await client.post("/v1/holds", {**asked, "amount": 61}), 422, "hold-id-reused")
    assert (await client.get(f"/v1/holds/{id_}")).json == answer.json
    assert (await client.balance(a))["held"] == 60


async def test_a_capture_takes_a_part_and_frees_the_rest(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    hold = f"hold:{uuid.uuid4().hex}"
    await client.post("/v1/holds", {"id": hold, "account": a, "amount": 60})
    asked = {"voucher": voucher(a, b, 45)}
    answer = await client.post(f"/v1/holds/{hold}/capture", asked)
    assert answer.status == 201
    assert (answer.json["hold"], answer.json["entries"]) == (hold, asked["voucher"]["entries"])
    assert await client.balance(a) == {"posted": 55, "held": 0, "pending": 0, "available": 55}
    shown = (await client.get(f"/v1/holds/{hold}")).json
    assert (shown["status"], shown["captured"], shown["voucher_id"]) == ("captured", 45, asked["voucher"]["id"])
    again = await client.post(f"/v1/holds/{hold}/capture", asked)
    assert (again.status, again.is_replay, again.body) == (200, True, answer.body)
    second = await client.post(f"/v1/holds/{hold}/capture", {"voucher": voucher(a, b, 1)})
    assert is_problem(second, 422, "hold-captured")
    assert is_problem(await client.post(f"/v1/holds/{hold}/release"), 422, "hold-captured")
    # The first answer to the placing request stays its answer.
    again = await client.post("/v1/holds", {"id": hold, "account": a, "amount": 60})
    assert (again.status, again.json["status"]) == (200, "open")


async def test_a_capture_beyond_the_hold_or_from_another_account_is_refused(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant(100)
    hold = f"hold:{uuid.uuid4().hex}"
    await client.post("/v1/holds", {"id": hold, "account": a, "amount": 60})
    for asked in (voucher(a, b, 61), voucher(b, a, 1)):
        answer = await client.post(f"/v1/holds/{hold}/capture", {"voucher": asked})
        assert is_problem(answer, 422, "hold-exceeded")
    assert (await client.get(f"/v1/holds/{hold}")).json["status"] == "open"
    assert is_problem(await client.post("/v1/holds/nohold/capture", {"voucher": voucher(a, b, 1)}), 404, "not-found")


async def test_a_hold_is_released_with_and_without_a_body(client: Client) -> None:
    a = await client.merchant(100)
    for send in (None, {}, {"reason": "the buyer went away"}):
        hold = f"hold:{uuid.uuid4().hex}"
        await client.post("/v1/holds", {"id": hold, "account": a, "amount": 100})
        answer = await client.post(f"/v1/holds/{hold}/release", send)
        assert (answer.status, answer.json["status"]) == (200, "released")
        again = await client.post(f"/v1/holds/{hold}/release", send)
        assert (again.status, again.is_replay, again.json) == (200, True, answer.json)
        capture = await client.post(f"/v1/holds/{hold}/capture", {"voucher": voucher(a, await client.bank(), 1)})
        assert is_problem(capture, 422, "hold-released")
    assert (await client.balance(a))["available"] == 100
    assert is_problem(await client.post("/v1/holds/nohold/release"), 404, "not-found")


async def test_a_hold_that_is_refused_is_final_and_can_be_read(client: Client) -> None:
    a = await client.merchant(5)
    hold = f"hold:{uuid.uuid4().hex}"
    asked = {"id": hold, "account": a, "amount": 10}
    first = await client.post("/v1/holds", asked)
    assert is_problem(first, 422, "insufficient-funds")
    await client.pay(await client.bank(), a, 100)
    again = await client.post("/v1/holds", asked)
    assert (again.status, again.body, again.is_replay) == (422, first.body, True)
    assert (await client.get(f"/v1/holds/{hold}")).json["status"] == "refused"
    capture = await client.post(f"/v1/holds/{hold}/capture", {"voucher": voucher(a, await client.bank(), 1)})
    assert is_problem(capture, 422, "hold-refused")


async def test_a_hold_on_nobodys_or_a_platform_account_is_refused(client: Client) -> None:
    nobody = f"merchant:{uuid.uuid4().hex}"
    answer = await client.post("/v1/holds", {"id": f"hold:{uuid.uuid4().hex}", "account": nobody, "amount": 10})
    assert is_problem(answer, 422, "account-not-found")
    answer = await client.post(
        "/v1/holds", {"id": f"hold:{uuid.uuid4().hex}", "account": await client.bank(), "amount": 1}
    )
    assert is_problem(answer, 422, "hold-on-platform-account")
    assert is_problem(await client.get("/v1/holds/nohold"), 404, "not-found")


async def test_a_hold_that_ends_in_the_past_is_malformed(client: Client) -> None:
    a = await client.merchant(5)
    for then in ("2020-01-01T00:00:00Z", "1960-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z"):
        asked = {"id": f"hold:{uuid.uuid4().hex}", "account": a, "amount": 1, "expires_at": then}
        answer = await client.post("/v1/holds", asked)
        assert is_problem(answer, 400, "hold-expiry-past")
        assert answer.json["field"] == "expires_at"
    assert (await client.balance(a))["held"] == 0


async def test_an_expired_hold_refuses_capture_at_once_and_frees_its_money_within_ten_seconds(client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    hold = f"hold:{uuid.uuid4().hex}"
    expires_at = datetime.now(UTC) + timedelta(seconds=1)
    asked = {"id": hold, "account": a, "amount": 60, "expires_at": expires_at.isoformat().replace("+00:00", "Z")}
    assert (await client.post("/v1/holds", asked)).status == 201
    await eventually(lambda: datetime.now(UTC) > expires_at, "the hold's time is up")
    answer = await client.post(f"/v1/holds/{hold}/capture", {"voucher": voucher(a, b, 1)})
    assert is_problem(answer, 422, "hold-expired")
    assert (await client.get(f"/v1/holds/{hold}")).json["status"] == "expired"
    assert is_problem(await client.post(f"/v1/holds/{hold}/release"), 422, "hold-expired")

    async def is_free() -> bool:
        return (await client.balance(a))["held"] == 0

    left = (expires_at + timedelta(seconds=10) - datetime.now(UTC)).total_seconds()
    await eventually(is_free, "the money is free again", left)
    assert (await client.get(f"/v1/holds/{hold}")).json["status"] == "expired"


# --- Statement and balance at a time --------------------------------------------------------------------------------


async def a_history(client: Client) -> tuple[str, list[tuple[str, int, str]]]:
    """An account with 30 entries, and `(voucher id, signed amount, posted_at)` of each."""
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
    """All pages, one after the other."""
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


# --- Freeze, unfreeze, close ----------------------------------------------------------------------------------------


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
    assert (again.status, again.body, again.is_replay) == (422, first.body, True)
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


async def test_an_account_closes_for_ever_once_it_is_empty(client: Client) -> None:
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


# --- What every route does ------------------------------------------------------------------------------------------

SOME = str(uuid.UUID(int=7))
ROUTES = [
    ("POST", "/v1/accounts"),
    ("GET", "/v1/accounts/nobody"),
    ("GET", "/v1/accounts/nobody/entries"),
    ("GET", "/v1/accounts/nobody/balance"),
    ("POST", "/v1/accounts/nobody/freeze"),
    ("POST", "/v1/accounts/nobody/unfreeze"),
    ("POST", "/v1/accounts/nobody/close"),
    ("POST", "/v1/vouchers"),
    ("POST", "/v1/vouchers/batch"),
    ("GET", f"/v1/vouchers/{SOME}"),
    ("POST", f"/v1/vouchers/{SOME}/reverse"),
    ("POST", "/v1/holds"),
    ("GET", "/v1/holds/nohold"),
    ("POST", "/v1/holds/nohold/capture"),
    ("POST", "/v1/holds/nohold/release"),
]
PUBLIC = ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Basic dev", "Bearer \xff"])
async def test_without_a_valid_token_it_is_401(
    service: RunningService, method: str, path: str, header: str | None
) -> None:
    async with Client(service.base_url, None) as nobody:
        headers = {} if header is None else {"Authorization": header}
        answer = await nobody.request(method, path, b"{}" if method == "POST" else None, headers)
    assert is_problem(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("path", PUBLIC)
async def test_public_routes_need_no_token(service: RunningService, path: str) -> None:
    async with Client(service.base_url, None) as nobody:
        assert (await nobody.get(path)).status == 200


async def test_the_scheme_of_the_token_is_case_insensitive(service: RunningService) -> None:
    async with Client(service.base_url, None) as client:
        answer = await client.get("/v1/accounts/nobody", {"Authorization": f"bEARER {service.token}"})
    assert answer.status == 404


@pytest.mark.parametrize(
    "path", [path for method, path in ROUTES if "nobody" in path or "nohold" in path or SOME in path]
)
async def test_an_unknown_resource_is_404(client: Client, path: str) -> None:
    method = next(m for m, p in ROUTES if p == path)
    if method == "GET":
        answer = await client.get(path)
    elif path.endswith("reverse"):
        answer = await client.post(path, {"id": new_id()})
    elif path.endswith("capture"):
        answer = await client.post(path, {"voucher": voucher("a", "b", 1)})
    else:
        answer = await client.post(path, {})
    assert is_problem(answer, 404, "not-found")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v2/vouchers", "/v1/accounts//entries/x"])
async def test_an_unknown_path_is_404(client: Client, path: str) -> None:
    assert is_problem(await client.get(path), 404, "not-found")
    assert is_problem(await client.post(path, {}), 404, "not-found")


@pytest.mark.parametrize(("method", "path"), [*ROUTES, *(("GET", path) for path in PUBLIC)])
async def test_another_method_is_405_and_names_the_right_one(client: Client, method: str, path: str) -> None:
    for wrong in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {method}:
        if wrong == "GET" and path == "/v1/vouchers/batch":
            continue  # a voucher id may stand there
        answer = await client.request(wrong, path, b"{}" if wrong != "GET" else None)
        assert is_problem(answer, 405, "method-not-allowed")
        assert method in answer.headers["Allow"]


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "POST"])
async def test_a_body_that_is_compressed_or_no_json_is_415(client: Client, path: str) -> None:
    for headers in (
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonx"},
    ):
        answer = await client.post(path, body=b'{"id":"x"}', headers=headers)
        assert is_problem(answer, 415, "unsupported-media-type")


async def test_json_may_say_its_charset(client: Client) -> None:
    a, b = await client.merchant(10), await client.merchant()
    for type_ in ("application/json; charset=utf-8", "APPLICATION/JSON", "application/json;charset=UTF-8"):
        answer = await client.post("/v1/vouchers", voucher(a, b, 1), headers={"Content-Type": type_})
        assert answer.status == 201


@pytest.mark.parametrize("path", [path for method, path in ROUTES if method == "POST"])
async def test_a_body_beyond_the_limit_is_413(client: Client, path: str) -> None:
    size = (9 << 20) if path.endswith("batch") else (65 << 10)
    answer = await client.post(path, body=b'{"id":"' + b"x" * size + b'"}')
    assert is_problem(answer, 413, "body-too-large")
    assert (await client.get("/healthz")).status == 200


async def test_answers_are_not_to_be_stored(client: Client) -> None:
    a, b = await client.merchant(10), await client.merchant()
    for answer in (
        await client.get(f"/v1/accounts/{a}"),
        await client.post("/v1/vouchers", voucher(a, b, 1)),
        await client.post("/v1/vouchers", {}),
    ):
        assert answer.headers["Cache-Control"] == "no-store"


async def test_a_problem_never_tells_a_balance(client: Client) -> None:
    a, b = await client.merchant(123_456_789), await client.merchant()
    hold = f"hold:{uuid.uuid4().hex}"
    await client.post("/v1/holds", {"id": hold, "account": a, "amount": 23_456_789})
    told = [
        await client.pay(a, b, 900_000_000),
        await client.post("/v1/holds", {"id": f"hold:{uuid.uuid4().hex}", "account": a, "amount": 900_000_000}),
        await client.post(f"/v1/accounts/{a}/close"),
    ]
    for answer in told:
        assert answer.status == 422
        assert not any(secret in answer.body for secret in (b"123456789", b"100000000", b"23456789"))


# --- What is not money ----------------------------------------------------------------------------------------------


async def test_health_and_readiness(client: Client) -> None:
    assert (await client.get("/healthz")).status == 200
    assert (await client.get("/readyz")).status == 200


async def test_the_metrics_count_what_was_asked_whichever_worker_is_scraped(client: Client) -> None:
    async def posted() -> float:
        text = (await client.get("/metrics")).body.decode()
        lines = [row for row in text.splitlines() if row.startswith('fundledger_vouchers_total{outcome="posted"}')]
        return float(lines[0].split()[-1]) if lines else 0.0

    a, b = await client.merchant(100), await client.merchant()
    before = await posted()
    for _ in range(5):
        async with Client(client.base_url, client.token) as other:
            await other.pay(a, b, 1)
    assert await posted() == before + 5
    text = (await client.get("/metrics")).body.decode()
    for name in (
        "fundledger_requests_total",
        "fundledger_request_duration_seconds_bucket",
        "fundledger_batch_size_commands_bucket",
        "fundledger_lane_waiting_commands",
    ):
        assert name in text
    assert "fundledger_workers 2.0" in text


async def test_a_head_request_is_answered_without_a_body(client: Client) -> None:
    answer = await client.request("HEAD", "/healthz")
    assert (answer.status, answer.body) == (200, b"")


async def test_a_get_by_one_worker_sees_what_another_posted(service: RunningService, client: Client) -> None:
    a, b = await client.merchant(100), await client.merchant()
    for i in range(10):
        id_ = new_id()
        assert (await client.pay(a, b, 1, id_)).status == 201
        async with Client(service.base_url, service.token) as other:
            assert (await other.get(f"/v1/vouchers/{id_}")).status == 200
            assert (await other.balance(b))["posted"] == i + 1


async def test_the_clock_of_an_answer_is_the_servers(client: Client) -> None:
    a, b = await client.merchant(10), await client.merchant()
    before = time.time()
    posted_at = instant((await client.pay(a, b, 1)).json["posted_at"]).timestamp()
    assert before - 1 < posted_at < time.time() + 1
