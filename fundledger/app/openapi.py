"""The service's own description: the OpenAPI 3.1 file, and its page."""

import gzip
import hashlib
import textwrap
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Final

import msgspec
from multidict import MultiMapping

from fundledger.app import docs_page
from fundledger.app.meta import HTML_TYPE
from fundledger.app.openapi_answers import ANSWERS
from fundledger.app.openapi_operations import OPERATIONS
from fundledger.app.openapi_problems import Problem, problems
from fundledger.app.openapi_schemas import REF, Schema, request_schemas, with_wide_integers
from fundledger.app.openapi_types import (
    REQUEST_ID,
    REQUEST_ID_PATTERN,
    SERVICE_TAG,
    TIMEOUT,
    Answer,
    Operation,
    all_answers,
)
from fundledger.app.problems import PROBLEM_TYPE
from fundledger.app.reply import JSON, Reply
from fundledger.app.routing import Call
from fundledger.app.served import Served
from fundledger.app.settings import Settings, url_of

_HEADERS: dict[str, Schema] = {
    "Idempotent-Replay": {
        "description": "`true`: this was asked for before, by the first request with this id or number.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Request-Id": {
        "description": "The id of the request: the one that was sent, or a new one. It is in the log.",
        "schema": {"type": "string", "pattern": REQUEST_ID_PATTERN},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next attempt; not the same for all, so that they do not come back "
        "together.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit": {
        "description": "Of the policy that is nearest its end: `r`, what it still lets in now; `t`, seconds until "
        "more is available (draft-ietf-httpapi-ratelimit-headers-11). Absent where no policy counts.",
        "schema": {"type": "string"},
        "example": '"merchant";r=99812;t=1',
    },
    "RateLimit-Policy": {
        "description": "The policies that the request met, each with its quota: `q` in `w` seconds. Absent where none "
        "counts.",
        "schema": {"type": "string"},
        "example": '"caller";q=200000;w=1, "merchant";q=100000;w=1',
    },
    "WWW-Authenticate": {"description": "How to authenticate (RFC 6750).", "schema": {"type": "string"}},
    "X-Limit-Decision": {
        "description": "`policy;source;version`: which policy said no, who counted it, which version of the policies. "
        "When it was shed, the reason (`concurrency`, `fleet`, `worker`, `deadline`) and `shedder`.",
        "schema": {"type": "string"},
        "example": "merchant;lease;1.4f1ab0c3",
    },
    "X-Next-Cursor": {
        "description": "Of a CSV page: send it as `cursor` for the next page; absent on the last.",
        "schema": {"type": "string"},
    },
}
_ABOUT = textwrap.dedent("""
    Durable double-entry accounts. Money moves by vouchers: 2 to 64 entries whose debits equal their credits.
    A voucher is answered after it has been committed.

    Amounts are whole numbers in minor units, 1 to 2^53-1. Times are RFC 3339, in UTC. Request bodies are JSON in UTF-8,
    uncompressed; a member that is not known here is refused.

    Ids are idempotency keys and never expire. After a timeout or a 503, send the same request again: it answers what is
    true. A refusal that depends on state (funds, status, holds) is final for its id: a repeat gets the same refusal.

    Errors are `application/problem+json` (RFC 9457); the problem types are listed below. A method that a path does not
    have answers 405 with `Allow`. No input is answered 500; one that is, is a defect.

    429 is the caller's quota, 503 is our capacity. After both nothing was done, unless it is `outcome-unknown`: wait
    for `Retry-After` seconds, then send the same request with the same id. A repeat is answered from its
    record and costs nothing.
""").strip()
_TAGS = {
    "Accounts": "Holders of value in one currency.",
    "Vouchers": "Balanced, immutable records of what was moved.",
    "Holds": "Amounts set aside: ended by capture, release or expiry.",
    "Events": "What happened, for whoever follows it.",
    SERVICE_TAG: "What is not money.",
}


class About(msgspec.Struct, frozen=True):
    """What there is to say of one service. `tags`: descriptions by name."""

    title: str
    summary: str
    description: str
    tags: dict[str, str]
    operations: Sequence[Operation]
    schemas: dict[str, Schema]
    problems: Sequence[Problem]


class Page:
    """A page that never changes while the process lives: made once, with its compressed form and its entity tag."""

    def __init__(self, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        self._body = body
        self._compressed = gzip.compress(body, 6, mtime=0)
        self._type = content_type
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._headers = {**headers, "ETag": self._etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}

    def reply(self, headers: MultiMapping[str]) -> Reply:
        """Return 304 to a client that has it, else 200 in a form that the client reads."""
        if self._etag in headers.get("If-None-Match", ""):
            return Reply(304, b"", self._type, self._headers)
        if any(_reads_gzip(one) for one in headers.get("Accept-Encoding", "").split(",")):
            return Reply(200, self._compressed, self._type, {**self._headers, "Content-Encoding": "gzip"})
        return Reply(200, self._body, self._type, self._headers)


def _reads_gzip(accepted: str) -> bool:
    name, _, weight = accepted.partition(";")
    return name.strip().lower() == "gzip" and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


class Pages:
    """The handlers of `GET /openapi.json` and `GET /docs`. A worker makes what they answer before it serves."""

    def __init__(self, document: Callable[[], dict[str, Any]], port: Callable[[Settings], int]) -> None:
        self._document = document
        self._port = port
        self._made: tuple[Page, Page] | None = None

    def make(self, settings: Settings) -> tuple[Page, Page]:
        """Make both, once. The examples of the page go to the service of these settings."""
        if self._made is None:
            document = self._document()
            base = url_of(settings.host, self._port(settings))
            page = docs_page.render(document, base, settings.data_dir / "dev-token").encode()
            self._made = (
                Page(msgspec.json.encode(document), JSON, {}),
                Page(page, HTML_TYPE, {"Content-Security-Policy": docs_page.POLICY}),
            )
        return self._made

    async def get_document(self, service: Served, call: Call) -> Reply:
        return self.make(service.settings)[0].reply(call.headers)

    async def get_page(self, service: Served, call: Call) -> Reply:
        return self.make(service.settings)[1].reply(call.headers)


def document() -> dict[str, Any]:
    """Of the account service."""
    summary = "A payment fund account system: durable double-entry accounts on stock Postgres."
    schemas = {**request_schemas(), **ANSWERS}
    return document_of(About("fundledger account service", summary, _ABOUT, _TAGS, OPERATIONS, schemas, problems()))


PAGES: Final = Pages(document, lambda settings: settings.port)


def document_of(about: About) -> dict[str, Any]:
    """The file of one service."""
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
