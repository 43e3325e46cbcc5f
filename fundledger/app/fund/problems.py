"""What a client of the fund service can be told: every refusal as a problem, in one table; and what to do about it."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from fundledger.app.problems import PROBLEM_TYPE, URN, faulted, unverified
from fundledger.app.render import encode
from fundledger.app.reply import Reply
from fundledger.fund.answer import Away
from fundledger.fund.refusal import Code, Refusal
from fundledger.ledger.fault import OutcomeUnknown, Unavailable

REFUSALS: Final[dict[Code, tuple[int, str]]] = {
    Code.ORDER_NO_REUSED: (422, "The order number was used before with other content"),
    Code.STATEMENT_NO_REUSED: (422, "The statement number was used before with other lines"),
    Code.MERCHANT_EXISTS: (409, "The merchant exists and differs"),
    Code.FEE_RULE_TOO_SOON: (422, "The fee would take effect too soon"),
    Code.MERCHANT_NOT_FOUND: (422, "The merchant does not exist"),
    Code.CURRENCY_MISMATCH: (422, "The currency is not the merchant's"),
    Code.ORDER_NOT_FOUND: (422, "The order does not exist"),
    Code.PAYMENT_NOT_FOUND: (422, "The merchant has no such payment"),
    Code.PAYMENT_NOT_POSTED: (422, "The payment is not posted"),
    Code.PAYMENT_BEING_SETTLED: (422, "A settlement of the payment is on its way"),
    Code.REFUND_EXCEEDS_PAYMENT: (422, "The refunds would be more than the payment"),
    Code.CHARGEBACK_EXCEEDS_PAYMENT: (422, "More would go back than was paid"),
    Code.NOTHING_TO_SETTLE: (422, "There is nothing to settle"),
    Code.SETTLEMENT_EXCEEDS_PENDING: (422, "The settlement is more than what is pending"),
    Code.WITHDRAWAL_LIMIT_EXCEEDED: (422, "The limit of the day would be exceeded"),
    Code.WITHDRAWAL_NOT_POSTED: (422, "The withdrawal is not posted"),
    Code.WITHDRAWAL_PAID: (422, "The withdrawal was paid"),
    Code.WITHDRAWAL_BOUNCED: (422, "The withdrawal bounced"),
    Code.APPROVAL_NEEDS_ANOTHER: (422, "Somebody else has to approve"),
    Code.ORDER_NOT_REVERSIBLE: (422, "The order cannot be reversed"),
    Code.ORDER_ALREADY_REVERSED: (422, "The order was reversed before"),
    Code.TOO_MANY_WEBHOOKS: (409, "The merchant has too many endpoints"),
}
ADVICE: Final[dict[Code, str]] = {
    Code.ORDER_NO_REUSED: "Read the order that has the number. If yours is another one, send it with a new number.",
    Code.STATEMENT_NO_REUSED: "Send the same lines in the same order. Another statement has another number.",
    Code.MERCHANT_EXISTS: "Read the merchant that has the id; choose another id for yours.",
    Code.FEE_RULE_TOO_SOON: "Send a later `effective_at`, or none: then it is as soon as can be.",
    Code.MERCHANT_NOT_FOUND: "Create the merchant, then send the same request again.",
    Code.CURRENCY_MISMATCH: "Send the merchant's own currency, see `GET /v1/merchants/{id}`.",
    Code.ORDER_NOT_FOUND: "Check the kind, the merchant and the number of the order that is meant.",
    Code.PAYMENT_NOT_FOUND: "Check the payment's number: it is one of this merchant.",
    Code.PAYMENT_NOT_POSTED: "While it is `posting`, send the same again later; a refused payment moved nothing.",
    Code.PAYMENT_BEING_SETTLED: "Ask again in a moment, with the same number.",
    Code.REFUND_EXCEEDS_PAYMENT: "Refund what is left of the payment, at most.",
    Code.CHARGEBACK_EXCEEDS_PAYMENT: "Charge back what is left of the payment, at most.",
    Code.NOTHING_TO_SETTLE: "Nothing, until a payment that is settled later has been posted.",
    Code.SETTLEMENT_EXCEEDS_PENDING: "Send less, or leave `amount` out to settle everything.",
    Code.WITHDRAWAL_LIMIT_EXCEEDED: "Withdraw less, or on another day (UTC).",
    Code.WITHDRAWAL_NOT_POSTED: "Read the withdrawal: one that was refused, or is not posted yet, cannot end.",
    Code.WITHDRAWAL_PAID: "Nothing: it has ended.",
    Code.WITHDRAWAL_BOUNCED: "Nothing: it has ended, and the merchant has the money again.",
    Code.APPROVAL_NEEDS_ANOTHER: "Let another module approve it, or of the same one another person, if both are named.",
    Code.ORDER_NOT_REVERSIBLE: "Nothing: it is not posted, or something was built on it, such as a refund.",
    Code.ORDER_ALREADY_REVERSED: "Nothing: `reversed_by` of the order names its reversal.",
    Code.TOO_MANY_WEBHOOKS: "Disable one that is not needed, then send the same request again.",
}


def refusal_members(refusal: Refusal) -> dict[str, Any]:
    """A refusal as the members of a problem."""
    status, title = REFUSALS[refusal.code]
    members = {"type": URN + refusal.code, "title": title, "status": status, "detail": refusal.detail}
    if refusal.field is not None:
        members["field"] = refusal.field
    return members


def refused(refusal: Refusal) -> Reply:
    return Reply(REFUSALS[refusal.code][0], encode(refusal_members(refusal)), PROBLEM_TYPE, {})


def unverified_items(kind: str, keys: Sequence[object]) -> dict[str, Any]:
    """The member of a page that names what is left out of it, because it does not match its MAC; none without such."""
    if not keys:
        return {}
    problems = [
        {"id": str(key), "problem": msgspec.Raw(unverified(f"{kind} {key} does not match its MAC").body)}
        for key in keys
    ]
    return {"unverified": problems}


def gone(away: Away) -> Reply:
    """Nothing was kept, or nobody knows: 503, and the same may be sent again. 500 of a row that does not verify."""
    if away.tampered:
        return unverified(away.detail)
    return faulted(Unavailable(away.detail) if away.undone else OutcomeUnknown(away.detail))
