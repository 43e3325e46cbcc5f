"""Problem details (RFC 9457) of HTTP answers: malformed requests, faults, rows that fail verification, bugs."""

import logging
from collections.abc import Mapping
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.app.http.wire.reply import NothingDone, Reply, encode
from fundledger.faults import BooksTampered, Fault, GuardHit, OutcomeUnknown, RecordTampered, Unavailable
from fundledger.json_values import Id, about
from fundledger.security.keys import KeyFault

URN: Final = "urn:fundledger:problem:"
IANA: Final = "https://iana.org/assignments/http-problem-types#"
_log = logging.getLogger(__name__)
PROBLEM_TYPE: Final = "application/problem+json"

UNVERIFIED: Final = "Integrity check failed"
POSTING: Final[dict[str, tuple[int, str]]] = {
    "account-closed": (422, "The account is closed"),
    "account-frozen": (422, "The account is frozen"),
    "voucher-already-reversed": (422, "The voucher was reversed before"),
    "balance-out-of-range": (422, "The balance would leave the exact range"),
    "insufficient-funds": (422, "The account has not enough available"),
}
"""Status and title of the final refusals that both services return. The account service decides each of these refusals.
The fund service returns the refusal together with the refused order.
"""
POSTING_ADVICE: Final[dict[str, str]] = {
    "account-closed": "Use another account. A closed account stays closed.",
    "account-frozen": "Wait until it is unfrozen, then send a new id. `books do not verify`: contact the operator.",
    "voucher-already-reversed": "No action: `reversed_by` of the original names its reversal.",
    "balance-out-of-range": "Send a smaller amount with a new id: balances are exact up to 2^62.",
    "insufficient-funds": "Send a new id once funds are available: this id stays refused.",
}


OfRequest = Annotated[str, about("the `Request-Id` of this answer")] | UnsetType
Documentation = Annotated[str, about("path on this host where `/docs` explains the type")] | UnsetType


class Problem(msgspec.Struct):
    """RFC 9457. Later versions may add members."""

    type: Annotated[str, about("a type listed below", pattern=f"^{URN}[a-z-]+$")]
    title: Annotated[str, about("the same for every problem of a type")]
    status: Annotated[int, about("the HTTP status of this type")]
    detail: Annotated[str, about("the reason in this case; never another owner's balance")]
    account: Annotated[Id, about("the account concerned")] | UnsetType = UNSET
    field: Annotated[str, about("the member or parameter concerned")] | UnsetType = UNSET
    request_id: OfRequest = UNSET
    documentation: Documentation = UNSET


RetryAfterMs = Annotated[int, about("`Retry-After` in milliseconds", minimum=1000)]


class QuotaExceeded(msgspec.Struct):
    """RFC 9457, with the type that IANA registers for a quota."""

    type: Annotated[str, about(enum=[IANA + "quota-exceeded"])]
    title: str
    status: Literal[429]
    detail: str
    violated: Annotated[list[str], about("names, see `/debug/limits`")] = msgspec.field(name="violated-policies")
    retry_after_ms: RetryAfterMs
    request_id: OfRequest = UNSET
    documentation: Documentation = UNSET


class ReducedCapacity(msgspec.Struct):
    """RFC 9457, with the type that IANA registers for reduced capacity."""

    type: Annotated[str, about(enum=[IANA + "temporary-reduced-capacity"])]
    title: str
    status: Literal[503]
    detail: str
    retry_after_ms: RetryAfterMs
    request_id: OfRequest = UNSET
    documentation: Documentation = UNSET


class BadRequest(Exception):
    """Rejection of a request, answered with a problem before the handler of the request decides anything."""

    def __init__(
        self,
        status: int,
        type_: str,
        title: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        account: str | UnsetType = UNSET,
        field: str | UnsetType = UNSET,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reply = problem(status, type_, title, detail, headers=headers, account=account, field=field)


ECHOED_MAX: Final = 64
"""Maximum length, in characters, of a name or value that a caller sent and an answer repeats."""
DETAIL_MAX: Final = 300
FIELD_MAX: Final = 200


def cut(text: str, length: int = ECHOED_MAX) -> str:
    """Return an external text in at most `length` characters. If the text is longer, an ellipsis replaces its end."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def malformed(detail: str, field: str | None = None) -> BadRequest:
    """Return the rejection (400) of a malformed request. Long texts are cut, so that the answer is bounded."""
    where = UNSET if field is None else cut(field, FIELD_MAX)
    return BadRequest(400, "malformed", "The request is malformed", cut(detail, DETAIL_MAX), field=where)


def not_found(what: str) -> BadRequest:
    return BadRequest(404, "not-found", "Resource not found", f"there is no {what}")


def problem(
    status: int,
    type_: str,
    title: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    account: str | UnsetType = UNSET,
    field: str | UnsetType = UNSET,
) -> Reply:
    body = encode(Problem(URN + type_, title, status, detail, account, field))
    return Reply(status, body, PROBLEM_TYPE, dict(headers or {}))


def fault_members(fault: Fault) -> Problem:
    """Return the problem with which a fault is reported."""
    if isinstance(fault, GuardHit):
        return Problem(URN + "internal-error", "Internal error", 500, str(fault))
    if isinstance(fault, OutcomeUnknown):
        detail = "the request may or may not have been carried out: send it again with the same id to get its outcome"
        return Problem(URN + "outcome-unknown", "Outcome unknown", 503, detail)
    detail = f"{fault}; nothing was written, the same request may be sent again"
    return Problem(URN + "unavailable", "Service temporarily unavailable", 503, detail)


def faulted(fault: Fault) -> Reply:
    found = fault_members(fault)
    headers = {"Retry-After": "1"} if found.status == 503 else {}
    reply = NothingDone if isinstance(fault, Unavailable) else Reply
    return reply(found.status, encode(found), PROBLEM_TYPE, headers)


def integrity(found: BooksTampered) -> Reply:
    """Return the reply (500) for rows that fail verification. The detail names the account but contains no amounts."""
    detail = f"{found}; its figures are withheld until an operator has examined it"
    return unverified(detail, account=found.account_id)


def unverified(detail: str, account: str | UnsetType = UNSET) -> Reply:
    return problem(500, "integrity", UNVERIFIED, detail, account=account)


def failed(error: Exception, request_id: str) -> Reply:
    """Return the answer for an exception: a rejected request, a fault, a row that does not match its MAC, or a bug.

    If a row does not match its MAC, the answer names the row. Such rows and bugs are logged.
    """
    if isinstance(error, BadRequest):
        return error.reply
    if isinstance(error, Fault):
        return faulted(error)
    if isinstance(error, BooksTampered):
        # The read that raised the error has logged and stored the finding.
        return integrity(error)
    if isinstance(error, KeyFault | RecordTampered):
        extra = {"event": "integrity_finding", "once": str(error)}
        _log.critical("a request read a row that fails verification: %s", error, extra=extra)
        if isinstance(error, KeyFault):
            return unverified(str(error))
        status, title = POSTING["account-frozen"]
        return problem(status, "account-frozen", title, str(error))
    extra = {"event": "request_failed", "request_id": request_id}
    _log.critical("request failed with an unexpected exception", exc_info=error, extra=extra)
    return problem(500, "internal-error", "Internal error", "an unexpected error occurred and was logged")
