"""HTTP protocol of a client connection, with a fast path for payments that needs no task, future or request object.

One POST of each service takes the fast path. aiohttp parses every request and serves the other requests. A payment
that arrives whole on an idle kept-alive connection is taken from the parsed messages before aiohttp's handler loop is
woken. Its answer is written when its batch has been committed. Any other payment (for example, with a body in pieces,
with `Connection: close`, or pipelined behind another request) takes the ordinary path and gets the same answer.
`docs/adr/0003` has the numbers; tests/app/test_protocol.py compares the two paths.
"""

import asyncio
import fcntl
import logging
import struct
import termios
import time
from collections.abc import Callable
from typing import Any, Final, Generic

import msgspec
from aiohttp import hdrs, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_server import Server

from fundledger.app.http.admission.admission import REFUSED_UNSEEN, Admission
from fundledger.app.http.admission.payment_path import PaymentPath
from fundledger.app.http.bodies.decoding import BODY_BYTES_MAX
from fundledger.app.http.problems import BadRequest, failed, malformed
from fundledger.app.http.routing import S, budget_of, charged, to_response, unauthorized, unsupported_media
from fundledger.app.http.wire.peers import peer_of
from fundledger.app.http.wire.reply import Reply
from fundledger.app.http.wire.request_id import HEADER, new_request_id, request_id_of, stamped
from fundledger.ratelimit.classes import ApiClass

KEEPALIVE_S: Final = 75.0
NO_HTTP: Final = "the request is not HTTP/1.1 as RFC 9112 defines it: lines end with CR LF, and headers are not folded"
NO_ROOM: Final = "too many connections are open; nothing was done, the same request may be sent again"
TOO_LONG: Final = (
    "the request line, a header or the number of headers is beyond the limit: 8190 bytes each, 128 headers"
)
CLOSES: Final = b"Connection: close\r\n"
_log = logging.getLogger(__name__)


def no_room() -> BadRequest:
    """Return the rejection (503) of a connection beyond the limit."""
    return BadRequest(503, "unavailable", "Service temporarily unavailable", NO_ROOM, headers={"Retry-After": "1"})


class FastPath(msgspec.Struct, Generic[S], frozen=True):
    """The route of the POST that takes the fast path, and the constructor of the `PaymentPath` of each request."""

    route: str
    path: Callable[[S, Admission, Callable[[Reply], None]], PaymentPath[S, Any, Any]]


class PaymentProtocol(RequestHandler, Generic[S]):
    """The protocol of one client connection."""

    __slots__ = ("_path", "_paying", "_received_at", "_route", "_service")

    def __init__(
        self, service: S, short: FastPath[S], manager: Server, *, loop: asyncio.AbstractEventLoop, **kwargs: Any
    ) -> None:
        super().__init__(manager, loop=loop, **kwargs)
        self._service = service
        self._route = short.route
        self._path = short.path
        self._paying = False
        self._received_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve the connection, if there is room. The start of a connection counts as received data."""
        super().connection_made(transport)
        self._received_at = self._loop.time()
        if not self._service.connections.opened(self, peer_of(transport)):
            assert isinstance(transport, asyncio.Transport)
            id_ = new_request_id()
            transport.write(stamped(no_room().reply, id_).raw(b"Request-Id: %b\r\n%b" % (id_.encode(), CLOSES)))
            self.force_close()

    def close_if_silent(self, since: float, for_s: float) -> bool:
        """Close this connection if it is silent while the service drains. Return whether the connection is closed.

        The connection stays open while a request is in progress. It also stays open for `for_s` seconds after data has
        arrived, and for `for_s` seconds after the time `since`, when the drain began.
        """
        transport, waiter = self.transport, self._waiter
        if transport is None or transport.is_closing():
            return True
        is_idle = waiter is not None and not waiter.done() and not (self._paying or self._messages)
        if not is_idle or self._loop.time() - max(since, self._received_at) < for_s or _unread(transport):
            return False
        self.force_close()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        self._service.connections.gone(self)
        super().connection_lost(exc)

    def idle_since(self) -> float | None:
        """Return a time that orders connections by their last use. Return None while a request is in progress.

        A connection also counts as idle if its client has sent only a part of a request, or does not read the answer.
        """
        if self._paying or self._messages or self._current_request is not None:
            return None
        return self._next_keepalive_close_time

    def data_received(self, data: bytes) -> None:
        if self._service.draining:
            self._received_at = self._loop.time()
        waiter = self._waiter
        if waiter is None or waiter.done() or self._payload_parser is not None or self._upgraded:
            super().data_received(data)
            return
        # The waiter wakes the handler loop. Without the waiter, the loop sleeps while parsed messages are inspected.
        self._waiter = None
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        self._next()

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer invalid HTTP like any other malformed request, without a log line.

        The parser's message repeats lines of the request. These lines may contain credentials, so a fixed text is sent.
        """
        if status == 400 and request.writer.output_size == 0:
            is_long = isinstance(exc, LineTooLong)
            id_ = new_request_id()
            response = to_response(stamped(malformed(TOO_LONG if is_long else NO_HTTP).reply, id_))
            response.headers[HEADER] = id_
            response.force_close()
            return response
        return super().handle_error(request, status, exc, message)

    def _process_keepalive(self) -> None:
        """Close the connection if it is idle. During a payment it is not idle, although its handler loop sleeps."""
        if self._paying:
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    def _next(self) -> None:
        """Serve the first waiting message, on the fast path or by waking the handler loop. Later messages wait."""
        messages, waiter = self._messages, self._waiter
        if self._paying or not messages or waiter is None or waiter.done():
            return
        message, payload = messages[0]
        if (
            type(message) is RawRequestMessage
            and message.path == self._route
            and message.method == "POST"
            and not message.should_close
            and type(payload) is StreamReader
            and payload.is_eof()
            and payload.exception() is None
            and payload.total_raw_bytes <= BODY_BYTES_MAX
            and not self._service.draining
            and hdrs.EXPECT not in message.headers
        ):
            # Set before the body is read: reading resumes the transport, and the transport may call `data_received`.
            self._paying = True
            messages.popleft()
            assert self._parser is not None
            self._parser.message_consumed()
            if self._buffer_paused and len(messages) <= self._msg_queue_resume_size:
                self._resume_reading_if_drained()
            self._pay(message, payload.read_nowait(-1))
        else:
            waiter.set_result(None)

    def _pay(self, message: RawRequestMessage, body: bytes) -> None:
        started = time.monotonic()
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        headers = message.headers
        service, route = self._service, self._route

        admission = Admission("", started, None, ApiClass.PAYMENT)

        def answer(reply: Reply) -> None:
            limits = b""
            try:
                if reply.status in REFUSED_UNSEEN:
                    reply = charged(service, admission, reply)
                now = time.monotonic()
                service.controller.leave(admission, now, reply)
                service.answered(
                    route,
                    reply.status,
                    now - started,
                    "POST",
                    admission.api_class,
                    admission.shed,
                    admission.request_id,
                )
                limits = service.controller.rate_limit_headers(admission, now).raw
                if reply.status >= 400:
                    reply = stamped(reply, admission.request_id)
            except Exception:
                # Without an answer, the caller and the later requests on this connection would wait permanently.
                extra = {"event": "answer_not_counted", "request_id": admission.request_id}
                _log.critical("an answer could not be counted", exc_info=True, extra=extra)
            self._paying = False
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            if (transport := self.transport) is not None:
                more = b"%bRequest-Id: %b\r\n" % (limits, admission.request_id.encode())
                transport.write(reply.raw(more + CLOSES if service.draining else more))
                if service.draining:
                    self.close()
                    transport.close()
                elif self._messages:
                    self._loop.call_soon(self._next)

        reply = None
        try:
            admission.request_id = request_id_of(headers)
            module = service.module(headers.get(hdrs.AUTHORIZATION))
            if module is None:
                reply = self._no_module()
            else:
                admission.module = module
                admission.budget_s = budget_of(headers)
                bad = unsupported_media(headers)
                reply = None if bad is None else bad.reply
        except Exception as error:
            reply = failed(error, admission.request_id)
        admission.request_id = admission.request_id or new_request_id()
        if reply is None:
            self._path(service, admission, answer).post(body)
        else:
            answer(reply)

    def _no_module(self) -> Reply:
        """Return the answer to a request without a valid token: 401, or 429 if its address sends too many."""
        wait_s = self._service.peers.wait_s(peer_of(self.transport), 1)
        return self._service.controller.too_many_of_peer(wait_s) if wait_s else unauthorized().reply


def _unread(transport: asyncio.Transport) -> bool:
    """Return whether the kernel holds unread bytes of the connection."""
    peer = transport.get_extra_info("socket")
    try:
        return bool(struct.unpack("i", fcntl.ioctl(peer.fileno(), termios.FIONREAD, b"\0" * 4))[0])
    except (OSError, ValueError):
        return False
