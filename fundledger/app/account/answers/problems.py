"""Answers of the account service to refused requests: the problem (RFC 9457) of each refusal, with a remedy."""

from typing import Final

from msgspec import UNSET

from fundledger.app.http.problems import POSTING, POSTING_ADVICE, PROBLEM_TYPE, URN, Problem
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.ledger.model.refusal import Code, Refusal

REFUSALS: Final[dict[Code, tuple[int, str]]] = {
    **{Code(name): row for name, row in POSTING.items()},
    Code.VOUCHER_ID_REUSED: (422, "The voucher id was used with different content"),
    Code.HOLD_ID_REUSED: (422, "The hold id was used with different content"),
    Code.VOUCHER_UNBALANCED: (400, "Debits and credits of the voucher differ"),
    Code.HOLD_EXPIRY_PAST: (400, "The expiry of the hold is not in the future"),
    Code.ACCOUNT_NOT_FOUND: (422, "The account does not exist"),
    Code.CURRENCY_MISMATCH: (422, "The accounts have different currencies"),
    Code.HOLD_NOT_FOUND: (422, "The hold does not exist"),
    Code.HOLD_ON_PLATFORM_ACCOUNT: (422, "Platform accounts do not support holds"),
    Code.HOLD_CAPTURED: (422, "The hold was captured"),
    Code.HOLD_RELEASED: (422, "The hold was released"),
    Code.HOLD_EXPIRED: (422, "The hold has expired"),
    Code.HOLD_REFUSED: (422, "The hold was refused"),
    Code.HOLD_EXCEEDED: (422, "The capture does not match the hold"),
    Code.VOUCHER_NOT_POSTED: (422, "A refused voucher cannot be reversed"),
    Code.ACCOUNT_NOT_EMPTY: (422, "The account is not empty"),
    Code.BATCH_ABORTED: (422, "Another voucher of the atomic batch was refused"),
}
ADVICE: Final[dict[Code, str]] = {
    **{Code(name): advice for name, advice in POSTING_ADVICE.items()},
    Code.VOUCHER_ID_REUSED: "Read the voucher that has the id. Send a different movement with a new id.",
    Code.HOLD_ID_REUSED: "Read the hold that has the id. Send a different hold with a new id.",
    Code.VOUCHER_UNBALANCED: "Correct the entries: total debits must equal total credits. The id is still free.",
    Code.HOLD_EXPIRY_PAST: "Send an `expires_at` in the future, or omit it. The id is still free.",
    Code.ACCOUNT_NOT_FOUND: "Open the account, then send the same request again. The id is still free.",
    Code.CURRENCY_MISMATCH: "Use accounts of one currency. The id is still free.",
    Code.HOLD_NOT_FOUND: "Place the hold first.",
    Code.HOLD_ON_PLATFORM_ACCOUNT: "Place the hold on a merchant account.",
    Code.HOLD_CAPTURED: "No action is needed: the hold has ended. Its `voucher_id` is the voucher that captured it.",
    Code.HOLD_RELEASED: "Place a new hold with a new id.",
    Code.HOLD_EXPIRED: "Place a new hold with a new id.",
    Code.HOLD_REFUSED: "Place a new hold with a new id: the refused hold never held an amount.",
    Code.HOLD_EXCEEDED: "Capture at most the held amount, from the held account, with a new voucher id.",
    Code.VOUCHER_NOT_POSTED: "No action is needed: a refused voucher moved no money.",
    Code.ACCOUNT_NOT_EMPTY: "Transfer the balance and end the holds, then close the account.",
    Code.BATCH_ABORTED: "Correct the item that has another problem, then send the batch again. This id is still free.",
}


def refusal_members(refusal: Refusal) -> Problem:
    """Return the problem for a refusal. Equal refusals give equal problems, so a replay gets the same bytes."""
    status, title = REFUSALS[refusal.code]
    account = UNSET if refusal.account is None else refusal.account
    field = UNSET if refusal.field is None else refusal.field
    return Problem(URN + refusal.code, title, status, refusal.detail, account, field)


def refused(refusal: Refusal, replay: bool = False) -> Reply:
    headers = {"Idempotent-Replay": "true"} if replay else {}
    return Reply(REFUSALS[refusal.code][0], encode(refusal_members(refusal)), PROBLEM_TYPE, headers)
