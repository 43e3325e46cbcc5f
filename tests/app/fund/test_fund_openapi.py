"""The OpenAPI file of the fund service and the service agree, in both directions."""

import json
import re
import uuid
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, CheckContext, load_all_checks

from fundledger.app.fund.answers.problems import ADVICE, REFUSALS
from fundledger.app.fund.routes import PAGES, ROUTES
from fundledger.app.http.openapi import docs_page
from fundledger.app.http.problems import IANA, URN
from fundledger.app.http.routing import TIMEOUT_HEADER
from fundledger.fund.model.refusal import Code
from fundledger.json_values import REF
from tests.support.client import Answer
from tests.support.fund_http import OTHER_TOKEN, FundClient
from tests.support.running import RunningService

DOCUMENT: dict[str, Any] = json.loads(json.dumps(PAGES.document()))
SCHEMAS = DOCUMENT["components"]["schemas"]


def in_requests(names: set[str]) -> set[str]:
    """Return the names of these schemas, and of all schemas to which they refer."""
    inner = set(re.findall(f'"{REF}([^"]*)"', json.dumps([SCHEMAS[name] for name in names])))
    return names if inner <= names else in_requests(names | inner)


REQUESTS = in_requests({route.body[0].__name__ for route in ROUTES if route.body is not None})
ANSWERS = set(SCHEMAS) - REQUESTS
PUBLISHED_ELSEWHERE = {"/v1/events", "/metrics"}
NEEDS_MORE = re.compile("/payees|/payout-")


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def test_no_two_routes_have_one_operation() -> None:
    documented = [(method, path) for method, path, _ in operations()]
    assert sorted(documented) == sorted((route.method, route.template) for route in ROUTES)
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))


def test_every_refusal_has_a_status_an_advice_and_an_operation_that_names_it() -> None:
    assert list(REFUSALS) == list(ADVICE) == list(Code)
    listed = {(p["type"].removeprefix(URN).removeprefix(IANA), p["status"]) for p in DOCUMENT["x-problems"]}
    named = {
        (name, int(status))
        for _, _, operation in operations()
        for status, answer in operation["responses"].items()
        for name in answer.get("x-problems", ())
    }
    assert named <= listed
    assert {(str(code), status) for code, (status, _) in REFUSALS.items()} <= named


def test_request_bodies_name_no_unknown_members_and_every_reference_leads_somewhere() -> None:
    assert {name for name in REQUESTS if SCHEMAS[name]["additionalProperties"] is not False} == set()
    text = json.dumps(DOCUMENT)
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]*)"', text))
    assert references == set(SCHEMAS)
    assert not [pattern for pattern in re.findall(r'"pattern": "([^"]*)"', text) if "\\Z" in pattern]


async def test_the_document_and_its_page_are_served(fund: FundClient) -> None:
    assert (await fund.get("/openapi.json")).json == DOCUMENT
    page = await fund.get("/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    text = page.body.decode()
    place = re.search(r"BASE=(\S+)\nTOKEN=\$\(cat (\S+)\)", text)
    assert place is not None
    assert text == docs_page.render(DOCUMENT, place[1], Path(place[2]))


def closed() -> dict[str, Any]:
    """Return the document with response schemas that allow no unknown members, so that the test finds such members."""
    copy: dict[str, Any] = json.loads(json.dumps(DOCUMENT))
    for name in ANSWERS:
        copy["components"]["schemas"][name].setdefault("additionalProperties", False)
    return copy


def validator(schema: dict[str, Any]) -> Any:
    components = {"schemas": closed()["components"]["schemas"]}
    return jsonschema_rs.validator_for({**schema, "components": components}, validate_formats=True)


def is_documented(answer: Answer, method: str, path: str) -> bool:
    """Assert that the body of an answer has the documented form. `path`: as in the document."""
    operation = DOCUMENT["paths"][path][method.lower()]
    media = answer.headers["Content-Type"].partition(";")[0]
    validator(operation["responses"][str(answer.status)]["content"][media]["schema"]).validate(answer.json)
    return True


async def test_the_examples_in_their_order_are_answered_as_documented(fund: FundClient) -> None:
    """Only this test uses the merchant and the orders of the examples. Another module approves."""
    async with FundClient(fund.base_url, OTHER_TOKEN) as other:
        await examples_are_answered(fund, other)


async def examples_are_answered(fund: FundClient, other: FundClient) -> None:
    ids: dict[str, str] = {}
    salt = fund.salt

    def ours(text: str) -> str:
        text = text.replace("10001", f"e-{salt}").replace("10002", f"f-{salt}")
        return text.replace('"2026-0', f'"{salt}-0')

    def example(path: str) -> dict[str, Any]:
        content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]
        members: dict[str, Any] = json.loads(ours(json.dumps(content["application/json"]["example"])))
        return members

    async def posted(path: str, **members: Any) -> str:
        """Post the example of an order with other members, approve it if necessary, and return its id."""
        answer = await fund.post(path, {**example(path), **members})
        assert answer.status == 201, (path, members, answer)
        if answer.json["state"] == "created":
            assert (await other.post(f"{path}/{answer.json['id']}/approve")).status == 200
        return str(answer.json["id"])

    # `test_payees_http.py` and `test_payout_files_http.py` send requests that need payees, or channels with files.
    posts = [(path, op) for method, path, op in operations() if method == "POST" and not NEEDS_MORE.search(path)]
    # Orders without which an example would be refused: the reversal needs a second payment, the settlement a pending one.
    fee = {"amount": 500, "against": "payable"}
    before: dict[str, list[tuple[str, dict[str, Any]]]] = {
        "/v1/settlements": [("/v1/payments", {"order_no": f"{salt}-later", "settle": "later"})],
        "/v1/reversals": [("/v1/payments", {"order_no": f"{salt}-0002"})],
        "/v1/fee-sweeps": [("/v1/payments", {"order_no": f"{salt}-big", "amount": 1 << 40})],
        "/v1/payable-payments": [("/v1/dispute-fees", {"order_no": f"{salt}-payable", **fee})],
        "/v1/suspense-clearings": [("/v1/bank-differences", {"order_no": f"{salt}-over", "amount": 1 << 20})],
        "/v1/dispute-wins": [("/v1/chargebacks", {"order_no": f"{salt}-0002"})],
    }
    # No merchant owes, and no order is parked.
    refused = {"/v1/recoveries", "/v1/write-offs", "/v1/parked-clearings"}
    # An order or a change that this test has approved cannot be rejected.
    for path, operation in [(path, operation) for path, operation in posts if not path.endswith("/reject")]:
        if path == "/v1/payout-returns":
            # Only a withdrawal that is paid can return.
            paid = await fund.post(f"/v1/withdrawals/{ids['withdrawals']}/paid", {"channel_ref": "P-20261123-1"})
            assert paid.status == 200, paid
        if path == "/v1/transfers":
            await fund.shop("f")
        for of, members in before.get(path, ()):
            await posted(of, **members)
        url = ours(path.replace("{id}", ids.get(path.split("/")[2], "10001")))
        is_missing = path.startswith(tuple(f"{one}/{{id}}/" for one in refused))
        if is_missing:
            url = path.replace("{id}", str(uuid.uuid4()))
        collection, _, end = path.partition("/{id}/")
        if end in ("bounced", "won", "lost") or path == "/v1/own-transfers/{id}/paid":
            # An order has one end. Own transfers of the examples are approved later.
            id_ = await posted(collection, order_no=f"{salt}-{end}", amount=1)
            url = path.replace("{id}", id_)
        if path == "/v1/merchants/{id}/close":
            # The other examples need an open merchant. This one is still being closed when it is answered.
            url = path.replace("{id}", await fund.shop("done"))
        asker = other if path.endswith("/approve") else fund
        answer = await asker.post(url, example(path))
        first = ("202",) if end == "close" else ()
        done = next(status for status in (*first, "201", "200", "202") if status in operation["responses"])
        wanted = "422" if path in refused else "404" if is_missing else done
        assert str(answer.status) == wanted, (path, answer)
        media = answer.headers["Content-Type"].partition(";")[0]
        validator(operation["responses"][wanted]["content"][media]["schema"]).validate(answer.json)
        if "id" in answer.json and not end:
            ids["changes" if path == "/v1/channels" else path.split("/")[2]] = answer.json["id"]
    for method, path, operation in operations():
        if NEEDS_MORE.search(path) or (path.startswith(tuple(f"{one}/" for one in refused)) and "{id}" in path):
            # The examples make no order of this kind.
            continue
        if method == "GET" and path not in PUBLISHED_ELSEWHERE and path.startswith("/v1/"):
            url = ours(path.replace("{id}", ids.get(path.split("/")[2], "10001")).replace("{date}", "2026-01-31"))
            url = url.replace("{name}", "simulator")
            if any(p["name"] == "merchant" and p["required"] for p in operation["parameters"]):
                url += f"?merchant=e-{fund.salt}"
            if path == "/v1/holidays":
                url += "?region=CNY"
            answer = await fund.get(url)
            assert answer.status == 200, (url, answer)
            validator(operation["responses"]["200"]["content"]["application/json"]["schema"]).validate(answer.json)


load_all_checks()
NAMES = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
)
# The same functions read orders of all kinds. For bank statements, the tool takes an unknown parameter that it leaves out of
# the URL for a wrong request.
READ_LIKE_PAYMENTS = "^/v1/(?!payments|merchants|webhooks|orders|days)"
SCHEMA = (
    schemathesis.openapi.from_dict(closed())
    .exclude(path=sorted(PUBLISHED_ELSEWHERE))
    .exclude(method="GET", path_regex=READ_LIKE_PAYMENTS)
)


class Shop:
    def __init__(self, url: str, token: str, merchant: str, payment: str) -> None:
        self.url, self.token, self.merchant, self.payment = url, token, merchant, payment


@pytest.fixture(scope="module")
async def shop(platform: RunningService) -> AsyncIterator[Shop]:
    """Create a merchant with a balance, in a service that runs in another process: schemathesis blocks this one."""
    async with FundClient(platform.fund_url, platform.token) as client:
        client.channel = "simulator"
        merchant = await client.shop(balance=1 << 40)
        payment = await client.paid(merchant, "paid", 1 << 40)
        slip = {"merchant": merchant, "order_no": "slip", "amount": 1, "direction": "credit", "reason": "not signed"}
        asked = await client.post("/v1/adjustments", slip)
        assert (await client.post(f"/v1/adjustments/{asked.json['id']}/reject", {"reason": "not signed"})).status == 200
        yield Shop(platform.fund_url, platform.token, merchant, payment.json["id"])


def no_input_is_a_server_error(context: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    CHECKS.get_one("not_a_server_error")(context, response, case)


def name_known_objects(case: schemathesis.Case, shop: Shop) -> None:
    """Replace random names in a valid request by names of existing objects, in most cases."""
    if (case.headers or {}).get(TIMEOUT_HEADER) is not None:
        case.headers[TIMEOUT_HEADER] = "60000"
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "id" in (case.path_parameters or {}):
        of_merchant = "/merchants/" in case.path
        case.path_parameters["id"] = shop.merchant if of_merchant else shop.payment
    sent = case.body if isinstance(case.body, dict) else {}
    for order in (sent, *(sent.get("payments") or ())):
        if isinstance(order, dict) and zlib.crc32(json.dumps(order).encode()) % 4:
            order.update({name: value for name, value in known(shop).items() if name in order})


def known(shop: Shop) -> dict[str, str]:
    return {"merchant": shop.merchant, "currency": "CNY", "channel": "simulator", "payment_order_no": "paid"}


@SCHEMA.parametrize()
@settings(max_examples=8, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_the_answer_is_one_that_the_document_names(case: schemathesis.Case, shop: Shop) -> None:
    name_known_objects(case, shop)
    case.call_and_validate(
        base_url=shop.url,
        headers={"Authorization": f"Bearer {shop.token}"},
        checks=[*CHECKS.get_by_names(list(NAMES)), no_input_is_a_server_error],
        timeout=30,
    )
