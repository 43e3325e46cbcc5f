"""HTTP wire level: replies of both services (status, body, headers), before they are written to a connection."""

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"
encode: Final = msgspec.json.Encoder().encode
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}
_date = (0, b"")
_heads: dict[tuple[int, str], bytes] = {}


class Reply:
    """One answer. `raw` returns the whole HTTP/1.1 response for a kept-alive connection."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: int, body: bytes, content_type: str = JSON, headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers

    def raw(self, more: bytes = b"") -> bytes:
        """Return the response as bytes. `more`: header lines that depend on the request and the connection."""
        head = _heads.get((self.status, self.content_type)) or _head(self.status, self.content_type)
        extra = b"".join([f"{k}: {v}\r\n".encode() for k, v in self.headers.items()]) if self.headers else b""
        return b"%b%b%b%bContent-Length: %d\r\n\r\n%b" % (head, _date_line(), extra, more, len(self.body), self.body)


class NothingDone(Reply):
    """The answer to a request for which nothing was done because of a fault. Its charges are refunded."""

    __slots__ = ()


def _head(status: int, content_type: str) -> bytes:
    fixed = "Cache-Control: no-store\r\nServer: fundledger"
    head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {content_type}\r\n{fixed}\r\n"
    _heads[status, content_type] = head.encode()
    return _heads[status, content_type]


def _date_line() -> bytes:
    global _date  # noqa: PLW0603 - the formatted time, cached for a second
    now = int(time.time())
    if _date[0] != now:
        _date = (now, f"Date: {formatdate(now, usegmt=True)}\r\n".encode())
    return _date[1]
