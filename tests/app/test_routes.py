"""Rules that hold for every route, and the routes that do not move money."""

import time
import uuid

import pytest

from tests.support.answers import instant, is_problem
from tests.support.client import Client, new_id, voucher
from tests.support.running import RunningService

SOME = str(uuid.UUID(int=7))
ROUTES = [
    ("POST", "/v1/accounts"),
    ("GET", "/v1/accounts"),
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
    ("GET", "/v1/calendar"),
    ("GET", "/debug/hotkeys"),
]
PUBLIC = ["/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"]


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


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v2/vouchers", "/v1/accounts//entries/x"])
async def test_an_unknown_path_is_404(client: Client, path: str) -> None:
    assert is_problem(await client.get(path), 404, "not-found")
    assert is_problem(await client.post(path, {}), 404, "not-found")


ALL = [*ROUTES, *(("GET", path) for path in PUBLIC)]


@pytest.mark.parametrize(("method", "path"), ALL)
async def test_another_method_is_405_and_names_the_right_one(client: Client, method: str, path: str) -> None:
    right = {allowed for allowed, other in ALL if other == path}
    for wrong in {"GET", "POST", "PUT", "PATCH", "DELETE"} - right:
        if wrong == "GET" and path == "/v1/vouchers/batch":
            continue  # a voucher id fits this path
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


async def test_a_problem_never_contains_a_balance(client: Client) -> None:
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


# --- Routes without money ----------------------------------------------------------------------------------------------


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
        "fundledger_http_requests_total",
        "fundledger_http_request_duration_seconds_bucket",
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
