"""The memory of request bodies that are being read or served by one worker: bounded in all, and for each caller."""

import asyncio
import ctypes
from typing import Final

from fundledger.app.body import BODY_BYTES_MAX
from fundledger.app.problems import BadRequest

TRIM_BYTES: Final = 8 << 20
TRIM_AFTER_S: Final = 1.0


class BodiesUnderWay:
    """Bytes are counted as they arrive. Up to BODY_BYTES_MAX of each body may use all of `most`; what is longer may
    use half of it, and that of one caller a quarter: long bodies never keep out short ones, nor one caller the others.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self._long: dict[str, int] = {}
        self._since_trim = 0
        self._trimming = False

    def take(self, body: "Body", size: int) -> None:
        """Count `size` more bytes of a body. Raises BadRequest (503)."""
        of_caller = self._long.get(body.caller, 0)
        is_long = body.size + size > BODY_BYTES_MAX
        if self.bytes + size > (self.most // 2 if is_long else self.most):
            raise no_room()
        if is_long:
            if of_caller + size > self.most // 4:
                raise no_room()
            self._long[body.caller] = of_caller + size
            body.long += size
        body.size += size
        self.bytes += size

    def give_back(self, body: "Body") -> None:
        """The request has ended, however it did."""
        self.bytes -= body.size
        if body.long:
            left = self._long[body.caller] - body.long
            if left:
                self._long[body.caller] = left
            else:
                del self._long[body.caller]
            self._since_trim += body.long
            if self._since_trim >= TRIM_BYTES and not self._trimming:
                self._trimming = True
                asyncio.get_running_loop().call_later(TRIM_AFTER_S, self._trim)
        body.size = body.long = 0

    def _trim(self) -> None:
        """Return freed memory to the operating system: the allocator keeps what bodies in pieces took."""
        self._trimming = False
        self._since_trim = 0
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class Body:
    """What one request has read of its body. `long`: the bytes that count as those of a long one."""

    __slots__ = ("caller", "long", "size")

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.size = self.long = 0


def no_room() -> BadRequest:
    """Return a 503: nothing was done, the same request may be sent again."""
    detail = "too many request bodies are being read; nothing was written, the same request may be sent again"
    return BadRequest(503, "unavailable", "Not at the moment", detail, headers={"Retry-After": "1"})
