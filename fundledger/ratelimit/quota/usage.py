"""Utilization of rate limits: the busiest key of each policy, with the requested tokens divided by the limit."""

from typing import Final

from fundledger.ratelimit.quota.bucket import Bucket

WINDOW_S: Final = 10.0
_NOTHING: Final = {"": 0.0}


class Usage:
    """Utilization of rate limits in windows of WINDOW_S. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._window = -1
        self._busiest: dict[str, dict[str, float]] = {}
        self._last: dict[str, dict[str, float]] = {}

    def demanded(self, bucket: Bucket, tokens: int, now: float) -> None:
        """Count tokens that were charged to a bucket, or that were requested of it and refused."""
        window = int(now / WINDOW_S)
        if window != self._window:
            self._last = self._busiest if window == self._window + 1 else {}
            self._window, self._busiest = window, {}
        if bucket.window != window:
            bucket.window, bucket.used = window, 0
        bucket.used += tokens
        name, share = bucket.policy.name, bucket.used / (bucket.policy.rate.per_second * WINDOW_S)
        if share > max(self._busiest.get(name, _NOTHING).values()):
            self._busiest[name] = {bucket.name: share}

    def top(self, now: float) -> dict[str, dict[str, float]]:
        """Return the busiest key of each policy in the last complete window, with its utilization."""
        return self._last if int(now / WINDOW_S) <= self._window + 1 else {}
