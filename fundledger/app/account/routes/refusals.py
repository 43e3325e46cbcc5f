"""Routes of the account service: OpenAPI answers for replays and refusals, and shared groups of refusal codes."""

from typing import Any, Final

from fundledger.app.http.openapi.types import Answer
from fundledger.app.http.wire.reply import JSON
from fundledger.ledger.model.refusal import Code

STATUS: Final = (Code.ACCOUNT_CLOSED, Code.ACCOUNT_FROZEN)
FUNDS: Final = (Code.BALANCE_OUT_OF_RANGE, Code.INSUFFICIENT_FUNDS)
POSTING: Final = (Code.VOUCHER_ID_REUSED, Code.ACCOUNT_NOT_FOUND, Code.CURRENCY_MISMATCH, *STATUS, *FUNDS)
TAMPERED: Final = Answer(
    "The record of the account does not match its MAC. Report it to the operator.", problems=(Code.ACCOUNT_FROZEN,)
)
UNBALANCED: Final = Answer("The request is malformed.", problems=(Code.VOUCHER_UNBALANCED,))


def replayed(type_: Any) -> Answer:
    description = "A replay: the first answer to the same request, byte for byte."
    return Answer(description, {JSON: type_}, {"Idempotent-Replay": True})


def refused(*codes: str) -> Answer:
    return Answer("Refused by the ledger: see the problem's `type`.", problems=codes)


def refused_for_ever(*codes: str) -> Answer:
    description = (
        "Refused by the ledger: see the problem's `type`. Nothing was posted. A final refusal is permanent for the id."
    )
    return Answer(description, headers={"Idempotent-Replay": False}, problems=codes)
