"""The OpenAPI file and the service agree, in both directions."""

import json
import re
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, CheckContext, load_all_checks

from fundledger.app.account.answers.problems import REFUSALS
from fundledger.app.account.openapi.examples import BANK, HOLD, MERCHANT, OTHER_VOUCHER, VOUCHER
from fundledger.app.account.requests import bodies
from fundledger.app.account.routes import PAGES, ROUTES
from fundledger.app.http.openapi import docs_page
from fundledger.app.http.problems import IANA, URN, BadRequest
from fundledger.app.http.routing import TIMEOUT_HEADER
from tests.support.client import Answer, Client
from tests.support.length import unless_long
from tests.support.running import RunningService
from tests.support.waiting import eventually

DOCUMENT: dict[str, Any] = json.loads(json.dumps(PAGES.document()))
PLACE = ("http://127.0.0.1:8080", Path("data/dev-token"))
SCHEMAS = DOCUMENT["components"]["schemas"]
ANSWER_SCHEMAS = {name for name in SCHEMAS if not name.endswith("Body")}
OTHERS = tuple(f"merchant:{number}:available" for number in (10002, 10003, 10004))
DOLLARS = "merchant:10001:dollars"
KNOWN_ACCOUNTS = (BANK, MERCHANT, *OTHERS, DOLLARS)
KNOWN = {"accounts": KNOWN_ACCOUNTS, "vouchers": (VOUCHER, OTHER_VOUCHER), "holds": (HOLD, "hold:10001:2")}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with response schemas that allow no unknown members, so that the test finds such members."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    for name in ANSWER_SCHEMAS:
        copy["components"]["schemas"][name]["additionalProperties"] = False
    return copy


class Described:
    """A service for this file alone, whose accounts get frozen and closed, with its answers to the examples."""

    def __init__(self, running: RunningService) -> None:
        self.base_url = running.base_url
        self.token = running.token
        self.answers: dict[tuple[str, str], Answer] = {}


@pytest.fixture(scope="module")
async def described() -> AsyncIterator[Described]:
    async with RunningService(workers=2) as running, Client(running.base_url, running.token) as client:
        service = Described(running)
        for method, path, operation in operations():
            service.answers[method, path] = await answered(client, method, *example_request(path, operation))
            if (method, path) == ("POST", "/v1/accounts"):
                await furnish(client)
        yield service
        report = await running.verify()
        assert report["ok"], report


async def answered(client: Client, method: str, path: str, body: bytes | None) -> Answer:
    """Send a request; on a 503 for lack of capacity send it again, as the document asks."""

    async def ask() -> Answer | None:
        answer = await client.request(method, path, body)
        return None if answer.status == 503 and "X-Limit-Decision" in answer.headers else answer

    return await eventually(ask, f"an answer to {method} {path}")


async def furnish(client: Client) -> None:
    """Create the state that the other examples require: more accounts, money on them, a second hold."""
    await client.open_account(BANK, "bank", "platform")
    for account in (MERCHANT, *OTHERS):
        await client.open_account(account)
    await client.open_account(DOLLARS, currency="USD")
    for account in (MERCHANT, *OTHERS[1:]):
        assert (await client.pay(BANK, account, 1_000_000)).status == 201
    hold = {"id": "hold:10001:2", "account": MERCHANT, "amount": 100}
    assert (await client.post("/v1/holds", hold)).status == 201


def example_request(path: str, operation: dict[str, Any]) -> tuple[str, bytes | None]:
    """Return the path and the body of an example."""
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", parameter["example"])
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return path, None if content is None else json.dumps(content["example"]).encode()


def test_no_two_routes_have_one_operation():
    documented = [(method, path) for method, path, _ in operations()]
    assert sorted(documented) == sorted((route.method, route.template) for route in ROUTES)


def test_an_operation_that_reads_rows_names_the_answer_to_rows_that_fail_verification():
    named = {(method, path) for method, path, operation in operations() if "integrity" in str(operation["responses"])}
    assert named == {(route.method, route.template) for route in ROUTES if route.api_class is not None}
    assert "`integrity`" in DOCUMENT["info"]["description"]


def test_every_answer_of_a_limited_operation_but_401_may_have_rate_limit_headers(described: Described):
    for method, path, operation in operations():
        for status, answer in operation["responses"].items():
            told = {"RateLimit", "RateLimit-Policy"} <= set(answer.get("headers", ()))
            assert told == ("429" in operation["responses"] and status != "401"), (method, path, status)
        sent = {"RateLimit", "RateLimit-Policy"} & set(described.answers[method, path].headers)
        assert len(sent) == (2 if "429" in operation["responses"] else 0), (method, path)


def test_operation_ids_are_unique():
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))


def name_of(problem: dict[str, Any]) -> str:
    return str(problem["type"]).removeprefix(URN).removeprefix(IANA)


def test_every_refusal_is_listed_with_its_status_and_named_by_an_operation():
    listed = {problem["type"]: (problem["status"], problem["title"]) for problem in DOCUMENT["x-problems"]}
    assert {URN + code: entry for code, entry in REFUSALS.items()}.items() <= listed.items()
    named = {
        (name, int(status))
        for _, _, operation in operations()
        for status, answer in operation["responses"].items()
        for name in answer.get("x-problems", ())
    }
    # This problem is only part of a batch, which is answered 200.
    named.add(("batch-aborted", 422))
    assert {(str(code), status) for code, (status, _) in REFUSALS.items()} <= named


def test_every_problem_that_an_operation_names_is_listed_with_that_status():
    listed = {(name_of(problem), problem["status"]) for problem in DOCUMENT["x-problems"]}
    for method, path, operation in operations():
        for status, answer in operation["responses"].items():
            for name in answer.get("x-problems", ()):
                assert (name, int(status)) in listed, (method, path)


def test_request_bodies_name_no_unknown_members():
    for name in set(SCHEMAS) - ANSWER_SCHEMAS:
        assert SCHEMAS[name]["additionalProperties"] is False, name


UUID_TEXT = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a11"
TEXTS = ("", "a", "A", "_", "pay_out", "a b", "a\n", "a:b.c-d", "é", "a" * 32, "a" * 33, "a" * 128, "a" * 129)
UUIDS = (UUID_TEXT, UUID_TEXT.upper(), UUID_TEXT.replace("-", ""), f"{{{UUID_TEXT}}}", UUID_TEXT + "\n", UUID_TEXT[:-1])


@pytest.mark.parametrize("text", [*TEXTS, *UUIDS], ids=repr)
@pytest.mark.parametrize(
    ("schema", "member", "check"),
    [
        ("EntryBody", "account", lambda text: bodies.account_id(text, "account")),
        ("VoucherBody", "type", bodies.voucher_type),
        ("VoucherBody", "id", bodies.voucher_id),
        ("ReverseBody", "id", bodies.voucher_id),
    ],
)
def test_the_checks_of_functions_are_in_the_schema(schema: str, member: str, check: Callable[[str], Any], text: str):
    told = jsonschema_rs.validator_for(SCHEMAS[schema]["properties"][member], validate_formats=True).is_valid(text)
    if told:
        check(text)
    else:
        with pytest.raises(BadRequest):
            check(text)


def test_patterns_are_those_of_json_schema():
    patterns = re.findall(r'"pattern": "([^"]*)"', json.dumps(DOCUMENT))
    assert patterns
    assert not [pattern for pattern in patterns if "\\Z" in pattern]


def test_every_reference_leads_somewhere():
    references = re.findall(r'"\$ref": "#/components/schemas/([^"]*)"', json.dumps(DOCUMENT))
    assert references
    assert set(references) <= set(SCHEMAS)
    assert set(SCHEMAS) <= set(references), "a schema that nothing refers to"


def validator(name: str) -> Any:
    schemas = closed(DOCUMENT)["components"]["schemas"]
    return jsonschema_rs.validator_for(
        {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}, validate_formats=True
    )


@pytest.mark.parametrize("name", sorted(name for name in SCHEMAS if "examples" in SCHEMAS[name]))
def test_the_examples_of_a_schema_are_valid(name: str):
    for example in SCHEMAS[name]["examples"]:
        validator(name).validate(example)


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in operations()])
def test_the_example_of_an_operation_is_answered_as_documented(described: Described, method: str, path: str):
    operation = DOCUMENT["paths"][path][method.lower()]
    answer = described.answers[method, path]
    assert answer.status == (201 if "201" in operation["responses"] else 200), answer
    expected = operation["responses"][str(answer.status)]["content"]
    schema = expected[answer.headers["Content-Type"].partition(";")[0]]["schema"]
    if "$ref" in schema:
        validator(schema["$ref"].rpartition("/")[2]).validate(answer.json)


def test_the_document_is_served_as_it_was_built(described: Described):
    answer = described.answers["GET", "/openapi.json"]
    assert answer.json == DOCUMENT


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.anchors: list[str] = []
        self.targets: set[str] = set()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("id"):
            self.anchors.append(str(given["id"]))
        if tag == "a" and given.get("href"):
            self.targets.add(str(given["href"]))
        if tag == "script" or given.get("src") or (tag == "link" and given.get("href")):
            self.loads.append(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_an_anchor_for_each_operation_and_every_link_of_it_leads_somewhere():
    links = Links()
    links.feed(docs_page.render(DOCUMENT, *PLACE))
    assert not links.open
    assert len(links.anchors) == len(set(links.anchors))
    assert {operation["operationId"] for _, _, operation in operations()} <= set(links.anchors)
    inner = {target[1:] for target in links.targets if target.startswith("#")}
    assert inner <= set(links.anchors)
    assert {target for target in links.targets if not target.startswith("#")} == {"/openapi.json"}


def test_the_page_loads_nothing_and_runs_nothing(described: Described):
    page = described.answers["GET", "/docs"]
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    links = Links()
    links.feed(page.body.decode())
    assert not links.loads


def test_the_page_escapes_what_it_shows():
    hostile = json.loads(json.dumps(DOCUMENT).replace("Open an account", "<script>alert(1)</script>"))
    assert "<script>" not in docs_page.render(hostile, *PLACE)


load_all_checks()
NAMES = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "ignored_auth",
)


def no_input_is_a_server_error(context: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """Assert that no input causes a 5xx. A 503 for lack of capacity has a header that distinguishes it."""
    if response.status_code == 503 and "x-limit-decision" in response.headers:
        return
    CHECKS.get_one("not_a_server_error")(context, response, case)


def problem_type_is_named(context: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """Assert that the document names the problem of a response for its operation and status."""
    if "problem+json" not in response.headers.get("content-type", [""])[0]:
        return
    problem = response.json()
    assert problem["status"] == response.status_code
    method, path = case.method.lower(), case.operation.path
    if method not in DOCUMENT["paths"][path]:
        # The path of the batch also fits the template of a voucher; it is malformed, since ids are UUIDs.
        is_a_voucher_s = (method, path) == ("get", "/v1/vouchers/batch")
        assert problem["type"] == URN + ("malformed" if is_a_voucher_s else "method-not-allowed")
        return
    answers = DOCUMENT["paths"][path][method]["responses"]
    named = answers.get(str(response.status_code), {}).get("x-problems", ())
    assert name_of(problem) in named, f"{problem['type']} is not named for {response.status_code}"


SCHEMA = schemathesis.openapi.from_dict(
    closed(DOCUMENT),
    config=schemathesis.Config.from_dict({"generation": {"deterministic": True, "mode": "all"}}),
)


def _some(of: tuple[str, ...], text: object) -> str:
    return of[zlib.crc32(str(text).encode()) % len(of)]


def let_it_meet_the_ledger(case: schemathesis.Case) -> None:
    """Change most valid requests so that they name existing accounts and that their entries balance."""
    given = (case.headers or {}).get(TIMEOUT_HEADER)
    if given is not None and str(given).isdecimal():
        # A request whose deadline has passed is answered 503, which is not the subject here.
        case.headers[TIMEOUT_HEADER] = str(max(60_000, int(given)))
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "id" in (case.path_parameters or {}):
        # Few accounts are frozen and closed, so that the others continue to accept vouchers.
        known = OTHERS if "accounts" in case.path and case.method == "POST" else KNOWN[case.path.split("/")[2]]
        case.path_parameters["id"] = _some(known, case.path_parameters["id"])
    sent = case.body if isinstance(case.body, dict) else {}
    for voucher in (sent, sent.get("voucher"), *(sent.get("vouchers") or ())):
        if isinstance(voucher, dict) and "entries" in voucher:
            let_it_balance(voucher)
    if "account" in sent:
        sent["account"] = _some(KNOWN_ACCOUNTS, sent["account"])


def let_it_balance(voucher: dict[str, Any]) -> None:
    """Balance most vouchers, and give them an id that is not used elsewhere."""
    for entry in voucher["entries"]:
        entry["account"] = _some(KNOWN_ACCOUNTS, entry["account"])
    if zlib.crc32(json.dumps(voucher).encode()) % 4:
        first = voucher["entries"][0]
        other = "credit" if first["side"] == "debit" else "debit"
        second = {**first, "account": _some(KNOWN_ACCOUNTS, first["amount"]), "side": other}
        voucher["entries"] = [first, second]
        voucher["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(voucher)))


@SCHEMA.parametrize()
@settings(
    max_examples=unless_long(16, 40),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_sent_the_answer_is_one_that_the_document_names(case: schemathesis.Case, described: Described):
    let_it_meet_the_ledger(case)
    case.call_and_validate(
        base_url=described.base_url,
        headers={"Authorization": f"Bearer {described.token}"},
        checks=[*CHECKS.get_by_names(list(NAMES)), no_input_is_a_server_error, problem_type_is_named],
        timeout=30,
    )


def test_a_batch_takes_as_many_vouchers_as_the_document_says():
    assert SCHEMAS["BatchBody"]["properties"]["vouchers"]["maxItems"] == bodies.BATCH_MAX
