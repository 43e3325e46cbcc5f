"""Every problem type that a client can meet, with what to do about it: for the OpenAPI file, its page and the docs."""

from typing import Final

import msgspec

from fundledger.app.gate import IANA
from fundledger.app.problems import REFUSALS, URN
from fundledger.ledger.refusal import FINAL, Code

ADVICE: Final[dict[Code, str]] = {
    Code.VOUCHER_ID_REUSED: "Read the voucher that has the id. If yours is another movement, send it with a new id.",
    Code.HOLD_ID_REUSED: "Read the hold that has the id. If yours is another one, send it with a new id.",
    Code.VOUCHER_UNBALANCED: "Correct the entries: debits and credits are equal. The id is still free.",
    Code.HOLD_EXPIRY_PAST: "Send an `expires_at` in the future, or none. The id is still free.",
    Code.ACCOUNT_NOT_FOUND: "Open the account, then send the same request again. The id is still free.",
    Code.CURRENCY_MISMATCH: "Use accounts of one currency. The id is still free.",
    Code.HOLD_NOT_FOUND: "Place the hold first.",
    Code.HOLD_ON_PLATFORM_ACCOUNT: "Place the hold on an account of a merchant.",
    Code.HOLD_CAPTURED: "Nothing: the hold has ended. Its `voucher_id` names the voucher that took the money.",
    Code.HOLD_RELEASED: "Place a new hold, with a new id.",
    Code.HOLD_EXPIRED: "Place a new hold, with a new id.",
    Code.HOLD_REFUSED: "Place a new hold, with a new id: this one never held anything.",
    Code.HOLD_EXCEEDED: "Capture at most what is held, from the held account, with a new voucher id.",
    Code.VOUCHER_ALREADY_REVERSED: "Nothing: `reversed_by` of the original names its reversal.",
    Code.VOUCHER_NOT_POSTED: "Nothing: a refused voucher moved no money.",
    Code.ACCOUNT_CLOSED: "Use another account. A closed account stays closed.",
    Code.ACCOUNT_FROZEN: "Wait until it is unfrozen, then send a new id. `books do not verify`: tell the operator.",
    Code.ACCOUNT_NOT_EMPTY: "Move the balance away and end the holds, then close it.",
    Code.BALANCE_OUT_OF_RANGE: "Move less, with a new id: balances are kept exactly up to 2^62.",
    Code.INSUFFICIENT_FUNDS: "When money has come in, send it with a new id: this one stays refused.",
    Code.BATCH_ABORTED: "Correct the item that has a problem of its own, then send the batch again. This id is free.",
}


class Trouble(msgspec.Struct, frozen=True):
    """A problem that is no refusal: it ends a request before the ledger decides, or something broke."""

    status: int
    title: str
    advice: str
    prefix: str = URN


OTHERS: Final[dict[str, Trouble]] = {
    "malformed": Trouble(400, "The request is malformed", "Correct what `detail` says, where `field` points to."),
    "currency-unknown": Trouble(
        400, "The currency is not known", "Send a code of ISO 4217 whose currency has a minor unit, such as CNY."
    ),
    "unauthorized": Trouble(401, "Who are you?", "Send `Authorization: Bearer TOKEN` with a token that is valid."),
    "not-found": Trouble(404, "There is no such resource", "Check the path and the id in it."),
    "method-not-allowed": Trouble(405, "The method is not allowed here", "The header `Allow` names those that are."),
    "body-too-late": Trouble(
        408, "The body did not arrive", "Nothing was done. Send the same request again, on another connection."
    ),
    "account-exists": Trouble(
        409, "The account exists and differs", "Read the account that has the id; choose another id for yours."
    ),
    "body-too-large": Trouble(413, "The body is too large", "Send less, or a long batch in several."),
    "unsupported-media-type": Trouble(
        415, "The body is not in a form that is read here", "Send `application/json`, uncompressed."
    ),
    "quota-exceeded": Trouble(
        429,
        "Too many requests",
        "Nothing was done. Wait for `Retry-After` seconds, send the same again; `violated-policies` names the limit.",
        IANA,
    ),
    "internal-error": Trouble(
        500, "Something is wrong on our side", "Tell the operator. Sending the same id again tells what is true."
    ),
    "integrity": Trouble(
        500,
        "The books of the account do not verify",
        "Tell the operator. No figure of `account` is shown until it has been looked at; other accounts are answered.",
    ),
    "temporary-reduced-capacity": Trouble(
        503,
        "Not at the moment",
        "Nothing was done: there is too much to do. Wait for `Retry-After` seconds, send the same request again.",
        IANA,
    ),
    "unavailable": Trouble(
        503, "Not at the moment", "Nothing was written. Wait for `Retry-After` seconds, send the same request again."
    ),
    "outcome-unknown": Trouble(
        503, "The outcome is not known yet", "Send the same request with the same id: the answer is what is true."
    ),
    "draining": Trouble(503, "Stopping", "Of `/readyz`: send requests elsewhere."),
    "no-database": Trouble(
        503, "Not ready", "Of `/readyz`: the database does not answer this worker, or takes no writes."
    ),
}


class Problem(msgspec.Struct, frozen=True):
    """One row of the list. `final` is None where no id is concerned. `prefix` and `name` make the type."""

    name: str
    status: int
    title: str
    final: bool | None
    advice: str
    prefix: str = URN

    @property
    def type(self) -> str:
        return self.prefix + self.name


def problems() -> list[Problem]:
    """Refusals in their order of precedence, then everything else by status."""
    refusals = [Problem(str(code), *REFUSALS[code], code in FINAL, ADVICE[code]) for code in Code]
    others = [Problem(name, o.status, o.title, None, o.advice, o.prefix) for name, o in OTHERS.items()]
    return refusals + others
