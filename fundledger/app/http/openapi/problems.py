"""OpenAPI problem types of both HTTP services that are not refusals, with the client's remedy for each."""

from typing import Final

import msgspec

from fundledger.app.http.problems import IANA, UNVERIFIED, URN


class ProblemType(msgspec.Struct, frozen=True):
    """The problem type `prefix` + `name`. `final`: whether the problem is final for the id; None if there is no id."""

    name: str
    status: int
    title: str
    advice: str
    final: bool | None = None
    prefix: str = URN

    @property
    def type(self) -> str:
        return self.prefix + self.name


OTHERS: Final = (
    ProblemType(
        "malformed",
        400,
        "The request is malformed",
        "Correct what `detail` describes, at the place that `field` names.",
    ),
    ProblemType(
        "currency-unknown",
        400,
        "Unknown currency",
        "Send an ISO 4217 code of a currency with a minor unit, such as CNY.",
    ),
    ProblemType(
        "unauthorized", 401, "Authentication required", "Send `Authorization: Bearer TOKEN` with a valid token."
    ),
    ProblemType(
        "role-missing",
        403,
        "The person lacks a role",
        "Send the request with the token of a person that has the role, or of a module.",
    ),
    ProblemType("not-found", 404, "Resource not found", "Check the path and the id in it."),
    ProblemType("method-not-allowed", 405, "Method not allowed", "Use a method that the header `Allow` names."),
    ProblemType(
        "body-too-late",
        408,
        "Request body timeout",
        "Nothing was done. Send the same request again on a new connection.",
    ),
    ProblemType("body-too-large", 413, "Request body too large", "Send a smaller body, or split a long batch."),
    ProblemType(
        "unsupported-media-type",
        415,
        "Unsupported media type",
        "Send `application/json`, uncompressed.",
    ),
    ProblemType(
        "quota-exceeded",
        429,
        "Too many requests",
        "Nothing was done. Send the same request after `Retry-After` seconds. `violated-policies` names the limit.",
        prefix=IANA,
    ),
    ProblemType(
        "internal-error",
        500,
        "Internal error",
        "Contact the operator. Send the same id again to get its outcome.",
    ),
    ProblemType(
        "integrity",
        500,
        UNVERIFIED,
        "Contact the operator. Figures of `account` are withheld until it is examined. Others are not affected.",
    ),
    ProblemType(
        "temporary-reduced-capacity",
        503,
        "Service temporarily unavailable",
        "Nothing was done: the service is overloaded. Wait `Retry-After` seconds, then send the same request again.",
        prefix=IANA,
    ),
    ProblemType(
        "unavailable",
        503,
        "Service temporarily unavailable",
        "Nothing was written. Wait `Retry-After` seconds, then send the same request again.",
    ),
    ProblemType(
        "outcome-unknown",
        503,
        "Outcome unknown",
        "Send the same request with the same id to get its outcome.",
    ),
    ProblemType("draining", 503, "Shutting down", "Only from `/readyz`: send requests to another worker."),
    ProblemType(
        "no-database",
        503,
        "Not ready",
        "Only from `/readyz`: the database does not answer this worker, or takes no writes.",
    ),
)
"""Problem types in ascending order of status. Each problem ends a request before its decision, or reports a failure."""
