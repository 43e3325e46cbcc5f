"""Vouchers over HTTP: single, batches, and reversals."""

import json
import uuid
from datetime import UTC, datetime, timedelta

from tests.support.answers import instant, is_problem, refusal_of
from tests.support.client import Client, line, new_id, voucher
from tests.support.running import RunningService


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
    assert shown == {**asked, "module": "dev", "status": "posted", "accounting_date": posted_at.date().isoformat()}
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


async def test_a_refusal_for_funds_is_final_and_repeated(client: Client) -> None:
    a, b = await client.merchant(5), await client.merchant(100)
    asked = voucher(a, b, 10)
    first = await client.post("/v1/vouchers", asked)
    assert is_problem(first, 422, "insufficient-funds")
    assert first.json["account"] == a
    assert not first.is_replay
    await client.pay(b, a, 50)
    again = await client.post("/v1/vouchers", asked)
    assert (again.status, refusal_of(again), again.is_replay) == (422, refusal_of(first), True)
    shown = await client.get(f"/v1/vouchers/{asked['id']}")
    assert (shown.status, shown.json["status"]) == (200, "refused")
    assert shown.json["problem"] == refusal_of(first)
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


async def test_a_voucher_that_was_never_posted_is_not_found(client: Client) -> None:
    assert is_problem(await client.get(f"/v1/vouchers/{new_id()}"), 404, "not-found")


# --- Batches -----------------------------------------------------------------------------------------------------------


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
    assert [(r["id"], r["status"]) for r in answer.json["results"]] == [(v["id"], "posted") for v in asked]
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


# --- Reversals ---------------------------------------------------------------------------------------------------------


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


async def test_a_reversal_has_a_reference_and_metadata_of_its_own_which_are_its_content(client: Client) -> None:
    original = await client.pay(await client.bank(), await client.merchant(), 5)
    path, id_ = f"/v1/vouchers/{original.json['id']}/reverse", new_id()
    asked = {"id": id_, "reference": "order 7", "metadata": {"order_no": "7", "kind": "reversal"}}
    first = await client.post(path, asked)
    assert first.status == 201
    assert (first.json["reference"], first.json["metadata"]) == ("order 7", asked["metadata"])
    again = await client.post(path, asked)
    assert (again.status, again.body) == (200, first.body)
    for other in ({"id": id_}, {**asked, "reference": "order 8"}, {**asked, "metadata": {"order_no": "8"}}):
        assert is_problem(await client.post(path, other), 422, "voucher-id-reused")
    for bad, field in (({"metadata": []}, "metadata"), ({"reference": ""}, "reference"), ({"note": "x"}, "note")):
        answer = await client.post(path, {"id": new_id(), **bad})
        assert answer.status == 400
        assert field.encode() in answer.body
