"""How much of a class each merchant holds, and who holds more than its share when room gets short."""

from typing import Final

SHARE_MIN: Final = 2
"""A merchant may always hold so many: with fewer, it could not have one in the batch and one waiting for the next."""
LENT: Final = 0.6
"""Who holds more than its share is let in up to this part of the limit, and the others find the rest free."""


class Shares:
    """Requests in flight by merchant, of one class. As large as what is in flight, and no larger."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    def enter(self, merchant: str) -> None:
        held = self._held
        held[merchant] = held.get(merchant, 0) + 1

    def leave(self, merchant: str) -> None:
        held = self._held
        assert merchant in held, "a request left that never entered"
        count = held[merchant] - 1
        if count:
            held[merchant] = count
        else:
            del held[merchant]

    def is_spent(self, merchant: str, in_flight: int, limit: int) -> bool:
        """Whether there is no more room for this merchant, with `in_flight` of `limit` taken by all.

        A fair share is the limit divided by the merchants that have anything in flight. What the others leave unused
        is lent, up to LENT of the limit: a merchant alone may have all of it, and one among many that are idle most of
        it, yet never so much that who comes later finds the class full.
        """
        if in_flight < LENT * limit:
            return False
        count = self._held.get(merchant, 0)
        active = len(self._held) if count else len(self._held) + 1
        return count >= SHARE_MIN and count * active >= limit

    def merchants(self) -> int:
        """Merchants with anything in flight."""
        return len(self._held)
