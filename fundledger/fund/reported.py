"""Log lines that a repetition does not repeat."""

from typing import Final

REPORTED_MAX: Final = 10_000


class Reported:
    """Names of things of which a process has logged that they need a person, so that each is logged once."""

    def __init__(self) -> None:
        self._names: set[object] = set()

    def is_new(self, name: object) -> bool:
        """Whether this name was not reported before; it is from now on."""
        if name in self._names:
            return False
        if len(self._names) >= REPORTED_MAX:
            self._names.clear()
        self._names.add(name)
        return True
