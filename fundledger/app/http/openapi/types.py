"""OpenAPI description of the parameters and answers of a route. A schema is given by a Python type."""

from typing import Annotated, Any, Final, Literal

import msgspec

from fundledger.app.http.wire.reply import JSON

SERVICE_TAG: Final = "Service"


class Parameter(msgspec.Struct, frozen=True):
    """One parameter of a request."""

    name: str
    place: Literal["path", "query", "header"]
    type: Any
    description: str
    required: bool = False
    default: Any = msgspec.UNSET
    example: Any = msgspec.UNSET


class Answer(msgspec.Struct, frozen=True):
    """One answer of a route.

    `media`: the type of the body, by media type; if empty, the body is a problem. `headers`: by header name, whether
    the header is always sent. `problems`: names of problem types.
    """

    description: str
    media: dict[str, Any] = {}
    headers: dict[str, bool] = {}
    problems: tuple[str, ...] = ()


def shown(type_: Any, description: str) -> Answer:
    return Answer(description, {JSON: type_})


def no_such(what: str) -> Answer:
    return Answer(f"There is no such {what}.", problems=("not-found",))


def path(type_: Any, description: str, example: str, name: str = "id") -> Parameter:
    return Parameter(name, "path", type_, description, required=True, example=example)


def query(name: str, type_: Any, description: str, default: Any = msgspec.UNSET) -> Parameter:
    return Parameter(name, "query", type_, description, default=default)


def count(default: int, most: int, items: str) -> Parameter:
    """Return the query parameter for the size of a page."""
    return query("limit", Annotated[int, msgspec.Meta(ge=1, le=most)], f"maximum number of {items}", default)


CURRENCY_UNKNOWN: Final = Answer("The request is malformed.", problems=("currency-unknown",))
