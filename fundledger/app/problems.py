"""What a client can be told: every refusal and fault as a problem (RFC 9457), in one table."""

import logging
from typing import Any, Final

import msgspec

from fundledger.app.reply import Reply, Undone
from fundledger.ledger.directory import AccountTampered
from fundledger.ledger.fault import Fault, GuardHit, OutcomeUnknown, Unavailable
from fundledger.ledger.integrity import Tampered
from fundledger.ledger.records import HoldTampered, VoucherTampered
from fundledger.ledger.refusal import Code, Refusal
from fundledger.security.keys import KeyFault

URN = "urn:fundledger:problem:"
_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
PROBLEM_TYPE: Final = "application/problem+json"

REFUSALS: Final[dict[Code, tuple[int, str]]] = {
    Code.VOUCHER_ID_REUSED: (422, "The voucher id was used before with other content"),
    Code.HOLD_ID_REUSED: (422, "The hold id was used before with other content"),
    Code.VOUCHER_UNBALANCED: (400, "Debits and credits of the voucher differ"),
    Code.HOLD_EXPIRY_PAST: (400, "The expiry of the hold is not in the future"),
    Code.ACCOUNT_NOT_FOUND: (422, "The account does not exist"),
    Code.CURRENCY_MISMATCH: (422, "The accounts are of different currencies"),
    Code.HOLD_NOT_FOUND: (422, "The hold does not exist"),
    Code.HOLD_ON_PLATFORM_ACCOUNT: (422, "Platform accounts take no holds"),
    Code.HOLD_CAPTURED: (422, "The hold was captured"),
    Code.HOLD_RELEASED: (422, "The hold was released"),
    Code.HOLD_EXPIRED: (422, "The hold has expired"),
    Code.HOLD_REFUSED: (422, "The hold was refused"),
    Code.HOLD_EXCEEDED: (422, "The capture does not fit the hold"),
    Code.VOUCHER_ALREADY_REVERSED: (422, "The voucher was reversed before"),
    Code.VOUCHER_NOT_POSTED: (422, "The voucher was refused: there is nothing to reverse"),
    Code.ACCOUNT_CLOSED: (422, "The account is closed"),
    Code.ACCOUNT_FROZEN: (422, "The account is frozen"),
    Code.ACCOUNT_NOT_EMPTY: (422, "The account is not empty"),
    Code.BALANCE_OUT_OF_RANGE: (422, "The balance would leave the exact range"),
    Code.INSUFFICIENT_FUNDS: (422, "The account has not enough available"),
    Code.BATCH_ABORTED: (422, "Another voucher of the atomic batch was refused"),
}


UNVERIFIED: Final = "The books of the account do not verify"


class BadRequest(Exception):
    """A request that is answered with a problem before it reaches the ledger."""

    def __init__(self, status: int, type_: str, title: str, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.reply = problem(status, type_, title, detail, **members)


ECHOED_MAX: Final = 64
"""Characters of a name or a value of the caller that an answer repeats."""
DETAIL_MAX: Final = 300
FIELD_MAX: Final = 200


def cut(text: str, length: int = ECHOED_MAX) -> str:
    """Return at most `length` characters of a text that is not ours, with an ellipsis for the rest."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def malformed(detail: str, field: str | None = None) -> BadRequest:
    """Return a 400. What is too long of `detail` and `field` is cut: no answer grows with its request."""
    members = {} if field is None else {"field": cut(field, FIELD_MAX)}
    detail = cut(detail, DETAIL_MAX)
    return BadRequest(400, "malformed", "The request is malformed", detail, **members)


def not_found(what: str) -> BadRequest:
    return BadRequest(404, "not-found", "There is no such resource", f"there is no {what}")


def problem(status: int, type_: str, title: str, detail: str, **members: Any) -> Reply:
    headers = members.pop("headers", {})
    body = {"type": URN + type_, "title": title, "status": status, "detail": detail, **members}
    return Reply(status, _encode(body), PROBLEM_TYPE, headers)


def refusal_members(refusal: Refusal) -> dict[str, Any]:
    """A refusal as the members of a problem; the same for the same refusal, so that a replay is byte-identical."""
    status, title = REFUSALS[refusal.code]
    members = {"type": URN + refusal.code, "title": title, "status": status, "detail": refusal.detail}
    if refusal.account is not None:
        members["account"] = refusal.account
    if refusal.field is not None:
        members["field"] = refusal.field
    return members


def refused(refusal: Refusal, replay: bool = False) -> Reply:
    headers = {"Idempotent-Replay": "true"} if replay else {}
    return Reply(REFUSALS[refusal.code][0], _encode(refusal_members(refusal)), PROBLEM_TYPE, headers)


def fault_members(fault: Fault) -> dict[str, Any]:
    if isinstance(fault, GuardHit):
        return {
            "type": URN + "internal-error",
            "title": "Something is wrong on our side",
            "status": 500,
            "detail": str(fault),
        }
    if isinstance(fault, OutcomeUnknown):
        detail = "it may or may not have happened: send the same request with the same id again and it will be told"
        return {
            "type": URN + "outcome-unknown",
            "title": "The outcome is not known yet",
            "status": 503,
            "detail": detail,
        }
    detail = f"{fault}; nothing was written, the same request may be sent again"
    return {"type": URN + "unavailable", "title": "Not at the moment", "status": 503, "detail": detail}


def faulted(fault: Fault) -> Reply:
    members = fault_members(fault)
    headers = {"Retry-After": "1"} if members["status"] == 503 else {}
    reply = Undone if isinstance(fault, Unavailable) else Reply
    return reply(members["status"], _encode(members), PROBLEM_TYPE, headers)


def integrity(found: Tampered) -> Reply:
    """Figures that do not verify are not shown. The detail names the account, and no figure."""
    detail = f"{found}; no figure of it is shown until an operator has looked at it"
    return unverified(detail, account=found.account_id)


def unverified(detail: str, **members: str) -> Reply:
    return problem(500, "integrity", UNVERIFIED, detail, **members)


def crashed(error: Exception) -> Reply:
    """The answer to a bug, which is logged; a record that does not match its MAC is one that the client is told of."""
    if isinstance(error, Tampered):
        # Its finding has been logged and recorded where it was found.
        return integrity(error)
    if isinstance(error, KeyFault | AccountTampered | HoldTampered | VoucherTampered):
        extra = {"event": "integrity_finding", "once": str(error)}
        _log.critical("a request met a row that does not verify: %s", error, extra=extra)
        return (
            unverified(str(error)) if isinstance(error, KeyFault) else refused(Refusal(Code.ACCOUNT_FROZEN, str(error)))
        )
    _log.critical("a request failed", exc_info=error)
    return problem(500, "internal-error", "Something is wrong on our side", "the request failed; it was logged")
