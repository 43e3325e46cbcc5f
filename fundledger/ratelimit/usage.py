"""How much of its limit the busiest key of each policy uses."""

from typing import Final

from fundledger.ratelimit.bucket import Bucket

WINDOW_S: Final = 10.0


class Usage:
    """Shares of limits over whole windows. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._window = -1
        self._busiest: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def charged(self, bucket: Bucket, tokens: int, now: float) -> None:
        """Count tokens that a bucket was charged, or was asked for and had not."""
        window = int(now / WINDOW_S)
        if window != self._window:
            self._last = self._busiest if window == self._window + 1 else {}
            self._window, self._busiest = window, {}
        if bucket.window != window:
            bucket.window, bucket.used = window, 0
        bucket.used += tokens
        name, share = bucket.policy.name, bucket.used / (bucket.policy.rate.per_second * WINDOW_S)
        self._busiest[name] = max(share, self._busiest.get(name, 0.0))

    def top(self, now: float) -> dict[str, float]:
        """Return the share of the busiest key of each policy in the last whole window."""
        return self._last if int(now / WINDOW_S) <= self._window + 1 else {}
