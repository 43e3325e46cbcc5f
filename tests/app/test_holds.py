"""Holds over HTTP: placing, capturing, releasing and expiry."""

import uuid
from datetime import UTC, datetime, timedelta

from tests.support.answers import at, instant, is_problem, refusal_of
from tests.support.client import Client, voucher
from tests.support.waiting import eventually


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
    # A replay of the request that placed the hold still gets the first response.
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
    assert (again.status, refusal_of(again), again.is_replay) == (422, refusal_of(first), True)
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


async def test_an_expired_hold_refuses_capture_immediately_and_frees_its_money_within_ten_seconds(
    client: Client,
) -> None:
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
