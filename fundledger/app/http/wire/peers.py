"""HTTP wire level: limit on requests without a valid token, per client address and worker.

Each address has a leaky bucket (GCRA) in memory. All callers behind a proxy have the address of the proxy. Therefore
requests with a valid token and health checks are not counted.
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
    """Return the client of a connection: an IPv4 address, or the /64 network of an IPv6 address."""
    name = None if transport is None else transport.get_extra_info("peername")
    if not name:
        return ""
    address = str(name[0])
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed) >> 64 << 64))


class Peers:
    """The buckets of all addresses. `per_s`: mean requests per second of an address. A burst may be twice as many."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._each_s = 1 / per_s
        self._clock = clock
        self._until: dict[str, float] = {}

    def wait_s(self, peer: str, cost: int) -> float:
        """Charge `cost` requests to an address and return 0.

        If the bucket of the address has too little left, charge nothing and return the necessary wait in seconds.
        """
        now = self._clock()
        until = max(now, self._until.get(peer, 0.0)) + cost * self._each_s
        if until - now > BURST_S + ROUNDING_S:
            return until - now - BURST_S
        if len(self._until) >= PEERS_MAX and peer not in self._until:
            self._forget(now)
        self._until[peer] = until
        return 0.0

    def _forget(self, now: float) -> None:
        """Remove the addresses whose bucket is full again. If too many addresses remain, remove all."""
        self._until = {peer: until for peer, until in self._until.items() if until > now}
        if len(self._until) >= PEERS_MAX:
            self._until = {}
