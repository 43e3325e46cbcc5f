"""Shed level of the load shedder: the number of lowest request ranks that are rejected, with hysteresis."""

from typing import Final

RAISE_S: Final = 1.0
LOWER_S: Final = 5.0
RELAPSE_S: Final = 60.0
"""If the level is raised within this time (s) after it was lowered, it was lowered too early. The next time, the level
is lowered only after RELAPSE_S of calm. A constant load therefore causes at most two changes a minute."""


class ShedLevel:
    """Shed level: rises by one after RAISE_S of overload, falls by one after LOWER_S of calm, and otherwise stays.

    Only overload that lower limits could not end is counted. Times are monotonic seconds.
    """

    __slots__ = (
        "_calm_since",
        "_lowered_at",
        "_raised_at",
        "_relapsed",
        "_stuck_since",
        "changes",
        "level",
        "level_max",
    )

    def __init__(self, level_max: int) -> None:
        self.level = 0
        self.level_max = level_max
        self.changes = 0
        self._stuck_since: float | None = None
        self._calm_since: float | None = None
        self._raised_at = float("-inf")
        self._lowered_at = float("-inf")
        self._relapsed = False

    def tick(self, now: float, *, stuck: bool, calm: bool) -> int:
        """Update the level. Return the change: 1, 0 or -1.

        `stuck`: True if overload continues although the limits of the lowest active rank are at their minimum.
        """
        self._stuck_since = (now if self._stuck_since is None else self._stuck_since) if stuck else None
        self._calm_since = (now if self._calm_since is None else self._calm_since) if calm else None
        changed_at = max(self._raised_at, self._lowered_at)
        if self._since(self._stuck_since, changed_at, now) >= RAISE_S and self.level < self.level_max:
            self._relapsed = now - self._lowered_at <= RELAPSE_S
            self._raised_at = now
            return self._move(1)
        if self._since(self._calm_since, changed_at, now) >= self._patience_s(now) and self.level:
            self._lowered_at = now
            return self._move(-1)
        return 0

    @staticmethod
    def _since(began: float | None, changed_at: float, now: float) -> float:
        return -1.0 if began is None else now - max(began, changed_at) + 1e-9

    def _patience_s(self, now: float) -> float:
        if self._relapsed and self._lowered_at > self._raised_at and now - self._lowered_at > RELAPSE_S:
            self._relapsed = False
        return RELAPSE_S if self._relapsed else LOWER_S

    def _move(self, by: int) -> int:
        self.level += by
        self.changes += 1
        return by
