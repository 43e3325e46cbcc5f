"""Rate limits as a caller sees them: rejected requests, rate-limit headers, requests that cost nothing."""

import json
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fundledger.app.account.routes import ROUTES
from tests.support.answers import is_problem
from tests.support.client import Client, new_id, voucher
from tests.support.limits import (
    PAYS,
    Limited,
    a_limited_service,
    fund,
    funded,
    is_denied,
    is_not_served,
    items_of,
    owner_of,
    pays,
    says_where_one_stands,
    statuses,
)
from tests.support.waiting import eventually
from tests.support.wire import Reply, Wire, connected, request


@pytest.fixture(scope="module")
async def limited() -> AsyncIterator[Limited]:
    # With the default deadline, a store that is slow for a moment would be treated as unavailable.
    async with a_limited_service(FUNDLEDGER_RATELIMIT_DEADLINE_MS="1000") as limited:
        yield limited


@pytest.fixture
async def client(limited: Limited) -> AsyncIterator[Client]:
    async with limited.one() as client:
        yield client


# --- The caller's quota ---------------------------------------------------------------------------------------------


async def test_beyond_its_quota_a_caller_gets_a_wait_and_the_name_of_the_policy(
    limited: Limited, client: Client
) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        answers = await pays(client, a, b, PAYS + 2)
        assert statuses(answers) == [201] * PAYS + [429] * 2
        for left, answer in zip((2, 1, 0), answers, strict=False):
            parameters = says_where_one_stands(answer.headers, "wide", "pays")
            assert items_of(answer.headers["RateLimit"])[0][0] == "pays", "the policy that is exhausted first"
            assert parameters["r"] == left
            assert "Retry-After" not in answer.headers
            assert "X-Limit-Decision" not in answer.headers
        for answer in answers[PAYS:]:
            assert is_denied(answer, "pays") <= math.ceil(10 * 1.2)
            assert says_where_one_stands(answer.headers, "wide", "pays")["r"] == 0
        assert dict(items_of(answers[0].headers["RateLimit-Policy"]))["pays"] == {"q": 3, "w": 30}
        # Another merchant is not affected.
        other = await funded(client)
        assert (await client.pay(other, b, 1)).status == 201
        assert (await client.balance(b))["posted"] == PAYS + 1

    await limited.undisturbed(scenario)


async def test_a_caller_that_waits_as_long_as_asked_is_admitted(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a = await funded(client)
        for _ in range(4):
            answer = await client.get(f"/v1/accounts/{a}")
            while answer.status == 200:
                answer = await client.get(f"/v1/accounts/{a}")
            until = time.monotonic() + is_denied(answer, "reads")
            await eventually(lambda until=until: time.monotonic() >= until, "the time has come")
            assert (await client.get(f"/v1/accounts/{a}")).status == 200

    await limited.undisturbed(scenario)


def bad_requests() -> list[tuple[str, str, bytes | None, dict[str, str], int]]:
    found: list[tuple[str, str, bytes | None, dict[str, str], int]] = []
    for route in ROUTES:
        if route.api_class is None:
            continue
        path = route.template.replace("{id}", new_id() if "vouchers" in route.template else "nobody")
        if route.method == "POST":
            found.append((route.method, path, b"{}", {"Content-Type": "text/plain"}, 415))
            found.append((route.method, path, b"{", {}, 400))
            found.append((route.method, path, b"{}", {"X-Request-Timeout-Ms": "soon"}, 400))
            found.append((route.method, path, b"x" * (route.body_bytes_max + 1), {}, 413))
        else:
            found.append((route.method, path, None, {}, 404 if "{id}" in route.template else 200))
            found.append((route.method, path + "?nothing=1", None, {}, 400))
    return found


async def test_every_limited_route_has_rate_limit_headers_whatever_else_is_wrong(client: Client) -> None:
    cases = bad_requests()
    assert {status for *_, status in cases} == {200, 400, 404, 413, 415}
    for method, path, body, headers, status in cases:
        answer = await client.request(method, path, body, headers)
        assert answer.status == status, (method, path, answer)
        told = [name for name, _ in items_of(answer.headers["RateLimit-Policy"])]
        assert says_where_one_stands(answer.headers, *told)
        assert {"wide", "rest"} & set(told)
    refused = await client.pay(await client.merchant(), "merchant:nobody", 1)
    assert refused.status == 422
    says_where_one_stands(refused.headers, "wide")


async def test_unlimited_routes_and_unknown_callers_get_no_rate_limit_headers(limited: Limited, client: Client) -> None:
    for path in ("/healthz", "/metrics", "/docs", "/nowhere"):
        assert "RateLimit-Policy" not in (await client.get(path)).headers
    async with Client(limited.service.base_url, "wrong") as nobody:
        for answer in (await nobody.get("/v1/accounts/a"), await nobody.post("/v1/vouchers", {})):
            assert answer.status == 401
            assert "RateLimit-Policy" not in answer.headers


async def test_a_batch_costs_as_many_as_it_has(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        before = await limited.used("batches", **{"class": "batch"})
        two = await client.post("/v1/vouchers/batch", {"vouchers": [voucher(a, b, 1) for _ in range(2)]})
        assert two.status == 200
        assert says_where_one_stands(two.headers, "batches", "rest")
        assert await limited.used("pays", merchant=owner_of(a)) == 2
        assert await limited.used("batches", **{"class": "batch"}) == before + 2
        denied = await client.post("/v1/vouchers/batch", {"vouchers": [voucher(a, b, 1) for _ in range(2)]})
        is_denied(denied, "pays")
        assert statuses(await pays(client, a, b, 2)) == [201, 429]

    await limited.undisturbed(scenario)


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_batch_that_is_denied_posts_nothing_and_costs_nothing_of_any_policy(
    limited: Limited, client: Client, atomic: bool
) -> None:
    async def scenario() -> None:
        a, c, b = await funded(client), await funded(client), await client.merchant()
        before = [await limited.used("batches", **{"class": "batch"}), await limited.used("wide")]
        batch = [*(voucher(a, b, 1) for _ in range(PAYS + 1)), voucher(c, b, 1)]
        denied = await client.post("/v1/vouchers/batch", {"vouchers": batch, "atomic": atomic})
        is_denied(denied, "pays")
        for one in batch:
            assert (await client.request("GET", f"/v1/vouchers/{one['id']}")).status == 404
        assert (await client.get(f"/v1/accounts/{b}")).json["balance"]["posted"] == 0
        after = [await limited.used("batches", **{"class": "batch"}), await limited.used("wide")]
        assert after == before
        assert [await limited.used("pays", merchant=owner_of(x)) for x in (a, c)] == [0, 0]

    await limited.undisturbed(scenario)


async def test_what_is_denied_by_one_policy_costs_nothing_of_another(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        assert statuses(await pays(client, a, b, PAYS)) == [201] * PAYS
        before = await limited.used("wide", merchant=owner_of(a))
        assert statuses(await pays(client, a, b, 20)) == [429] * 20
        assert await limited.used("wide", merchant=owner_of(a)) == before
        assert await limited.used("pays", merchant=owner_of(a)) == PAYS

    await limited.undisturbed(scenario)


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["short path", "ordinary path"])
async def test_what_is_malformed_costs_a_token_of_its_caller(
    limited: Limited, client: Client, headers: dict[str, str]
) -> None:
    async def scenario() -> None:
        before = await limited.used("wide")
        for body, status in ((b"{", 400), (b'{"id":1}', 400), (b"x" * 70_000, 413)):
            assert (await client.post("/v1/vouchers", body=body, headers=headers)).status == status
        answer = await client.post("/v1/vouchers", body=b"{}", headers={"Content-Type": "text/plain", **headers})
        assert answer.status == 415

        async def are_charged() -> bool:
            return await limited.used("wide") == before + 4

        await eventually(are_charged, "all of them are charged", 5)

    await limited.undisturbed(scenario)


# --- Replays --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["short path", "ordinary path"])
async def test_a_repeat_is_answered_from_its_record_while_the_quota_is_used_up(
    limited: Limited, client: Client, headers: dict[str, str]
) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        asked = [voucher(a, b, 1) for _ in range(PAYS)]
        first = [await client.post("/v1/vouchers", one, headers=headers) for one in asked]
        assert statuses(first) == [201] * PAYS
        is_denied(await client.post("/v1/vouchers", voucher(a, b, 1), headers=headers), "pays")
        for one, answer in zip(asked, first, strict=True):
            again = await client.post("/v1/vouchers", one, headers=headers)
            assert (again.status, again.is_replay, again.body) == (200, True, answer.body)
        # A replay uses no token, also if a quota applies.
        is_denied(await client.post("/v1/vouchers", voucher(a, b, 1), headers=headers), "pays")
        assert await limited.used("pays", merchant=owner_of(a)) == PAYS
        # A denied request has no effect.
        assert (await client.balance(b))["posted"] == PAYS

    await limited.undisturbed(scenario)


async def test_a_repeat_costs_nothing_where_there_is_a_quota_left(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        asked = voucher(a, b, 1)
        assert (await client.post("/v1/vouchers", asked)).status == 201
        for _ in range(PAYS * 4):
            answer = await client.post("/v1/vouchers", asked)
            assert (answer.status, answer.is_replay) == (200, True)

        async def is_given_back() -> bool:
            return await limited.used("pays", merchant=owner_of(a)) == 1

        await eventually(is_given_back, "what repeats were charged is given back", 5)

    await limited.undisturbed(scenario)


async def test_replays_in_a_batch_are_refunded_by_every_policy(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        batch = {"vouchers": [voucher(a, b, 1)]}
        assert (await client.post("/v1/vouchers/batch", batch)).status == 200
        before = await limited.used("batches", **{"class": "batch"})
        alone = voucher(a, b, 1)
        assert (await client.post("/v1/vouchers", alone)).status == 201
        batch = {"vouchers": [alone]}

        async def is_given_back() -> bool:
            used = await limited.used("pays", merchant=owner_of(a))
            return used <= PAYS - 1 and await limited.used("batches", **{"class": "batch"}) == before

        # The last token of its quota; the next one comes in ten seconds.
        assert PAYS == 3

        async def is_repeated() -> bool:
            answer = await client.post("/v1/vouchers/batch", batch)
            return answer.status == 200 and bool(answer.json["results"][0].get("replay"))

        await eventually(is_repeated, "the repeat is let in", 30)
        await eventually(is_given_back, "and given back", 5)

    await limited.undisturbed(scenario)


async def test_repeats_of_holds_captures_and_reversals_cost_nothing(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        hold = {"id": f"hold:{new_id()}", "account": a, "amount": 5}
        assert (await client.post("/v1/holds", hold)).status == 201
        for _ in range(PAYS * 2):
            assert (await client.post("/v1/holds", hold)).status == 200
        capture = {"voucher": voucher(a, b, 5)}
        assert (await client.post(f"/v1/holds/{hold['id']}/capture", capture)).status == 201
        before = await limited.used("rest", **{"class": "confirm"})
        again = await client.post(f"/v1/holds/{hold['id']}/capture", capture)
        assert (again.status, again.is_replay) == (200, True)

        async def is_given_back() -> bool:
            used = await limited.used("pays", merchant=owner_of(a))
            return used == 1 and await limited.used("rest", **{"class": "confirm"}) <= before

        await eventually(is_given_back, "what repeats were charged is given back", 5)

    await limited.undisturbed(scenario)


# --- The caller's time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["soon", "-1", "1.5", "", "1 000", "+5", "1e3", "9999999999"])
@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["short path", "ordinary path"])
async def test_a_bad_time_is_400_and_names_the_header(client: Client, text: str, headers: dict[str, str]) -> None:
    sent = {"X-Request-Timeout-Ms": text, **headers}
    for answer in (
        await client.post("/v1/vouchers", voucher("a", "b", 1), headers=sent),
        await client.get("/v1/accounts/nobody", sent),
    ):
        assert is_problem(answer, 400, "malformed")
        assert answer.json["field"] == "X-Request-Timeout-Ms"


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["short path", "ordinary path"])
async def test_what_comes_too_late_is_not_begun_and_costs_nothing(
    limited: Limited, client: Client, headers: dict[str, str]
) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        before = await limited.counted("shed_requests_total", "payment", "deadline")
        late = [voucher(a, b, 1) for _ in range(2)]
        for one in late:
            sent = {"X-Request-Timeout-Ms": "0", **headers}
            answer = await client.post("/v1/vouchers", one, headers=sent)
            assert is_not_served(answer, "deadline")
            says_where_one_stands(answer.headers, "wide", "pays")
        assert await limited.counted("shed_requests_total", "payment", "deadline") == before + 2
        for one in late:
            assert (await client.get(f"/v1/vouchers/{one['id']}")).status == 404

        async def costs_nothing() -> bool:
            return await limited.used("pays", merchant=owner_of(a)) == 0

        await eventually(costs_nothing, "what was charged is given back", 5)
        in_time = {"X-Request-Timeout-Ms": "60000", **headers}
        assert (await client.post("/v1/vouchers", late[0], headers=in_time)).status == 201
        assert (await client.balance(b))["posted"] == 1

    await limited.undisturbed(scenario)


async def test_a_batch_that_comes_too_late_costs_nothing(limited: Limited, client: Client) -> None:
    async def scenario() -> None:
        a, b = await funded(client), await client.merchant()
        before = await limited.used("batches", **{"class": "batch"})
        batch = {"vouchers": [voucher(a, b, 1), voucher(a, b, 1)]}
        answer = await client.post("/v1/vouchers/batch", batch, headers={"X-Request-Timeout-Ms": "0"})
        assert is_not_served(answer, "deadline")

        async def costs_nothing() -> bool:
            used = await limited.used("pays", merchant=owner_of(a))
            return used == 0 and await limited.used("batches", **{"class": "batch"}) == before

        await eventually(costs_nothing, "what was charged is given back", 5)

    await limited.undisturbed(scenario)


# --- Fast path and ordinary path ------------------------------------------------------------------------------------


async def over(wire: Wire, limited: Limited, body: Any, **headers: str) -> Reply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    await wire.send(request("POST", "/v1/vouchers", limited.service.token, json.dumps(body).encode(), sent))
    return await wire.reply()


def comparable(reply: Reply) -> tuple[object, ...]:
    """Return a reply without the parts that differ between requests: times, jitter, and the source of the decision."""
    changing = ("date", "connection", "content-length", "ratelimit", "request-id")
    headers = {n: v for n, v in reply.headers.items() if n not in changing}
    if "retry-after" in headers:
        headers["retry-after"] = "some"
        name, _, version = headers["x-limit-decision"].split(";")
        headers["x-limit-decision"] = f"{name};{version}"
    body = {k: v for k, v in reply.json.items() if k not in ("posted_at", "accounting_date", "id", "retry_after_ms")}
    for name in ("entries", "request_id"):
        body.pop(name, None)
    return reply.status, headers, "ratelimit" in reply.headers, body


async def test_the_fast_path_and_the_ordinary_one_give_the_same_answers(limited: Limited, client: Client) -> None:
    async def answers(**more: str) -> list[tuple[object, ...]]:
        a, b = await funded(client), await client.merchant()
        asked = [voucher(a, b, 1) for _ in range(PAYS)]
        found = []
        sent: list[tuple[Any, dict[str, str]]] = [
            *((one, {}) for one in asked),
            (voucher(a, b, 1), {}),  # denied
            (asked[0], {}),  # a replay
            (voucher(a, b, 1), {"X_Request_Timeout_Ms": "x"}),
            (fund(b, 1), {"X_Request_Timeout_Ms": "0"}),
            (fund(b, 1), {}),
            ({"id": 1}, {}),
        ]
        for body, headers in sent:
            async with connected(limited.service.base_url) as wire:
                await wire.send(request("GET", "/healthz", None))
                assert (await wire.reply()).status == 200
                found.append(comparable(await over(wire, limited, body, **headers, **more)))
        return found

    async def scenario() -> None:
        short = await answers()
        assert [answer[0] for answer in short] == [201] * PAYS + [429, 200, 400, 503, 201, 400]
        assert await answers(Connection="close") == short

    await limited.undisturbed(scenario)
