"""Routes of the account service for vouchers, handled by `handlers/vouchers.py`: method, path, OpenAPI operation."""

from typing import Final

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.handlers import vouchers
from fundledger.app.account.openapi.examples import OTHER_VOUCHER, REVERSAL, VOUCHER, moves
from fundledger.app.account.requests.bodies import BatchBody, ReverseBody, VoucherBody
from fundledger.app.account.routes.refusals import (
    FUNDS,
    POSTING,
    STATUS,
    TAMPERED,
    UNBALANCED,
    refused_for_ever,
    replayed,
)
from fundledger.app.account.service import Service
from fundledger.app.http.openapi.types import no_such, path, shown
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX, Route
from fundledger.json_values import Uuid
from fundledger.ledger.model.refusal import Code
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Vouchers"
_EXAMPLE: Final = {**moves(VOUCHER, "pay", 10000), "reference": "order 2026-0001"}
ROUTES: Final[list[Route[Service]]] = [
    Route(
        "POST",
        "/v1/vouchers",
        vouchers.post_one,
        ApiClass.PAYMENT,
        "post_voucher",
        _TAG,
        "Post a voucher",
        "Moves money: 2 to 64 entries, debits = credits, one currency. The answer is sent after the voucher is "
        "durable. The id is the idempotency key and never expires: after a timeout, send the same request again.",
        {
            201: shown(answers.Voucher, "The voucher is posted."),
            200: replayed(answers.Voucher),
            400: UNBALANCED,
            422: refused_for_ever(*POSTING),
        },
        body=(VoucherBody, _EXAMPLE),
        enters=True,
        by_body=True,
    ),
    Route(
        "POST",
        "/v1/vouchers/batch",
        vouchers.post_batch,
        ApiClass.BATCH,
        "post_vouchers",
        _TAG,
        "Post up to 5,000 vouchers",
        "Each item is decided separately: a refused item does not affect the others. With `atomic` all items are "
        "posted, or none, and they have at most 20,000 entries in all. A malformed item causes a 400 for the whole "
        "batch, and nothing is posted.",
        {200: shown(answers.BatchResults, "The outcome of each item."), 422: TAMPERED},
        body=(BatchBody, {"vouchers": [{**_EXAMPLE, "id": OTHER_VOUCHER}], "atomic": False}),
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        enters=True,
    ),
    Route(
        "GET",
        "/v1/vouchers/{id}",
        vouchers.get_voucher,
        ApiClass.QUERY,
        "get_voucher",
        _TAG,
        "Read a voucher",
        "Also returns a voucher with a final refusal, with its problem.",
        {200: shown(answers.Voucher, "The voucher."), 404: no_such("voucher")},
        (path(Uuid, "id of the voucher", VOUCHER),),
    ),
    Route(
        "POST",
        "/v1/vouchers/{id}/reverse",
        vouchers.reverse_voucher,
        ApiClass.REFUND,
        "reverse_voucher",
        _TAG,
        "Reverse a voucher",
        "Posts the opposite voucher under a new id, linked both ways. A voucher can be reversed once.",
        {
            201: shown(answers.Voucher, "The reversal is posted."),
            200: replayed(answers.Voucher),
            404: no_such("voucher"),
            422: refused_for_ever(
                Code.VOUCHER_ID_REUSED, Code.VOUCHER_ALREADY_REVERSED, Code.VOUCHER_NOT_POSTED, *STATUS, *FUNDS
            ),
        },
        (path(Uuid, "id of the voucher to reverse", OTHER_VOUCHER),),
        (ReverseBody, {"id": REVERSAL}),
        enters=True,
    ),
]
