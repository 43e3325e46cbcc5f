"""Python client: an event of a service's event feed."""

from collections.abc import Mapping
from typing import Any, Final


class Event:
    """An event, delivered at least once. `members` has all JSON members, including those unknown to this version."""

    __slots__ = ("members",)

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members: Final = dict(members)

    @property
    def seq(self) -> int:
        """Position in the feed. Pass it as `after` to continue with the next event."""
        return int(self.members["seq"])

    @property
    def id(self) -> str:
        """Id of the event, the same in each delivery. Store it to detect duplicates."""
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
