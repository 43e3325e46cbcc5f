"""Store of the fund service: names of faulty orders, rows and accounts, so that a process logs each of them once."""

from typing import Final

REPORTED_MAX: Final = 10_000


class Reported:
    """The names that this process has already logged. The set has at most REPORTED_MAX names; a full set is cleared."""

    def __init__(self) -> None:
        self._names: set[object] = set()

    def is_new(self, name: object) -> bool:
        """Return whether a name is new, and record the name. The caller logs only new names."""
        if name in self._names:
            return False
        if len(self._names) >= REPORTED_MAX:
            self._names.clear()
        self._names.add(name)
        return True
