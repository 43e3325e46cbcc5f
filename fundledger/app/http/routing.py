"""HTTP routing of both services: the route table, authentication, admission, exceptions as problems."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import HttpVersion10, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_request import BaseRequest
from multidict import MultiMapping, istr

from fundledger.app.http.admission.admission import REFUSED_UNSEEN, Admission, Owned
from fundledger.app.http.bodies.decoding import BODY_BYTES_MAX
from fundledger.app.http.openapi.types import Answer, Parameter
from fundledger.app.http.problems import BadRequest, cut, failed, malformed
from fundledger.app.http.wire.body_memory import BodiesUnderWay, Body
from fundledger.app.http.wire.peers import peer_of
from fundledger.app.http.wire.reply import Reply
from fundledger.app.http.wire.request_id import HEADER, new_request_id, request_id_of, stamped
from fundledger.app.http.worker import Served
from fundledger.faults import Unavailable
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.matched import Pending

BATCH_BODY_BYTES_MAX: Final = 8 << 20
WITH_BODY: Final = frozenset({"POST", "PATCH"})
"""Methods whose requests have a body."""
BODY_S: Final = 30.0
"""Time limit in seconds for the arrival of a body."""
TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
_TIMEOUT_HEADER: Final = istr(TIMEOUT_HEADER)
S = TypeVar("S", bound=Served)
S_contra = TypeVar("S_contra", bound=Served, contravariant=True)


class Call(msgspec.Struct):
    """An authenticated request. `parameters`: values in the path, by the parameter names of the route."""

    module: str
    parameters: dict[str, str]
    query: Mapping[str, str]
    headers: MultiMapping[str]
    body: bytes
    admission: Admission = msgspec.field(default_factory=lambda: Admission("", 0.0, None, ApiClass.PAYMENT))


class Route(msgspec.Struct, Generic[S_contra], frozen=True):
    """One route with its OpenAPI operation. `template`: a path in which a segment `{name}` is a parameter.

    A route without `api_class` is public: it needs no API token, has no quota, and is never shed. A request of a public
    route counts as `cost` unauthenticated requests of the client address. A health check costs 0.

    `enters`: the handler calls the admission controller itself, after it has found the account. `by_body`: the API
    class depends on the body, so no request is rejected before its body is read. `whose` returns the account in the
    path, or None if the worker has not cached the account. The policies of the returned account apply, too.

    `role`: the role that a person needs for the request. Modules need no role. None: no person needs a role.

    `id`, `tag`, `summary` and `description` are members of the OpenAPI operation. `answers`: the answers by status,
    without the standard answers, which `openapi/document.py` adds. `body`: the type of the body, and an example.
    """

    method: str
    template: str
    handler: Callable[[S_contra, Call], Awaitable[Reply]]
    api_class: ApiClass | None
    id: str
    tag: str
    summary: str
    description: str
    answers: dict[int, Answer]
    parameters: tuple[Parameter, ...] = ()
    body: tuple[type[msgspec.Struct], dict[str, Any]] | None = None
    cost: int = 0
    body_bytes_max: int = BODY_BYTES_MAX
    enters: bool = False
    by_body: bool = False
    whose: Callable[[S_contra, dict[str, str]], Owned | None] | None = None
    role: str | None = None
    query: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Set `query` to the names of the query parameters."""
        names = frozenset(one.name for one in self.parameters if one.place == "query")
        msgspec.structs.force_setattr(self, "query", names)


class Router(Generic[S]):
    """The routes of a service. A path matches a route with as many segments and with the same fixed segments."""

    def __init__(self, routes: list[Route[S]]) -> None:
        self.routes = routes
        self._by_length: dict[int, list[tuple[list[str], Route[S]]]] = {}
        for route in routes:
            segments = route.template.split("/")
            self._by_length.setdefault(len(segments), []).append((segments, route))

    def find(self, method: str, path: str) -> tuple[Route[S], dict[str, str]]:
        """Return a request's route and path parameters. Raises BadRequest: 404, or 405 with the allowed methods."""
        segments = path.split("/")
        allowed = set()
        for template, route in self._by_length.get(len(segments), ()):
            parameters = _match(template, segments)
            if parameters is None:
                continue
            if route.method == method or (method == "HEAD" and route.method == "GET"):
                return route, parameters
            allowed.add(route.method)
        if allowed:
            allow = ", ".join(sorted(allowed))
            detail = f"use {allow} instead of {cut(method)}"
            raise BadRequest(405, "method-not-allowed", "Method not allowed", detail, headers={"Allow": allow})
        raise BadRequest(404, "not-found", "Resource not found", "no resource has this path")


def _match(template: list[str], segments: list[str]) -> dict[str, str] | None:
    parameters = {}
    for wanted, given in zip(template, segments, strict=True):
        if wanted[:1] == "{":
            parameters[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return parameters


def unsupported_media(headers: MultiMapping[str]) -> BadRequest | None:
    """Return the rejection (415) if the headers announce a body that is compressed or not JSON, else None."""
    for encoding in headers.getall(hdrs.CONTENT_ENCODING, ()):
        if encoding.strip().lower() != "identity":
            return _unsupported("send the body uncompressed, without Content-Encoding")
    for type_ in headers.getall(hdrs.CONTENT_TYPE, ()):
        if type_ != "application/json" and type_.partition(";")[0].strip().lower() != "application/json":
            return _unsupported("send the body as application/json")
    return None


def _unsupported(detail: str) -> BadRequest:
    return BadRequest(415, "unsupported-media-type", "Unsupported media type", detail)


def unauthorized() -> BadRequest:
    headers = {"WWW-Authenticate": 'Bearer realm="fundledger"'}
    detail = "send `Authorization: Bearer TOKEN`; in the dev profile the token is in DATA_DIR/dev-token"
    return BadRequest(401, "unauthorized", "Authentication required", detail, headers=headers)


def role_missing(role: str) -> BadRequest:
    return BadRequest(403, "role-missing", "The person lacks a role", f"this request needs the role `{role}`")


def too_large(limit: int) -> BadRequest:
    return BadRequest(413, "body-too-large", "Request body too large", f"send at most {limit} bytes")


async def answer(service: S, router: Router[S], request: BaseRequest) -> web.StreamResponse:
    """Answer a request for aiohttp. Requests that take the fast path (`wire.protocol`) do not reach this function."""
    started = time.monotonic()
    label, method = "unmatched", request.method
    admission = Admission("", started, None, ApiClass.PAYMENT)
    try:
        admission.request_id = request_id_of(request.headers)
        route, parameters = _found(router, request)
        label = route.template
        reply = await _call(service, route, parameters, request, admission)
    except BadRequest as bad:
        reply = bad.reply if label != "unmatched" else _charge_unmatched(service, request, bad.reply)
    except (RequestPayloadError, HttpProcessingError):
        reply = malformed("the body does not match what its headers announce").reply
    except (ConnectionError, asyncio.CancelledError) as gone:
        service.controller.leave(admission, time.monotonic())
        service.answered(label, 499, time.monotonic() - started, method)
        if isinstance(gone, asyncio.CancelledError):
            raise
        # The connection is lost, so the response will not arrive.
        service.aborted(label)
        return to_response(malformed("the connection was lost").reply)
    except Exception as error:
        reply = failed(error, admission.request_id)
    reply = charged(service, admission, reply)
    now = time.monotonic()
    service.controller.leave(admission, now, reply)
    api_class = str(admission.api_class) if admission.module else ""
    request_id = admission.request_id or new_request_id()
    service.answered(label, reply.status, now - started, method, api_class, admission.shed, request_id)
    response = to_response(stamped(reply, request_id))
    response.headers[HEADER] = request_id
    response.headers.update(service.controller.rate_limit_headers(admission, now).headers)
    if (
        service.draining
        or reply.status in (408, 413)
        or (reply.status == 503 and not request.content.is_eof())
        or request.version < HttpVersion10
    ):
        response.force_close()
    return response


def _found(router: Router[S], request: BaseRequest) -> tuple[Route[S], dict[str, str]]:
    """Return the route of a request and the path parameters.

    Raises BadRequest: 404, 405, or 400 for HTTP/0.9, whose answers would have no headers.
    """
    if request.version < HttpVersion10:
        raise malformed("use HTTP/1.0 or HTTP/1.1")
    return router.find(request.method, request.path)


def charged(service: Served, admission: Admission, reply: Reply) -> Reply:
    """Charge the caller for a request that was rejected uncharged. Return the answer: `reply`, or a 429."""
    if reply.status not in REFUSED_UNSEEN:
        return reply
    answer = service.controller.charge_refused(admission, reply)
    if isinstance(answer, Pending):
        service.spawn(service.controller.charge_later(admission))
        return reply
    return answer


def _charge_unmatched(service: Served, request: BaseRequest, reply: Reply) -> Reply:
    """Charge a request without a route to its caller, or to its address if it has no valid token. Return its answer."""
    try:
        module = service.module(request.headers.get(hdrs.AUTHORIZATION))
    except Unavailable:
        return reply
    if module is None:
        wait_s = service.peers.wait_s(peer_of(request.transport), 1)
        return service.controller.too_many_of_peer(wait_s) if wait_s else reply
    return charged(service, Admission(module, time.monotonic(), None, ApiClass.QUERY), reply)


def to_response(reply: Reply) -> web.Response:
    """Return the aiohttp response for a reply."""
    headers = {"Cache-Control": "no-store", "Server": "fundledger", "Content-Type": reply.content_type}
    return web.Response(status=reply.status, body=reply.body, headers={**headers, **(reply.headers or {})})


async def _call(
    service: S, route: Route[S], parameters: dict[str, str], request: BaseRequest, admission: Admission
) -> Reply:
    module = service.module(request.headers.get(hdrs.AUTHORIZATION))
    is_public = route.api_class is None
    cost = route.cost if is_public else int(module is None)
    if cost:
        wait_s = service.peers.wait_s(peer_of(request.transport), cost)
        if wait_s:
            return service.controller.too_many_of_peer(wait_s)
    if module is None:
        if not is_public:
            raise unauthorized()
        module = "public"
    under_way = Body(module)
    try:
        return await _serve(service, route, parameters, request, admission, under_way)
    finally:
        if under_way.size:
            service.bodies.give_back(under_way)


async def _serve(
    service: S,
    route: Route[S],
    parameters: dict[str, str],
    request: BaseRequest,
    admission: Admission,
    under_way: Body,
) -> Reply:
    module = under_way.caller
    if route.api_class is not None:
        admission.module = module
        admission.api_class = route.api_class
        service.controller.recognise(admission, route.method)
        admission.budget_s = budget_of(request.headers)
        rejection = None if route.by_body else service.controller.early_rejection(admission)
        if rejection is not None:
            return rejection
    body = b""
    if route.method in WITH_BODY:
        if request.content_length is not None and request.content_length > route.body_bytes_max:
            raise too_large(route.body_bytes_max)
        if "Expect" in request.headers:
            await _send_continue(request)
        body = await _read(request, route.body_bytes_max, service.bodies, under_way)
        await service.bodies.turn(under_way)
        # The measured latency begins here: after the arrival of the body and the wait for earlier bodies of the caller.
        now = time.monotonic()
        if admission.budget_s is not None:
            admission.budget_s -= now - admission.started
        admission.started = now
    if route.api_class is not None and not route.enters:
        owned = None if route.whose is None else route.whose(service, parameters)
        rejection = await service.controller.admit(admission, () if owned is None else (owned,))
        if rejection is not None:
            return rejection
    if route.role is not None and not service.permits(module, route.role):
        raise role_missing(route.role)
    if route.method in WITH_BODY:
        bad = unsupported_media(request.headers) if body else None
        if bad is not None:
            raise bad
    query = request.query
    for name in query:
        if name not in route.query:
            raise malformed(f"unknown query parameter {cut(name)!r}", field=cut(name))
    if len(set(query)) != len(query):
        raise malformed("a query parameter is repeated")
    return await route.handler(service, Call(module, parameters, query, request.headers, body, admission))


def budget_of(headers: MultiMapping[str]) -> float | None:
    """Return how many seconds the caller waits, None if the header `X-Request-Timeout-Ms` is absent.

    Raises BadRequest (400).
    """
    text = headers.get(_TIMEOUT_HEADER)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise malformed(f"{TIMEOUT_HEADER} must be a whole number of milliseconds", field=TIMEOUT_HEADER)
    return int(text) / 1000


async def _send_continue(request: BaseRequest) -> None:
    """Send `100 Continue` to a client that waits for it (RFC 9110, 10.1.1). Raises BadRequest (417)."""
    if request.headers["Expect"].lower() != "100-continue":
        raise BadRequest(
            417, "expectation-failed", "Expectation failed", "the only supported expectation is 100-continue"
        )
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _read(request: BaseRequest, limit: int, bodies: BodiesUnderWay, under_way: Body) -> bytes:
    """Read the body of a request.

    Raises BadRequest: 413 beyond `limit` bytes, 503 if there is no memory for the body, 408 after BODY_S seconds.
    """
    chunks = []
    size = 0
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise too_large(limit)
                bodies.take(under_way, len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_S:g} s"
        raise BadRequest(408, "body-too-late", "Request body timeout", detail) from None
    return b"".join(chunks)
