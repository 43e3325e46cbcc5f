"""How much of a class each merchant holds, and who holds more than its share when room gets short."""

from typing import Final

SHARE_MIN: Final = 2
"""A share is at least so many: with fewer, it could not have one in the batch and one waiting for the next."""
SPREADS: Final = 2.5
"""Up to so many standard deviations above its share is chance: arrivals at random spread by the root of their mean."""
LENT: Final = 0.6
"""Up to this part of the limit anybody is let in, and the others find the rest free."""
LENT_AGAIN: Final = 0.001
"""When somebody found the class full, nothing is lent from then on, and again by so much more with each window."""


class Shares:
    """Requests in flight by merchant, of one class. As large as what is in flight, and no larger."""

    __slots__ = ("_active", "_held", "_peak", "lent")

    def __init__(self) -> None:
        self._held: dict[str, int] = {}
        self._active = self._peak = 1
        self.lent = LENT

    def enter(self, merchant: str) -> None:
        held = self._held
        held[merchant] = held.get(merchant, 0) + 1
        if len(held) > self._peak:  # noqa: PLR1730, each payment comes by here, and a call costs three times as much
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
        """Whether it holds more than its fair share: the limit divided by the merchants that had anything in flight.

        Asked when more than `lent` of the limit is taken. Merchants are counted over a window, not now: when a batch
        has been answered, hardly anybody has anything in flight, and the first one back would have it all.
        """
        count = self._held.get(merchant, 0)
        share = max(SHARE_MIN, limit / max(self._active, self._peak))
        return count > share and (count - share) ** 2 > SPREADS * SPREADS * share

    def window(self, *, was_full: bool) -> None:
        """End a window, in which somebody was turned away because the class was full or nobody was."""
        self.lent = 0.0 if was_full else min(LENT, self.lent + LENT_AGAIN)
        self._active, self._peak = self._peak, max(1, len(self._held))

    def merchants(self) -> int:
        """Merchants with anything in flight."""
        return len(self._held)
