"""Concurrency limits for the delivery of outbox events to webhooks, so that slow endpoints do not block other
merchants.
"""

from collections import Counter
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID

SERVED_MAX: Final = 64
LATE_MAX: Final = 32
"""The number of places for late endpoints: endpoints that failed before or were slow."""
MERCHANT_MAX: Final = 8
HOST_MAX: Final = 16
"""The number of places for one receiver. The host and port of the URL identify a receiver."""
HOST_MERCHANT_MAX: Final = 4
SLOW_S: Final = 1.0
SLOW_REMEMBERED: Final = 10_000


class _Place(NamedTuple):
    merchant: str
    host: str
    late: bool


class Places:
    """The places that endpoints have while they are served, and the ids of endpoints that were slow.

    The place of an endpoint is taken before an attempt begins, so that the wait for a place does not count against the
    timeout.
    """

    def __init__(self) -> None:
        self._taken: dict[UUID, _Place] = {}
        self._slow: dict[UUID, None] = {}

    def free(self) -> int:
        return SERVED_MAX - len(self._taken)

    def slow(self) -> list[UUID]:
        return list(self._slow)

    def take(self, webhook: UUID, merchant: str, url: str, *, late: bool) -> bool:
        """Take a place for an endpoint. Return False if one of the limits is reached: in total, of its merchant, of its
        receiver, of its merchant at this receiver, or of late endpoints (`late`: the endpoint is one).
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
        """Record whether the last attempt of an endpoint was slow: it took `seconds`, and more than SLOW_S is slow."""
        self._slow.pop(webhook, None)
        if seconds > SLOW_S:
            self._slow[webhook] = None
            if len(self._slow) > SLOW_REMEMBERED:
                del self._slow[next(iter(self._slow))]
