"""OpenAPI 3.1 document of an HTTP service, built from its operations, schemas and problems, and its HTML page."""

import gzip
import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from multidict import MultiMapping

from fundledger.app.http.openapi import docs_page
from fundledger.app.http.openapi.problems import Problem
from fundledger.app.http.openapi.schemas import REF, Schema, with_wide_integers
from fundledger.app.http.openapi.types import (
    REQUEST_ID,
    REQUEST_ID_PATTERN,
    TIMEOUT,
    Answer,
    Operation,
    all_answers,
)
from fundledger.app.http.problems import PROBLEM_TYPE
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import HTML, JSON, Reply
from fundledger.app.http.worker import Served
from fundledger.settings import Settings, url_of

_HEADERS: dict[str, Schema] = {
    "Idempotent-Replay": {
        "description": "`true`: the answer is a replay of the first request with this id or number.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Request-Id": {
        "description": "The id of the request, sent or generated. The log contains it.",
        "schema": {"type": "string", "pattern": REQUEST_ID_PATTERN},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next attempt, with jitter so that callers do not retry together.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit": {
        "description": "Status of the policy closest to its limit: `r`, tokens available now; `t`, seconds until "
        "more are available (draft-ietf-httpapi-ratelimit-headers-11). Absent if no policy applies.",
        "schema": {"type": "string"},
        "example": '"merchant";r=99812;t=1',
    },
    "RateLimit-Policy": {
        "description": "The policies that apply, each with its quota: `q` in `w` seconds. Absent if none applies.",
        "schema": {"type": "string"},
        "example": '"caller";q=200000;w=1, "merchant";q=100000;w=1',
    },
    "WWW-Authenticate": {"description": "How to authenticate (RFC 6750).", "schema": {"type": "string"}},
    "X-Limit-Decision": {
        "description": "`policy;source;version`: the policy that rejected the request, the source of the decision, the "
        "version of the policies. If the request was shed, `policy` is the reason (`concurrency`, `fleet`, `worker`, "
        "`deadline`) and `source` is `shedder`.",
        "schema": {"type": "string"},
        "example": "merchant;lease;1.4f1ab0c3",
    },
    "X-Next-Cursor": {
        "description": "Cursor of the next CSV page: send it as `cursor`. Absent on the last page.",
        "schema": {"type": "string"},
    },
}


class About(msgspec.Struct, frozen=True):
    """Description of one service. `tags`: descriptions by name."""

    title: str
    summary: str
    description: str
    tags: dict[str, str]
    operations: Sequence[Operation]
    schemas: dict[str, Schema]
    problems: Sequence[Problem]


class Page:
    """A page that is constant for the life of the process, with its compressed form and its entity tag."""

    def __init__(self, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        self._body = body
        self._compressed = gzip.compress(body, 6, mtime=0)
        self._type = content_type
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._headers = {**headers, "ETag": self._etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}

    def reply(self, headers: MultiMapping[str]) -> Reply:
        """Return 304 to a client that has the page, else 200 in an encoding that the client accepts."""
        if self._etag in headers.get("If-None-Match", ""):
            return Reply(304, b"", self._type, self._headers)
        if any(_reads_gzip(one) for one in headers.get("Accept-Encoding", "").split(",")):
            return Reply(200, self._compressed, self._type, {**self._headers, "Content-Encoding": "gzip"})
        return Reply(200, self._body, self._type, self._headers)


def _reads_gzip(accepted: str) -> bool:
    name, _, weight = accepted.partition(";")
    return name.strip().lower() == "gzip" and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


class Pages:
    """The handlers of `GET /openapi.json` and `GET /docs`. A worker builds both pages before it serves."""

    def __init__(self, document: Callable[[], dict[str, Any]], port: Callable[[Settings], int]) -> None:
        self._document = document
        self._port = port
        self._made: tuple[Page, Page] | None = None

    def make(self, settings: Settings) -> tuple[Page, Page]:
        """Build both pages, once. The examples of the page call the service of these settings."""
        if self._made is None:
            document = self._document()
            base = url_of(settings.host, self._port(settings))
            page = docs_page.render(document, base, settings.data_dir / "dev-token").encode()
            self._made = (
                Page(msgspec.json.encode(document), JSON, {}),
                Page(page, HTML, {"Content-Security-Policy": docs_page.POLICY}),
            )
        return self._made

    async def get_document(self, service: Served, call: Call) -> Reply:
        return self.make(service.settings)[0].reply(call.headers)

    async def get_page(self, service: Served, call: Call) -> Reply:
        return self.make(service.settings)[1].reply(call.headers)


def document_of(about: About) -> dict[str, Any]:
    """Return the OpenAPI document of one service."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in about.operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": about.title,
            "version": version("fundledger"),
            "summary": about.summary,
            "description": about.description,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}],
        "tags": [{"name": name, "description": description} for name, description in about.tags.items()],
        "paths": with_wide_integers(paths),
        "components": {
            "schemas": with_wide_integers(about.schemas),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "In the dev profile the token is in `DATA_DIR/dev-token`.",
                }
            },
        },
        "x-problems": [
            {"type": p.type, "status": p.status, "title": p.title, "final": p.final, "advice": p.advice}
            for p in about.problems
        ],
    }


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
    }
    if operation.public:
        described["security"] = []
    shared = [TIMEOUT, REQUEST_ID] if operation.limited else [REQUEST_ID]
    described["parameters"] = [*operation.parameters, *shared]
    if operation.body is not None:
        media = {"schema": {"$ref": REF + operation.body}, "example": operation.example}
        described["requestBody"] = {"required": operation.body_required, "content": {JSON: media}}
    described["responses"] = {str(status): _answer(answer) for status, answer in all_answers(operation).items()}
    return described


def _answer(answer: Answer) -> dict[str, Any]:
    media = answer.media or {PROBLEM_TYPE: {"$ref": REF + "Problem"}}
    described: dict[str, Any] = {"description": answer.description}
    headers = {**answer.headers, "Request-Id": True}
    described["headers"] = {name: {**_HEADERS[name], "required": always} for name, always in headers.items()}
    described["content"] = {type_: {"schema": schema} for type_, schema in media.items()}
    if answer.problems:
        described["x-problems"] = [str(name) for name in answer.problems]
    return described
