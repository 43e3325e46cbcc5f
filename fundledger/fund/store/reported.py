"""Deduplication of fund log lines: log each faulty order, row or account once per process."""

from typing import Final

REPORTED_MAX: Final = 10_000


class Reported:
    """The names that this process has already logged, at most REPORTED_MAX; a full set is cleared."""

    def __init__(self) -> None:
        self._names: set[object] = set()

    def is_new(self, name: object) -> bool:
        """Return whether this name was not reported before, and record it as reported."""
        if name in self._names:
            return False
        if len(self._names) >= REPORTED_MAX:
            self._names.clear()
        self._names.add(name)
        return True
