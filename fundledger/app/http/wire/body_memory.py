"""HTTP wire level: limits on the memory of request bodies, and on the decoding of long bodies of one caller."""

import asyncio
import ctypes
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fundledger.app.http.bodies.decoding import BODY_BYTES_MAX
from fundledger.app.http.problems import BadRequest

TRIM_BYTES: Final = 8 << 20
TRIM_AFTER_S: Final = 1.0
LONG_BYTES_PER_S: Final = 12_000_000
"""Maximum mean rate, in bytes per second, at which long bodies of one caller are decoded. Decoding takes up to 4 ns a
byte and cannot be interrupted. So one caller blocks the loop for at most a twentieth of the time, and delays fewer than
1 % of the short requests.
"""
LONG_BYTES_AT_ONCE: Final = 128_000_000
"""Number of bytes in long bodies that one caller may send at any rate. Beyond this number, decoding waits."""


class BodiesUnderWay:
    """Memory of request bodies in progress, counted while the bytes arrive. `most`: the limit in bytes.

    The first BODY_BYTES_MAX bytes of each body may use the whole limit. Further bytes are accepted up to half of the
    limit in total, and up to a quarter of the limit for each caller. So long bodies never exclude short bodies, and one
    caller never excludes other callers.
    """

    def __init__(
        self,
        most: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.most = most
        self._clock = clock
        self._sleep = sleep
        self._paid_at: dict[str, float] = {}
        self.bytes = 0
        self._long: dict[str, int] = {}
        self._since_trim = 0
        self._trimming = False

    def take(self, body: "Body", size: int) -> None:
        """Count `size` more bytes of a body. Raises BadRequest (503) beyond a limit."""
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

    async def turn(self, body: "Body") -> None:
        """Wait before a long body is decoded, if its caller has sent too many bytes of long bodies before.

        The wait is bounded, because the memory for long bodies of one caller is bounded. Cancelling the wait does not
        release the bytes.
        Source of the arithmetic: GCRA, see `ratelimit/quota/gcra.py`.
        """
        if body.long:
            now = self._clock()
            paid_at = max(now, self._paid_at.get(body.caller, now))
            self._paid_at[body.caller] = paid_at + body.size / LONG_BYTES_PER_S
            wait_s = self._paid_at[body.caller] - now - LONG_BYTES_AT_ONCE / LONG_BYTES_PER_S
            if wait_s > 0:
                await self._sleep(wait_s)

    def give_back(self, body: "Body") -> None:
        """Release the bytes of a request that has ended, whatever its outcome."""
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
        """Return freed memory to the operating system. The allocator keeps memory of bodies that arrived in pieces."""
        self._trimming = False
        self._since_trim = 0
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


class Body:
    """Bytes read of one request body. `size`: their number. `long`: how many of them count as bytes of a long body."""

    __slots__ = ("caller", "long", "size")

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self.size = self.long = 0


def no_room() -> BadRequest:
    """Return the rejection (503) of a body beyond a limit. Nothing was done, and the request may be sent again."""
    detail = "too many request bodies are in progress; nothing was written, the same request may be sent again"
    return BadRequest(503, "unavailable", "Service temporarily unavailable", detail, headers={"Retry-After": "1"})
