"""A thousand kinds of bad input: each is answered 4xx, an error in a member names the member, and nothing is stored.

A kind is one member, path or query parameter of one request, with one kind of error. The OpenAPI document decides which
bodies are wrong: a changed body that its schema allows is left out.
"""

import asyncio
import json
import logging
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import jsonschema_rs
import pytest

from fundledger.app.fund.routes import PAGES
from tests.support.client import Answer
from tests.support.fund_http import FundClient, a_fund_service
from tests.support.running import RunningService

DOCUMENT: Final[dict[str, Any]] = json.loads(json.dumps(PAGES.document()))
KINDS_MIN: Final = 1_000
AT_ONCE: Final = 20
RAW: Final = "\ue000"
"""Marks a value that is inserted as it is into the JSON text."""
WRONG: Final[dict[str, Any]] = {
    "null": None,
    "true": True,
    "an array": [],
    "an object": {},
    "no text": "",
    "a blank": " ",
    "a line break": "a\nb",
    "a NUL": "a\x00b",
    "a letter of another script": "日本",
    "a long text": "x" * 5_000,
    "a lone surrogate": RAW + '"\\ud800"',
    "minus one": -1,
    "zero": 0,
    "2 to the 53": 1 << 53,
    "2 to the 64": 1 << 64,
    "a number of 400 digits": RAW + "9" * 400,
    "a fraction": 1.5,
    "an exponent": RAW + "1e3",
    "a number beyond doubles": RAW + "1e999",
    "not a number": RAW + "NaN",
    "digits as text": "100",
    "a day that does not exist": "2026-02-30",
    "no id": "00000000-0000-0000-0000-00000000000g",
}
PATHS: Final = {"no text": "%20", "a slash": "a%2Fb", "a NUL": "a%00b", "bad UTF-8": "%ff", "a long one": "x" * 300}
GIVEN: Final = {"merchant": "10001", "region": "CNY", "name": "simulator", "date": "2026-03-02", "file_no": "1"}
QUERIES: Final = ("-1", "1.5", "x", "%ff", "99999999999999999999", "a%00b", "2026-02-30")
BODIES: Final[dict[str, bytes]] = {
    "nothing": b"",
    "a number": b"1",
    "an array": b"[]",
    "null": b"null",
    "text": b'"x"',
    "cut off": b'{"merchant": "m"',
    "two values": b"{}{}",
    "bad UTF-8": b'{"merchant": "\xff"}',
    "UTF-16": '{"merchant": "m"}'.encode("utf-16"),
    "deep": b'{"metadata":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    "single quotes": b"{'merchant': 'm'}",
    "a comment": b'{} // "m"',
    "an unknown member": b'{"colour": "red"}',
}
_log = logging.getLogger(__name__)


def text_of(body: Any) -> bytes:
    """Return the JSON text of a body, with its raw values inserted."""
    parts = json.dumps(body, ensure_ascii=False).split(f'"{RAW}')
    text = parts[0]
    for part in parts[1:]:
        end = next(i for i in range(len(part)) if part[i] == '"' and not part[:i].endswith("\\"))
        text += json.loads(f'"{part[:end]}"') + part[end + 1 :]
    return text.encode()


def operations(*methods: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, of_path in DOCUMENT["paths"].items():
        for method, operation in of_path.items():
            if method in methods:
                yield method.upper(), path, operation


def schema_of(operation: dict[str, Any]) -> Any:
    """Return the schema of the body of a request and its example, or None."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return None if content is None or "example" not in content else (content["schema"], content["example"])


def bodies(schema: Any, example: dict[str, Any]) -> Iterator[tuple[str, str, bytes]]:
    """Yield `(member, kind, body)` for each change of the example that the schema refuses."""
    right = jsonschema_rs.validator_for({**schema, "components": DOCUMENT["components"]}, validate_formats=True)
    ref = schema.get("$ref", "").rsplit("/", 1)[-1]
    named = DOCUMENT["components"]["schemas"].get(ref, schema)
    for member in named.get("properties", {}):
        for kind, value in WRONG.items():
            is_raw = isinstance(value, str) and value.startswith(RAW)
            # No schema allows these, except that an exponent may be an integer.
            if is_raw or not right.is_valid({**example, member: value}):
                yield member, kind, text_of({**example, member: value})
        if member in named.get("required", ()):
            yield member, "omitted", text_of({name: value for name, value in example.items() if name != member})
        if member in example:
            twice = text_of(example)[:-1] + b", " + text_of({member: example[member]})[1:]
            yield member, "twice", twice


def filled(path: str) -> str:
    """Return a path of the document with valid values for its parameters. No order has the id."""
    path = path.replace("{id}", GIVEN["merchant"] if path.startswith("/v1/merchants") else str(uuid.uuid4()))
    return re.sub(r"\{(\w+)\}", lambda found: GIVEN.get(found[1]) or str(uuid.uuid4()), path)


def names_it(answer: Answer, member: str) -> bool:
    """Return whether an answer names the member. An error in the JSON text itself has a position instead."""
    problem = answer.json
    if "is not valid JSON" in problem["detail"]:
        return True
    return member in (problem.get("field") or "") or member in problem["detail"] or problem["status"] != 400


@pytest.fixture
async def place(
    fund_database: str, service: RunningService, tmp_path: Path
) -> AsyncIterator[tuple[FundClient, "asyncpg.Connection[asyncpg.Record]"]]:
    connection = await asyncpg.connect(fund_database)
    async with a_fund_service(fund_database, tmp_path, service) as (_, url), FundClient(url) as client:
        yield client, connection
    await connection.close()


async def stored(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, int]:
    """Return the number of rows of each table of the fund database."""
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'fund' ORDER BY tablename")
    return {name: await connection.fetchval(f"SELECT count(*) FROM fund.{name}") for (name,) in tables}


async def test_a_thousand_kinds_of_bad_input_are_answered_4xx_and_store_nothing(
    place: tuple[FundClient, "asyncpg.Connection[asyncpg.Record]"],
) -> None:
    fund, connection = place
    for merchant in ("10001", "10002"):
        assert (await fund.post("/v1/merchants", {"id": merchant, "name": "m", "currency": "CNY"})).status == 201
    before = await stored(connection)
    requests: list[tuple[str, str, str, str, bytes | None]] = []
    for method, path, operation in operations("post", "patch", "put"):
        found = schema_of(operation)
        if found is not None:
            url = filled(path)
            requests += [(method, url, member, kind, body) for member, kind, body in bodies(*found)]
            requests += [(method, url, "", f"body: {kind}", body) for kind, body in BODIES.items()]
    for method, path, operation in operations("get"):
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            if parameter["in"] == "path":
                texts = {kind: filled(path.replace("{" + name + "}", text)) for kind, text in PATHS.items()}
                requests += [(method, url, "", f"path: {kind}", None) for kind, url in texts.items()]
            elif parameter["in"] == "query" and parameter["schema"].get("type") == "integer":
                needed = [p["name"] for p in operation["parameters"] if p["in"] == "query" and p.get("required")]
                rest = "".join(f"&{other}={GIVEN[other]}" for other in needed if other != name)
                queries = {text: f"{filled(path)}?{name}={text}{rest}" for text in QUERIES}
                requests += [(method, url, name, f"query: {text}", None) for text, url in queries.items()]
    kinds = {(method, path.partition("?")[0], member, kind) for method, path, member, kind, _ in requests}
    assert len(kinds) >= KINDS_MIN
    wrong: list[str] = []
    turn = asyncio.Semaphore(AT_ONCE)

    async def ask(method: str, path: str, member: str, kind: str, body: bytes | None) -> None:
        async with turn:
            answer = await fund.request(method, path, body)
        if not 400 <= answer.status < 500 or not names_it(answer, member):
            wrong.append(f"{method} {path} {member} {kind}: {answer.status} {answer.body[:300]!r}")

    await asyncio.gather(*(ask(*request) for request in requests))
    assert wrong == [], f"{len(wrong)} answers:\n" + "\n".join(wrong[:400])
    assert await stored(connection) == before
    _log.info("%d kinds of bad input, 0 stored", len(kinds))
