"""Which handler answers a request: a table, one authentication, one place where exceptions become problems."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Generic, TypeVar

import msgspec
from aiohttp import HttpVersion10, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError
from aiohttp.web_request import BaseRequest
from multidict import MultiMapping, istr

from fundledger.app.body import BODY_BYTES_MAX
from fundledger.app.passage import REFUSED_UNSEEN, Owned, Passage
from fundledger.app.peers import peer_of
from fundledger.app.problems import BadRequest, crashed, cut, faulted, malformed
from fundledger.app.reply import Reply
from fundledger.app.request_id import HEADER, new_request_id, request_id_of, stamped
from fundledger.app.served import Served
from fundledger.app.under_way import BodiesUnderWay, Body
from fundledger.ledger.fault import Fault
from fundledger.ratelimit.chain import Pending
from fundledger.ratelimit.classes import ApiClass

BATCH_BODY_BYTES_MAX: Final = 8 << 20
BODY_S: Final = 30.0
"""How long a body may take to arrive."""
TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
_TIMEOUT_HEADER: Final = istr(TIMEOUT_HEADER)
S = TypeVar("S", bound=Served)


class Call(msgspec.Struct):
    """A request, once it is known who sends it. `parameters` are those of the path."""

    module: str
    parameters: dict[str, str]
    query: Mapping[str, str]
    headers: MultiMapping[str]
    body: bytes
    passage: Passage = msgspec.field(default_factory=lambda: Passage("", 0.0, None, ApiClass.PAYMENT))


class Route(msgspec.Struct, Generic[S], frozen=True):
    """`template` is a path with `{name}` parts; `query` names the parameters. A public route needs no token;
    `cost`: as how many requests of its address one counts, 0 for a health check.

    Without `api_class` it is not limited; `enters`: its handler passes the gate by itself, when it knows whose it is;
    `by_body`: the body tells the class, so that nobody is turned away before it is read. `whose`: what the path names
    belongs to somebody, whose policies count, too; it answers None where that is not known.
    """

    method: str
    template: str
    handler: Callable[[S, Call], Awaitable[Reply]]
    public: bool = False
    cost: int = 0
    query: tuple[str, ...] = ()
    body_bytes_max: int = BODY_BYTES_MAX
    api_class: ApiClass | None = None
    enters: bool = False
    by_body: bool = False
    whose: Callable[[S, dict[str, str]], Owned | None] | None = None


class Router(Generic[S]):
    """The routes, found by the number and the fixed parts of a path's segments."""

    def __init__(self, routes: list[Route[S]]) -> None:
        self.routes = routes
        self._by_length: dict[int, list[tuple[list[str], Route[S]]]] = {}
        for route in routes:
            segments = route.template.split("/")
            self._by_length.setdefault(len(segments), []).append((segments, route))

    def find(self, method: str, path: str) -> tuple[Route[S], dict[str, str]]:
        """Raises BadRequest: 404, or 405 with what is allowed."""
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
            detail = f"{cut(method)} is not among {allow}"
            raise BadRequest(
                405, "method-not-allowed", "The method is not allowed here", detail, headers={"Allow": allow}
            )
        raise BadRequest(404, "not-found", "There is no such resource", "no resource has this path")


def _match(template: list[str], segments: list[str]) -> dict[str, str] | None:
    parameters = {}
    for wanted, given in zip(template, segments, strict=True):
        if wanted[:1] == "{":
            parameters[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return parameters


def unsupported_media(headers: MultiMapping[str]) -> BadRequest | None:
    """Why a body with these headers is not read: it is compressed, or not JSON."""
    for encoding in headers.getall(hdrs.CONTENT_ENCODING, ()):
        if encoding.strip().lower() != "identity":
            return _unsupported("request bodies come uncompressed")
    for type_ in headers.getall(hdrs.CONTENT_TYPE, ()):
        if type_ != "application/json" and type_.partition(";")[0].strip().lower() != "application/json":
            return _unsupported("request bodies are application/json")
    return None


def _unsupported(detail: str) -> BadRequest:
    return BadRequest(415, "unsupported-media-type", "The body is not in a form that is read here", detail)


def unauthorized() -> BadRequest:
    headers = {"WWW-Authenticate": 'Bearer realm="fundledger"'}
    detail = "send `Authorization: Bearer TOKEN`; in the dev profile the token is in DATA_DIR/dev-token"
    return BadRequest(401, "unauthorized", "Who are you?", detail, headers=headers)


def too_large(limit: int) -> BadRequest:
    return BadRequest(413, "body-too-large", "The body is too large", f"at most {limit} bytes are read here")


async def answer(service: S, router: Router[S], request: BaseRequest) -> web.StreamResponse:
    """The handler that aiohttp calls for everything that does not take the short path of `protocol`."""
    started = time.monotonic()
    label, method = "unmatched", request.method
    request_id = ""
    passage = Passage("", started, None, ApiClass.PAYMENT)
    try:
        request_id = request_id_of(request.headers)
        route, parameters = _found(router, request)
        label = route.template
        reply = await _call(service, route, parameters, request, passage)
    except BadRequest as bad:
        reply = bad.reply if label != "unmatched" else _charged_to_its_sender(service, request, bad.reply)
    except Fault as fault:
        reply = faulted(fault)
    except (RequestPayloadError, HttpProcessingError):
        reply = malformed("the body is not in the form that the headers announce").reply
    except (ConnectionError, asyncio.CancelledError) as gone:
        service.gate.leave(passage, time.monotonic())
        service.answered(label, 499, time.monotonic() - started, method)
        if isinstance(gone, asyncio.CancelledError):
            raise
        # There is no one to answer: what is written to this connection is lost.
        service.aborted(label)
        return to_response(malformed("the connection was lost").reply)
    except Exception as error:
        reply = crashed(error)
    reply = charged(service, passage, reply)
    now = time.monotonic()
    service.gate.leave(passage, now, reply)
    api_class = str(passage.api_class) if passage.module else ""
    request_id = request_id or new_request_id()
    service.answered(label, reply.status, now - started, method, api_class, passage.shed, request_id)
    response = to_response(stamped(reply, request_id))
    response.headers[HEADER] = request_id
    response.headers.update(service.gate.told(passage, now).headers)
    if (
        service.draining
        or reply.status in (408, 413)
        or (reply.status == 503 and not request.content.is_eof())
        or request.version < HttpVersion10
    ):
        response.force_close()
    return response


def _found(router: Router[S], request: BaseRequest) -> tuple[Route[S], dict[str, str]]:
    """As `Router.find`. An answer to HTTP/0.9 would be a body without a head."""
    if request.version < HttpVersion10:
        raise malformed("requests are HTTP/1.0 or HTTP/1.1")
    return router.find(request.method, request.path)


def charged(service: Served, passage: Passage, reply: Reply) -> Reply:
    """Return the answer to a request whose caller has paid for it, also where it was refused before it was charged."""
    if reply.status not in REFUSED_UNSEEN:
        return reply
    answer = service.gate.charge_refused(passage, reply)
    if isinstance(answer, Pending):
        service.spawn(service.gate.charge_later(passage))
        return reply
    return answer


def _charged_to_its_sender(service: Served, request: BaseRequest, reply: Reply) -> Reply:
    """Of a request that no route was found for: no policy is shown for it, but it is a request of its caller."""
    module = service.module(request.headers.get(hdrs.AUTHORIZATION))
    if module is None:
        wait_s = service.peers.wait_s(peer_of(request.transport), 1)
        return service.gate.too_many_of_peer(wait_s) if wait_s else reply
    return charged(service, Passage(module, time.monotonic(), None, ApiClass.QUERY), reply)


def to_response(reply: Reply) -> web.Response:
    """A reply as aiohttp sends it."""
    headers = {"Cache-Control": "no-store", "Server": "fundledger", "Content-Type": reply.content_type}
    return web.Response(status=reply.status, body=reply.body, headers={**headers, **(reply.headers or {})})


async def _call(
    service: S, route: Route[S], parameters: dict[str, str], request: BaseRequest, passage: Passage
) -> Reply:
    module = service.module(request.headers.get(hdrs.AUTHORIZATION))
    cost = route.cost if route.public else int(module is None)
    if cost:
        wait_s = service.peers.wait_s(peer_of(request.transport), cost)
        if wait_s:
            return service.gate.too_many_of_peer(wait_s)
    if module is None:
        if not route.public:
            raise unauthorized()
        module = "public"
    under_way = Body(module)
    try:
        return await _serve(service, route, parameters, request, passage, under_way)
    finally:
        if under_way.size:
            service.bodies.give_back(under_way)


async def _serve(
    service: S,
    route: Route[S],
    parameters: dict[str, str],
    request: BaseRequest,
    passage: Passage,
    under_way: Body,
) -> Reply:
    module = under_way.caller
    if route.api_class is not None:
        passage.module = module
        passage.api_class = route.api_class
        service.gate.recognise(passage, route.method)
        passage.budget_s = budget_of(request.headers)
        no = None if route.by_body else service.gate.at_the_door(passage)
        if no is not None:
            return no
    body = b""
    if route.method == "POST":
        if request.content_length is not None and request.content_length > route.body_bytes_max:
            raise too_large(route.body_bytes_max)
        if "Expect" in request.headers:
            await _go_on(request)
        body = await _read(request, route.body_bytes_max, service.bodies, under_way)
        await service.bodies.turn(under_way)
        # How long it took to arrive is no part of how long we take, nor is the wait for those before it.
        now = time.monotonic()
        if passage.budget_s is not None:
            passage.budget_s -= now - passage.started
        passage.started = now
    if route.api_class is not None and not route.enters:
        owned = None if route.whose is None else route.whose(service, parameters)
        no = await service.gate.let(passage, () if owned is None else (owned,))
        if no is not None:
            return no
    if route.method == "POST":
        bad = unsupported_media(request.headers) if body else None
        if bad is not None:
            raise bad
    query = request.query
    for name in query:
        if name not in route.query:
            raise malformed(f"there is no query parameter {cut(name)!r}", field=cut(name))
    if len(set(query)) != len(query):
        raise malformed("a query parameter stands twice")
    return await route.handler(service, Call(module, parameters, query, request.headers, body, passage))


def budget_of(headers: MultiMapping[str]) -> float | None:
    """What a caller still waits, in seconds, by his own `X-Request-Timeout-Ms`. Raises BadRequest (400)."""
    text = headers.get(_TIMEOUT_HEADER)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise malformed(f"{TIMEOUT_HEADER} is a whole number of milliseconds", field=TIMEOUT_HEADER)
    return int(text) / 1000


async def _go_on(request: BaseRequest) -> None:
    """Tell a client that asks first (RFC 9110, 10.1.1) to send its body."""
    if request.headers["Expect"].lower() != "100-continue":
        raise BadRequest(417, "expectation-failed", "The expectation is not met", "only 100-continue is known here")
    if request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _read(request: BaseRequest, limit: int, bodies: BodiesUnderWay, under_way: Body) -> bytes:
    """Raises BadRequest: 413, 503 when there is no room for it, or 408 when it does not arrive within BODY_S."""
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
        raise BadRequest(408, "body-too-late", "The body did not arrive", detail) from None
    return b"".join(chunks)
