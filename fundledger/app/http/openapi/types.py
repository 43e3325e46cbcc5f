"""OpenAPI types of operations and answers, and the answers that both HTTP services can give."""

from typing import Any, Final

import msgspec

from fundledger.app.http.bodies.decoding import BODY_BYTES_MAX
from fundledger.app.http.openapi.schemas import REF, Schema
from fundledger.app.http.problems import PROBLEM_TYPE
from fundledger.app.http.routing import TIMEOUT_HEADER
from fundledger.app.http.wire.reply import JSON

SERVICE_TAG: Final = "Service"
_RATE_LIMIT_HEADERS: Final = {"RateLimit-Policy": False, "RateLimit": False}
TIMEOUT: Final[Schema] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "How long the caller still waits, in ms. A request that cannot be answered in that time is answered "
    "503 immediately. An admitted request is carried out even when the time has passed.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
}


REQUEST_ID_PATTERN: Final = "^[A-Za-z0-9_.-]{1,64}$"
REQUEST_ID: Final[Schema] = {
    "name": "Request-Id",
    "in": "header",
    "required": False,
    "description": "An id for this request. The answer and the log contain it. Generated if absent.",
    "schema": {"type": "string", "pattern": REQUEST_ID_PATTERN},
}


class Answer(msgspec.Struct, frozen=True):
    """One answer of an operation. `media`: schemas by media type. `headers`: by name, whether always sent. `problems`:
    problem types.
    """

    description: str
    media: dict[str, Schema] = {}
    headers: dict[str, bool] = {}
    problems: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True):
    """One operation. `answers` are by status; `standard_answers` adds those that all operations of its kind give."""

    method: str
    path: str
    id: str
    tag: str
    summary: str
    description: str
    answers: dict[int, Answer]
    parameters: tuple[Schema, ...] = ()
    body: str | None = None
    body_required: bool = True
    example: dict[str, Any] | None = None
    body_bytes_max: int = BODY_BYTES_MAX
    public: bool = False

    @property
    def limited(self) -> bool:
        """Return whether callers have a quota for the operation, and whether it may be shed."""
        return not self.public


FIGURES_WITHHELD: Final = Answer(
    "The rows of the account fail verification, so its figures are withheld; or an internal error.",
    problems=("integrity",),
)


def shown(schema: str, description: str) -> Answer:
    return Answer(description, {JSON: {"$ref": REF + schema}})


def no_such(what: str) -> Answer:
    return Answer(f"There is no such {what}.", problems=("not-found",))


def path_parameter(schema: Schema, description: str, example: str) -> Schema:
    return {
        "name": "id",
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
        "example": example,
    }


def query_parameter(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def standard_answers(operation: Operation) -> dict[int, Answer]:
    """Return the answers that every operation of its kind can give beside its own."""
    found = {400: Answer("The request is malformed.", problems=("malformed",))}
    found[500] = Answer("An internal error, which was logged.", problems=("internal-error",))
    if operation.public:
        return found
    found[401] = Answer("No valid token.", headers={"WWW-Authenticate": True}, problems=("unauthorized",))
    found[503] = Answer(
        "Service temporarily unavailable.", headers={"Retry-After": True}, problems=("unavailable", "outcome-unknown")
    )
    if operation.limited:
        found[429] = Answer(
            "The caller's quota is used up. Nothing was done.",
            {PROBLEM_TYPE: {"$ref": REF + "QuotaExceeded"}},
            {"Retry-After": True, "X-Limit-Decision": True},
            ("quota-exceeded",),
        )
        found[503] = Answer(
            "Service temporarily unavailable. With `X-Limit-Decision`, the request was shed and nothing was done.",
            {PROBLEM_TYPE: {"oneOf": [{"$ref": REF + "ReducedCapacity"}, {"$ref": REF + "Problem"}]}},
            {"Retry-After": True, "X-Limit-Decision": False},
            ("temporary-reduced-capacity", "unavailable", "outcome-unknown"),
        )
    if operation.method == "POST":
        found[408] = Answer("The body did not arrive in time.", problems=("body-too-late",))
        limit = f"{operation.body_bytes_max:,} bytes"
        found[413] = Answer(f"The body has more than {limit}.", problems=("body-too-large",))
        found[415] = Answer("The body is compressed, or not JSON.", problems=("unsupported-media-type",))
    return found


def all_answers(operation: Operation) -> dict[int, Answer]:
    """Return all answers by status, in ascending order. Problem types of a status that both sources have are merged.

    Every answer of a limited operation has the caller's rate-limit headers, except 401, whose caller is unknown.
    """
    found = standard_answers(operation)
    for status, own in operation.answers.items():
        shared = found.get(status)
        named = own.problems if shared is None else (*shared.problems, *own.problems)
        found[status] = msgspec.structs.replace(own, problems=named)
    for status, answer in found.items() if operation.limited else ():
        if status != 401:
            headers = {**answer.headers, **_RATE_LIMIT_HEADERS}
            found[status] = msgspec.structs.replace(answer, headers=headers)
    return dict(sorted(found.items()))
