"""Requests without a valid token, of each address: bounded in every worker, so that nothing free can take one.

A leaky bucket for each address (GCRA), in memory. Behind a proxy all callers have its address: requests with a token
are not counted here, and neither are health checks.
"""

import asyncio
import ipaddress
import time
from collections.abc import Callable
from typing import Final

PEERS_MAX: Final = 10_000
BURST_S: Final = 2.0
ROUNDING_S: Final = 1e-6


def peer_of(transport: asyncio.BaseTransport | None) -> str:
    """Return whose connection it is: an IPv4 address, or the network (/64) of an IPv6 address: one client's."""
    name = None if transport is None else transport.get_extra_info("peername")
    if not name:
        return ""
    address = str(name[0])
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed) >> 64 << 64))


class Peers:
    """`per_s`: requests of one address in a second, on average; a burst may have twice as many."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_s = 1 / per_s
        self._clock = clock
        self._until: dict[str, float] = {}

    def wait_s(self, peer: str, cost: int) -> float:
        """Charge `cost` requests and return 0, or charge nothing and return for how long the address has to wait."""
        now = self._clock()
        until = max(now, self._until.get(peer, 0.0)) + cost * self._each_s
        if until - now > BURST_S + ROUNDING_S:
            return until - now - BURST_S
        if len(self._until) >= PEERS_MAX and peer not in self._until:
            self._forget(now)
        self._until[peer] = until
        return 0.0

    def _forget(self, now: float) -> None:
        """Remove addresses with a full allowance; remove all addresses when there are too many."""
        self._until = {peer: until for peer, until in self._until.items() if until > now}
        if len(self._until) >= PEERS_MAX:
            self._until = {}
