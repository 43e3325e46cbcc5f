"""OpenAPI 3.1 document of an HTTP service, built from its routes and problem types, and its HTML page."""

import gzip
import hashlib
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any, Final

import msgspec
from multidict import MultiMapping

from fundledger.app.http.openapi import docs_page
from fundledger.app.http.openapi.problems import ProblemType
from fundledger.app.http.openapi.schemas import Schema, Schemas
from fundledger.app.http.openapi.types import Answer, Parameter
from fundledger.app.http.problems import PROBLEM_TYPE, Problem, QuotaExceeded, ReducedCapacity
from fundledger.app.http.routing import TIMEOUT_HEADER, WITH_BODY, Call, Route
from fundledger.app.http.wire.reply import HTML, JSON, Reply
from fundledger.app.http.worker import Served
from fundledger.settings import Settings, url_of

RequestId = Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]
_REQUEST_ID: Final = Parameter(
    "Request-Id",
    "header",
    RequestId,
    "An id for this request. The answer and the log contain it. Generated if absent.",
)
_TIMEOUT: Final = Parameter(
    TIMEOUT_HEADER,
    "header",
    Annotated[int, msgspec.Meta(ge=0, le=999_999_999)],
    "How long the caller still waits, in ms. A request that cannot be answered in that time is answered 503 "
    "immediately. An admitted request is carried out even when the time has passed.",
)
_RATE_LIMIT_HEADERS: Final = {"RateLimit-Policy": False, "RateLimit": False}
_HEADERS: dict[str, Schema] = {
    "Content-Digest": {
        "description": "The SHA-256 of the body (RFC 9530).",
        "schema": {"type": "string"},
    },
    "Content-Disposition": {
        "description": "The name under which a person saves the body (RFC 6266).",
        "schema": {"type": "string"},
    },
    "Idempotent-Replay": {
        "description": "`true`: the answer is a replay of the first request with this id or number.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Request-Id": {
        "description": "The id of the request, sent or generated. The log contains it.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"},
    },
    "Retry-After": {
        "description": "Seconds to wait before the next attempt, with jitter so that callers do not retry together.",
        "schema": {"type": "integer", "format": "int64", "minimum": 1},
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
    "X-Unverified": {
        "description": "The number of records that do not match their MAC. A CSV page has no row for them; the page in "
        "JSON has their ids. Absent if there is none.",
        "schema": {"type": "integer"},
    },
}


class About(msgspec.Struct, frozen=True):
    """Description of one service. `tags`: the description of each tag. `examples`: at most one answer of each type.

    `embedded`: types of values that answers contain as already encoded JSON. `port(settings)` returns the port of the
    service.
    """

    title: str
    summary: str
    description: str
    tags: dict[str, str]
    problems: Sequence[ProblemType]
    examples: Sequence[msgspec.Struct]
    embedded: Sequence[type[msgspec.Struct]]
    port: Callable[[Settings], int]


class Page:
    """A page that does not change while the process runs, with its compressed form and its entity tag."""

    def __init__(self, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        self._body = body
        self._compressed = gzip.compress(body, 6, mtime=0)
        self._type = content_type
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._headers = {**headers, "ETag": self._etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}

    def reply(self, headers: MultiMapping[str]) -> Reply:
        """Return 304 if the client already has the page (`If-None-Match`), else 200 with the page.

        The page is compressed if the client accepts gzip.
        """
        if self._etag in headers.get("If-None-Match", ""):
            return Reply(304, b"", self._type, self._headers)
        if any(_reads_gzip(one) for one in headers.get("Accept-Encoding", "").split(",")):
            return Reply(200, self._compressed, self._type, {**self._headers, "Content-Encoding": "gzip"})
        return Reply(200, self._body, self._type, self._headers)


def _reads_gzip(accepted: str) -> bool:
    name, _, weight = accepted.partition(";")
    return name.strip().lower() == "gzip" and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


class Pages:
    """The OpenAPI document of one service and its HTML page, with the handlers of `GET /openapi.json` and `GET /docs`.

    `routes()` returns all routes of the service. The constructor does not call it, because some of these routes need
    this object. A worker builds both pages before it serves.
    """

    def __init__(self, about: About, routes: Callable[[], Sequence[Route[Any]]]) -> None:
        self.about = about
        self._routes = routes
        self._made: tuple[Page, Page] | None = None

    def document(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        return document_of(self.about, self._routes())

    def make(self, settings: Settings) -> tuple[Page, Page]:
        """Return both pages; the first call builds them. Examples call the service at the address in `settings`."""
        if self._made is None:
            document = self.document()
            base = url_of(settings.host, self.about.port(settings))
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


def document_of(about: About, routes: Sequence[Route[Any]]) -> dict[str, Any]:
    """Return the OpenAPI document of one service."""
    schemas = Schemas(about.examples)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schemas)
    for type_ in about.embedded:
        schemas.of(type_)
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
        "paths": paths,
        "components": {
            "schemas": schemas.all(),
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


def _operation(route: Route[Any], schemas: Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": route.id,
        "tags": [route.tag],
        "summary": route.summary,
        "description": route.description,
    }
    if route.api_class is None:
        described["security"] = []
    shared = [_REQUEST_ID] if route.api_class is None else [_TIMEOUT, _REQUEST_ID]
    described["parameters"] = [_parameter(one, schemas) for one in (*route.parameters, *shared)]
    if route.body is not None:
        type_, example = route.body
        required = any(field.required for field in msgspec.structs.fields(type_))
        media = {"schema": schemas.of(type_), "example": example}
        described["requestBody"] = {"required": required, "content": {JSON: media}}
    described["responses"] = {
        str(status): _answer(answer, schemas) for status, answer in sorted(_all_answers(route).items())
    }
    return described


def _parameter(parameter: Parameter, schemas: Schemas) -> dict[str, Any]:
    schema = schemas.of(parameter.type)
    if parameter.default is not msgspec.UNSET:
        schema = {**schema, "default": parameter.default}
    described = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": schema,
    }
    return described if parameter.example is msgspec.UNSET else {**described, "example": parameter.example}


def _answer(answer: Answer, schemas: Schemas) -> dict[str, Any]:
    media = answer.media or {PROBLEM_TYPE: Problem}
    headers = {**answer.headers, "Request-Id": True}
    described: dict[str, Any] = {
        "description": answer.description,
        "headers": {name: {**_HEADERS[name], "required": always} for name, always in headers.items()},
        "content": {name: {"schema": schemas.of(type_)} for name, type_ in media.items()},
    }
    if answer.problems:
        described["x-problems"] = [str(name) for name in answer.problems]
    return described


def _all_answers(route: Route[Any]) -> dict[int, Answer]:
    """Return the standard answers and the declared answers of a route, by status. Problems of one status are merged.

    Every answer of a limited route has the rate-limit headers, except the 401, because its caller is unknown.
    """
    found = _standard_answers(route)
    for status, own in route.answers.items():
        shared = found.get(status)
        named = own.problems if shared is None else (*shared.problems, *own.problems)
        found[status] = msgspec.structs.replace(own, problems=named)
    for status, answer in found.items() if route.api_class is not None else ():
        if status != 401:
            headers = {**answer.headers, **_RATE_LIMIT_HEADERS}
            found[status] = msgspec.structs.replace(answer, headers=headers)
    return found


def _standard_answers(route: Route[Any]) -> dict[int, Answer]:
    """Return the answers that depend on three facts: is the route public or limited, does its method have a body, and
    does a person need a role for it.
    """
    found = {400: Answer("The request is malformed.", problems=("malformed",))}
    if route.api_class is None:
        found[500] = Answer("An internal error, which was logged.", problems=("internal-error",))
        return found
    found[401] = Answer("No valid token.", headers={"WWW-Authenticate": True}, problems=("unauthorized",))
    if route.role is not None:
        detail = f"The caller is a person without the role `{route.role}`."
        found[403] = Answer(detail, problems=("role-missing",))
    found[429] = Answer(
        "The caller's quota is used up. Nothing was done.",
        {PROBLEM_TYPE: QuotaExceeded},
        {"Retry-After": True, "X-Limit-Decision": True},
        ("quota-exceeded",),
    )
    found[500] = Answer(
        "Stored rows fail verification, so their figures are withheld; or an internal error. Either was logged.",
        problems=("internal-error", "integrity"),
    )
    found[503] = Answer(
        "Service temporarily unavailable. With `X-Limit-Decision`, the request was shed and nothing was done.",
        {PROBLEM_TYPE: (ReducedCapacity, Problem)},
        {"Retry-After": True, "X-Limit-Decision": False},
        ("temporary-reduced-capacity", "unavailable", "outcome-unknown"),
    )
    if route.method in WITH_BODY:
        found[408] = Answer("The body did not arrive in time.", problems=("body-too-late",))
        limit = f"{route.body_bytes_max:,} bytes"
        found[413] = Answer(f"The body has more than {limit}.", problems=("body-too-large",))
        found[415] = Answer("The body is compressed, or not JSON.", problems=("unsupported-media-type",))
    return found
