"""Concurrency limits of outbox webhook deliveries, so that slow endpoints do not block other merchants."""

from collections import Counter
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

SERVED_MAX: Final = 64
LATE_MAX: Final = 32
"""Places for endpoints that failed before or were slow."""
MERCHANT_MAX: Final = 8
HOST_MAX: Final = 16
"""Places for one receiver, by the host and port of the URL."""
HOST_MERCHANT_MAX: Final = 4
SLOW_S: Final = 1.0
SLOW_REMEMBERED: Final = 10_000


class _Place(NamedTuple):
    merchant: str
    host: str
    late: bool


class Places:
    """The places of endpoints that are being served, and the endpoints that were slow.

    A place is taken before an attempt begins, so that waiting for a place does not count against the timeout.
    """

    def __init__(self) -> None:
        self._taken: dict[UUID, _Place] = {}
        self._slow: dict[UUID, None] = {}

    def free(self) -> int:
        return SERVED_MAX - len(self._taken)

    def slow(self) -> list[UUID]:
        return list(self._slow)

    def take(self, webhook: UUID, merchant: str, url: str, *, late: bool) -> bool:
        """Take a place for an endpoint. Return False if no place is free: in total, for its merchant, for its receiver,
        or for late endpoints (`late`).
        """
        host = urlsplit(url).netloc.rpartition("@")[2].lower()
        taken = self._taken.values()
        hosts = Counter(place.merchant for place in taken if place.host == host)
        if (
            len(taken) >= SERVED_MAX
            or sum(place.merchant == merchant for place in taken) >= MERCHANT_MAX
            or hosts.total() >= HOST_MAX
            or hosts[merchant] >= HOST_MERCHANT_MAX
            or (late and sum(place.late for place in taken) >= LATE_MAX)
        ):
            return False
        self._taken[webhook] = _Place(merchant, host, late)
        return True

    def give_back(self, webhook: UUID) -> None:
        self._taken.pop(webhook, None)

    def answered(self, webhook: UUID, seconds: float) -> None:
        """Record whether an endpoint was slow in its last attempt."""
        self._slow.pop(webhook, None)
        if seconds > SLOW_S:
            self._slow[webhook] = None
            if len(self._slow) > SLOW_REMEMBERED:
                del self._slow[next(iter(self._slow))]
