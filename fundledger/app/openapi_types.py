"""What the OpenAPI file says of one operation, and the answers that every operation of a kind can give."""

from typing import Any, Final

import msgspec

from fundledger.app.body import BODY_BYTES_MAX
from fundledger.app.openapi_schemas import REF, Schema
from fundledger.app.problems import PROBLEM_TYPE
from fundledger.app.reply import JSON
from fundledger.app.routing import TIMEOUT_HEADER

# What the examples name.
BANK: Final = "bank:icbc"
MERCHANT: Final = "merchant:10001:available"
VOUCHER: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a11"
OTHER_VOUCHER: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a12"
REVERSAL: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a13"
CAPTURE: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a14"
HOLD: Final = "hold:10001:1"
SERVICE_TAG: Final = "Service"
_WHERE_THE_CALLER_STANDS: Final = {"RateLimit-Policy": False, "RateLimit": False}
TIMEOUT: Final[Schema] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "How long you still wait, in ms. What cannot be answered in that time is answered 503 at once; of a "
    "request that was let in, nothing is withdrawn when it has passed.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
}


REQUEST_ID_PATTERN: Final = "^[A-Za-z0-9_.-]{1,64}$"
REQUEST_ID: Final[Schema] = {
    "name": "Request-Id",
    "in": "header",
    "required": False,
    "description": "An id of yours for this request: it is in the answer and in the log. Without it one is made.",
    "schema": {"type": "string", "pattern": REQUEST_ID_PATTERN},
}


class Answer(msgspec.Struct, frozen=True):
    """`media`: schemas by media type. `headers`: by name, whether always sent. `problems`: problem types."""

    description: str
    media: dict[str, Schema] = {}
    headers: dict[str, bool] = {}
    problems: tuple[str, ...] = ()


class Operation(msgspec.Struct, frozen=True):
    """`answers` by status; those that every operation of its kind can give are added by `openapi`."""

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
        """Whether its callers have a quota, and it may be shed."""
        return not self.public


def shown(schema: str, description: str) -> Answer:
    return Answer(description, {JSON: {"$ref": REF + schema}})


def replayed(schema: str) -> Answer:
    description = "The same request was answered before: this is that answer again, byte by byte."
    return Answer(description, {JSON: {"$ref": REF + schema}}, {"Idempotent-Replay": True})


def refused(*codes: str) -> Answer:
    return Answer("The ledger says no: see the problem's `type`.", problems=codes)


def refused_for_ever(*codes: str) -> Answer:
    description = (
        "The ledger says no: see the problem's `type`. Nothing was posted, and a final refusal is repeated for ever."
    )
    return Answer(description, headers={"Idempotent-Replay": False}, problems=codes)


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
    """What every operation of its kind can answer beside its own."""
    found = {400: Answer("The request is malformed.", problems=("malformed",))}
    found[500] = Answer("A defect of ours; it was logged.", problems=("internal-error",))
    if operation.public:
        return found
    found[401] = Answer("No valid token.", headers={"WWW-Authenticate": True}, problems=("unauthorized",))
    found[503] = Answer(
        "Not at the moment.", headers={"Retry-After": True}, problems=("unavailable", "outcome-unknown")
    )
    if operation.limited:
        found[429] = Answer(
            "The caller's quota is used up. Nothing was done.",
            {PROBLEM_TYPE: {"$ref": REF + "QuotaExceeded"}},
            {"Retry-After": True, "X-Limit-Decision": True},
            ("quota-exceeded",),
        )
        found[503] = Answer(
            "Not at the moment. `X-Limit-Decision` is there when it was shed: then nothing was done.",
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
    """By status, in ascending order; where both name a status, the problem types of both count.

    Every answer of a limited operation tells where its caller stands, but for the one that does not know who that is.
    """
    found = standard_answers(operation)
    for status, own in operation.answers.items():
        shared = found.get(status)
        named = own.problems if shared is None else (*shared.problems, *own.problems)
        found[status] = msgspec.structs.replace(own, problems=named)
    for status, answer in found.items() if operation.limited else ():
        if status != 401:
            headers = {**answer.headers, **_WHERE_THE_CALLER_STANDS}
            found[status] = msgspec.structs.replace(answer, headers=headers)
    return dict(sorted(found.items()))
