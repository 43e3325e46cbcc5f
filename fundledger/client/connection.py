"""Python client: HTTP connections, timeouts, retries, and the mapping of failures to faults."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, NoReturn, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDictProxy
from yarl import URL

from fundledger.client.event import Event
from fundledger.client.faults import (
    ContractBroken,
    Fault,
    OutcomeUnknown,
    Problem,
    QuotaExceeded,
    Refused,
    Unauthorized,
    Unavailable,
)

TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
T = TypeVar("T")


class Retries(msgspec.Struct, frozen=True):
    """Retry policy: a call makes at most `attempts` attempts in total, within its timeout.

    The wait is `base_s` after the first attempt, and doubles after each further attempt, up to `cap_s`. Each wait is
    shortened at random, by at most the fraction `jitter` (0 to 1) of its length. If the service sends `Retry-After`,
    the wait is at least that long.
    """

    attempts: int = 4
    base_s: float = 0.1
    cap_s: float = 5.0
    jitter: float = 1.0

    def wait_s(self, attempt: int, fault: Fault) -> float:
        wait_s = min(self.cap_s, self.base_s * 2.0 ** min(attempt, 60))
        wait_s *= 1 - self.jitter * random.random()  # noqa: S311 - spreads the retries
        return max(wait_s, fault.retry_after_s or 0.0)


class Answer(NamedTuple):
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def is_replay(self) -> bool:
        return self.headers.get("Idempotent-Replay") == "true"


class _Sending:
    """State of a request in progress. `sent`: the service may have received a part of the request. `reused`: the
    connection had carried an earlier request.
    """

    __slots__ = ("reused", "sent")

    def __init__(self) -> None:
        self.sent = False
        self.reused = False


class _Body(aiohttp.Payload):
    """Request body of any length, sent unchanged. For a body above 1 MiB, aiohttp's own types log a warning or use a
    thread.
    """

    _autoclose = True
    _value: bytes

    def __init__(self, value: bytes) -> None:
        super().__init__(value, content_type="application/json")
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await writer.write(self._value)


class Connection:
    """Kept-alive connections to one service. Each connection carries one request at a time.

    The cancellation of a call closes the connection of the call and leaves no task behind. The request may have had an
    effect. The same request, sent again with the same id, returns the outcome.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None,
        timeout_s: float = 30.0,
        connections: int = 100,
        retries: Retries | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        if URL(self.base_url).scheme not in {"http", "https"} or not URL(self.base_url).host:
            raise ValueError(f"{base_url!r} is not an http(s) URL")
        self.timeout_s = timeout_s
        self._connections = connections
        self._retries = retries
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Create the HTTP session. This does not connect to the service."""
        if self._session is None:
            self._session = self._new_session(force_close=False)

    async def close(self) -> None:
        sessions, self._session, self._fresh = (self._session, self._fresh), None, None
        for session in sessions:
            if session is not None:
                await session.close()

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Answer:
        """Send a request and return the response, whether or not its status is 2xx.

        Raises Unavailable, OutcomeUnknown or QuotaExceeded after the last attempt. Raises ContractBroken without a
        retry. Once the outcome of one attempt is unknown, a later fault is raised as OutcomeUnknown.
        """
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        text = self.base_url + path + (f"?{urlencode(query)}" if query else "")
        url = URL(text, encoded=True)
        writing = method != "GET"
        unknown = False
        attempt = 0
        while True:
            try:
                return await self._attempt(method, url, body, deadline, writing)
            except (Unavailable, OutcomeUnknown, QuotaExceeded) as fault:
                unknown = unknown or isinstance(fault, OutcomeUnknown)
                wait_s = None if self._retries is None else self._retries.wait_s(attempt, fault)
                attempt += 1
                if self._retries is None or attempt >= self._retries.attempts or wait_s is None:
                    _give_up(fault, unknown)
                if time.monotonic() + wait_s >= deadline:
                    _give_up(fault, unknown)
            await asyncio.sleep(wait_s)

    async def _attempt(self, method: str, url: URL, body: bytes | None, deadline: float, writing: bool) -> Answer:
        """Send the request once. If the service had closed the kept-alive connection, send it again on a new
        connection.
        """
        assert self._session is not None, "call open() first, or use `async with`"
        sending = _Sending()
        try:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    answer = await self._send(self._session, method, url, body, deadline, sending)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if not sending.reused or self._session is None:
                    raise
                if self._fresh is None:
                    self._fresh = self._new_session(force_close=True)
                async with asyncio.timeout(deadline - time.monotonic()):
                    answer = await self._send(self._fresh, method, url, body, deadline, sending)
        except TimeoutError:
            raise _lost("no answer in time", sending.sent and writing) from None
        except aiohttp.ClientResponseError as error:
            raise ContractBroken(f"the response is not HTTP: {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _lost(f"{type(error).__name__}: {error}", sending.sent and writing) from error
        if answer.status in {408, 429} or answer.status >= 500:
            raise _fault_of(answer, writing)
        return answer

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        url: URL,
        body: bytes | None,
        deadline: float,
        sending: _Sending,
    ) -> Answer:
        left_ms = max(1, min(999_999_999, int((deadline - time.monotonic()) * 1000)))
        async with session.request(
            method,
            url,
            data=None if body is None else _Body(body),
            headers={TIMEOUT_HEADER: str(left_ms)},
            allow_redirects=False,
            trace_request_ctx=sending,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    def _new_session(self, *, force_close: bool) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_on_sent)
        trace.on_connection_reuseconn.append(_on_reused)
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, force_close=force_close),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            trace_configs=[trace],
        )


async def _on_sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    # aiohttp calls this function before it writes the first byte, so `sent` is never set too late.
    context.trace_request_ctx.sent = True


async def _on_reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.reused = True


def _give_up(fault: Fault, unknown: bool) -> NoReturn:
    if unknown and not isinstance(fault, OutcomeUnknown):
        detail = f"{fault}; an earlier attempt may have been served"
        raise OutcomeUnknown(detail, fault.problem, fault.retry_after_s) from fault
    raise fault


def _lost(detail: str, unknown: bool) -> Fault:
    return OutcomeUnknown(detail) if unknown else Unavailable(detail)


def problem_of(answer: Answer) -> Problem | None:
    """Return the problem that a response contains, or None if the response contains no problem."""
    if not answer.headers.get("Content-Type", "").startswith("application/problem+json"):
        return None
    try:
        return Problem(msgspec.json.decode(answer.body, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _fault_of(answer: Answer, writing: bool) -> Fault:
    problem = problem_of(answer)
    detail = f"HTTP {answer.status}" if problem is None else str(problem)
    retry_after_s = _retry_after_s(answer)
    if answer.status == 429:
        return QuotaExceeded(detail, problem, retry_after_s)
    # A 408 or 503 without a problem may come from a proxy that lost the service's response. So its outcome is unknown.
    undone = answer.status in {408, 503} and problem is not None and problem.code != "outcome-unknown"
    if undone or not writing:
        return Unavailable(detail, problem, retry_after_s)
    return OutcomeUnknown(detail, problem, retry_after_s)


def _retry_after_s(answer: Answer) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def refusal_of(answer: Answer) -> Exception:
    """Return the exception for a response whose status is not 2xx."""
    problem = problem_of(answer)
    if answer.status in {401, 403}:
        return Unauthorized(f"HTTP {answer.status}" if problem is None else str(problem), problem)
    if problem is not None and 400 <= answer.status < 500:
        return Refused(problem)
    return ContractBroken(f"HTTP {answer.status} without a problem body: {answer.body[:200]!r}")


def _ours(type_: type, value: Any) -> Any:
    if type_ in {Problem, Event} and isinstance(value, dict):
        return type_(value)
    raise TypeError(f"cannot decode {type_} from {type(value)}")


def decoder(type_: type[T]) -> Callable[[Answer], T]:
    """Return a function that decodes a 2xx response. The function raises Refused, Unauthorized or ContractBroken."""
    decode_body = msgspec.json.Decoder(type_, dec_hook=_ours).decode

    def decode(answer: Answer) -> T:
        if not 200 <= answer.status < 300:
            raise refusal_of(answer)
        try:
            return decode_body(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ContractBroken(f"{error}: {answer.body[:200]!r}") from error

    return decode


def converted(value: object, type_: type[T]) -> T:
    """Convert a part of a response to `type_`. Raises ContractBroken if the part has another form."""
    try:
        return msgspec.convert(value, type_, dec_hook=_ours)
    except msgspec.ValidationError as error:
        raise ContractBroken(f"{error}: {value!r:.200}") from error


def found(answer: Answer, decode: Callable[[Answer], T]) -> T | None:
    """Decode a response. Return None if the response is the problem `not-found`. Raises what `decode` raises."""
    if answer.status == 404:
        problem = problem_of(answer)
        if problem is not None and problem.code == "not-found":
            return None
    return decode(answer)
