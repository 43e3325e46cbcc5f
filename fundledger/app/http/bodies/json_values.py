"""JSON values of HTTP answers that every client reads alike: times in UTC, integers beyond 2^53 also as text."""

from datetime import UTC, datetime
from typing import Any, Final

EXACT_MAX: Final = (1 << 53) - 1


def time_text(moment: datetime) -> str:
    """Return an RFC 3339 time in UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def exactly(members: dict[str, Any]) -> dict[str, Any]:
    """Return these members. A number that a double cannot hold is also present as text, under its name + `_text`.

    A JSON number is exact at any size, but many clients read it as a double, and round it without an error.
    """
    texts = {
        f"{name}_text": str(value) for name, value in members.items() if type(value) is int and abs(value) > EXACT_MAX
    }
    return {**members, **texts}
