"""What a service tells of that has happened."""

from collections.abc import Mapping
from typing import Any, Final


class Event:
    """Told at least once. `members` has all of it, also what this version does not know."""

    __slots__ = ("members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members: Final = dict(members)

    @property
    def seq(self) -> int:
        """Where it stands: to go on after it, ask for the events after this."""
        return int(self.members["seq"])

    @property
    def id(self) -> str:
        """The same each time that it is told: who remembers it does nothing twice."""
        return str(self.members.get("id", self.seq))

    @property
    def type(self) -> str:
        return str(self.members.get("type", ""))

    def __getitem__(self, name: str) -> Any:
        return self.members[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and self.members == other.members

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Event({self.members!r})"
