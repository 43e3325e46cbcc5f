"""JSON values that all packages of fundledger share: times are in UTC, and large integers are also sent as text.

Each type contains its OpenAPI schema. An answer is a struct of such types, so the schema of the answer follows from its
type. An integer beyond 2^53 is also sent as text, because many clients read a JSON number as a double.
"""

from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec

EXACT_MAX: Final = (1 << 53) - 1
REF: Final = "#/components/schemas/"
ID_PATTERN: Final = r"^[A-Za-z0-9:_.-]{1,128}\Z"


def about(description: str = "", **members: Any) -> msgspec.Meta:
    """Return schema metadata for a member of a struct. Decoding does not check a value against the metadata."""
    return msgspec.Meta(description=description or None, extra_json_schema=members)


def encoded(name: str, description: str = "") -> msgspec.Meta:
    """Return schema metadata for a member whose value is already JSON: a reference to the answer type `name`."""
    return about(description, **{"$ref": REF + name})


Id = Annotated[str, about("1 to 128 of `[A-Za-z0-9:_.-]`", pattern=ID_PATTERN)]
_UUID: Final = about(format="uuid", pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")
Uuid = Annotated[UUID, _UUID]
UuidText = Annotated[str, _UUID]
"""A UUID that is kept as text when a body is decoded, and parsed later."""
Instant = Annotated[str, about(format="date-time")]
CurrencyCode = Annotated[str, about(pattern="^[A-Z]{3}$")]
Amount = Annotated[int, about("in minor units", minimum=1)]
Text = str | msgspec.UnsetType
"""An amount as text, or absent. `Exact` sets members of this type."""


class Exact(msgspec.Struct):
    """An answer with amounts. An amount that a double cannot hold is also present as text, under its name + `_text`.

    A JSON number is exact at any size, but many clients read it as a double, and round it without an error.
    """

    def __post_init__(self) -> None:
        for name, text in _texts(type(self)):
            amount = getattr(self, name)
            if abs(amount) > EXACT_MAX:
                setattr(self, text, str(amount))


@cache
def _texts(struct: type[Exact]) -> list[tuple[str, str]]:
    return [(name.removesuffix("_text"), name) for name in struct.__struct_fields__ if name.endswith("_text")]


Posted = Annotated[int, about("sum of posted entries, in the account's normal direction, in minor units")]
Held = Annotated[int, about("sum of open holds", minimum=0)]
Available = Annotated[int, about("posted - held")]


class Balance(Exact):
    """The balance of an account."""

    posted: Posted
    held: Held
    pending: Annotated[int, about("credits that are accepted but not posted yet", minimum=0)]
    available: Available
    posted_text: Text = msgspec.UNSET
    held_text: Text = msgspec.UNSET
    pending_text: Text = msgspec.UNSET
    available_text: Text = msgspec.UNSET


def time_text(moment: datetime) -> str:
    """Return an RFC 3339 time in UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
