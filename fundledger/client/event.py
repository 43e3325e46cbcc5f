"""Python client: type of the events in the event feeds of both services."""

from collections.abc import Mapping
from typing import Any, Final


class Event:
    """An event, delivered at least once. `members` has all JSON members, also members that this version
    does not know.
    """

    __slots__ = ("members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members: Final = dict(members)

    @property
    def seq(self) -> int:
        """Position of the event in the feed. To continue with the next event, pass this position as `after`."""
        return int(self.members["seq"])

    @property
    def id(self) -> str:
        """Id of the event, the same in each delivery. A consumer that stores the ids can detect duplicates."""
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
