"""Routes of the account service for holds, handled by `handlers/holds.py`: method, path, OpenAPI operation."""

from typing import Final

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.handlers import holds
from fundledger.app.account.openapi.examples import CAPTURE, HOLD, MERCHANT, moves
from fundledger.app.account.requests.bodies import CaptureBody, HoldBody, ReasonBody
from fundledger.app.account.routes.refusals import POSTING, STATUS, UNBALANCED, refused, refused_for_ever, replayed
from fundledger.app.account.service import Service
from fundledger.app.http.openapi.types import Answer, no_such, path, shown
from fundledger.app.http.routing import Route
from fundledger.app.http.wire.reply import JSON
from fundledger.json_values import Id
from fundledger.ledger.model.refusal import Code
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Holds"
_ID: Final = path(Id, "id of the hold", HOLD)
_ENDED: Final = (Code.HOLD_CAPTURED, Code.HOLD_RELEASED, Code.HOLD_EXPIRED, Code.HOLD_REFUSED)
ROUTES: Final[list[Route[Service]]] = [
    Route(
        "POST",
        "/v1/holds",
        holds.place_hold,
        ApiClass.PAYMENT,
        "place_hold",
        _TAG,
        "Place a hold",
        "Sets an amount of an account aside until it is captured, released or expires. The id is the idempotency key.",
        {
            201: shown(answers.Hold, "The amount is held."),
            200: replayed(answers.Hold),
            400: Answer("The request is malformed.", problems=(Code.HOLD_EXPIRY_PAST,)),
            422: refused_for_ever(
                Code.HOLD_ID_REUSED,
                Code.ACCOUNT_NOT_FOUND,
                Code.HOLD_ON_PLATFORM_ACCOUNT,
                *STATUS,
                Code.INSUFFICIENT_FUNDS,
            ),
        },
        body=(HoldBody, {"id": HOLD, "account": MERCHANT, "amount": 5000}),
        enters=True,
    ),
    Route(
        "GET",
        "/v1/holds/{id}",
        holds.get_hold,
        ApiClass.QUERY,
        "get_hold",
        _TAG,
        "Read a hold",
        "Returns the current state.",
        {200: shown(answers.Hold, "The hold."), 404: no_such("hold")},
        (_ID,),
    ),
    Route(
        "POST",
        "/v1/holds/{id}/capture",
        holds.capture_hold,
        ApiClass.CONFIRM,
        "capture_hold",
        _TAG,
        "Capture a hold",
        "Posts a voucher that debits the held account for at most the held amount; the rest is released.",
        {
            201: shown(answers.Voucher, "The voucher is posted, and the hold is captured."),
            200: replayed(answers.Voucher),
            400: UNBALANCED,
            404: no_such("hold"),
            422: refused_for_ever(*POSTING, Code.HOLD_NOT_FOUND, *_ENDED, Code.HOLD_EXCEEDED),
        },
        (_ID,),
        (CaptureBody, {"voucher": moves(CAPTURE, "withdraw", -3000)}),
        enters=True,
    ),
    Route(
        "POST",
        "/v1/holds/{id}/release",
        holds.release_hold,
        ApiClass.CONFIRM,
        "release_hold",
        _TAG,
        "Release a hold",
        "Makes the held amount available again. The body may be empty.",
        {
            200: Answer("The released hold.", {JSON: answers.Hold}, {"Idempotent-Replay": False}),
            404: no_such("hold"),
            422: refused(*_ENDED, Code.ACCOUNT_FROZEN),
        },
        (path(Id, "id of the hold", "hold:10001:2"),),
        (ReasonBody, {"reason": "order cancelled"}),
        enters=True,
    ),
]
