"""Fair shares of the load shedder: a merchant's part of the concurrency limit of a class."""

from typing import Final

SHARE_MIN: Final = 2
"""Minimum share in requests: one in the current batch and one waiting for the next."""
SPREADS: Final = 2.5
"""Tolerance above the share, in standard deviations. Random arrivals deviate by the square root of the mean."""
LENT: Final = 0.6
"""Part of the limit up to which requests are admitted without a check of shares. The rest of the limit is left for
merchants within their share."""
LENT_AGAIN: Final = 0.001
"""Increase of the part `lent` with each window. `lent` is set to 0 if a request was rejected at the limit."""


class Shares:
    """The number of requests in flight of one class, for each merchant.

    Memory is proportional to the requests in flight.
    """

    __slots__ = ("_active", "_held", "_peak", "lent")

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._active = self._peak = 1
        self.lent = LENT

    def enter(self, merchant: str) -> None:
        held = self._held
        held[merchant] = held.get(merchant, 0) + 1
        if len(held) > self._peak:  # noqa: PLR1730, on the path of each payment, where a call costs three times as much
            self._peak = len(held)

    def leave(self, merchant: str) -> None:
        held = self._held
        assert merchant in held, "a request left that never entered"
        count = held[merchant] - 1
        if count:
            held[merchant] = count
        else:
            del held[merchant]

    def is_spent(self, merchant: str, limit: int) -> bool:
        """Return whether a merchant has more requests in flight than its fair share of the limit, with some tolerance.

        The fair share is the limit divided by the number of active merchants. This number is the highest number of
        merchants with requests in flight at any one moment of this window or the last one. The current number would be
        wrong: just after a batch was answered, few merchants have requests in flight, and the next merchant would get
        the whole limit. Call this method only if the number of requests in flight is at least the limit multiplied by
        `lent`.
        """
        count = self._held.get(merchant, 0)
        share = max(SHARE_MIN, limit / max(self._active, self._peak))
        return count > share and (count - share) ** 2 > SPREADS * SPREADS * share

    def window(self, *, was_full: bool) -> None:
        """End a window. `was_full`: True if a request was rejected in the window because the class was full."""
        self.lent = 0.0 if was_full else min(LENT, self.lent + LENT_AGAIN)
        self._active, self._peak = self._peak, max(1, len(self._held))

    def merchants(self) -> int:
        """Return the number of merchants with requests in flight."""
        return len(self._held)
