"""Route of the fund service for bank statements, handled by `handlers/statements.py`: path, OpenAPI operation."""

from typing import Final

from fundledger.app.fund.handlers import statements
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import CURRENCY_UNKNOWN, Answer, shown
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX, Route
from fundledger.app.http.wire.reply import JSON
from fundledger.fund.model.refusal import Code
from fundledger.fund.statements.imports import StatementReport, StatementRequest
from fundledger.ratelimit.classes import ApiClass

_EXAMPLE: Final = {
    "channel": "simulator",
    "statement_no": "2026-1123",
    "currency": "CNY",
    "lines": [{"ref": "P-20261123-1", "amount": -5000}],
}
ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "POST",
        "/v1/bank-statements",
        statements.post_statement,
        ApiClass.CONFIRM,
        "post_bank_statement",
        "Orders",
        "Import a bank statement",
        "Each line is matched with one order. Each difference is requested as a bank difference once. Channel and "
        "statement number are the idempotency key: a replay returns 200.",
        {
            201: shown(StatementReport, "The result of each line."),
            200: Answer(
                "Replay of an earlier request: the same report.",
                {JSON: StatementReport},
                {"Idempotent-Replay": True},
            ),
            400: CURRENCY_UNKNOWN,
            422: Answer("Refused: nothing is stored.", problems=(Code.STATEMENT_NO_REUSED, Code.CHANNEL_NOT_FOUND)),
        },
        body=(StatementRequest, _EXAMPLE),
        body_bytes_max=BATCH_BODY_BYTES_MAX,
    ),
]
