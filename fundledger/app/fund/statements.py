"""Bank statements over HTTP: a statement is imported once, and a repeat answers the same."""

from typing import Final

from fundledger.app.body import known_currency, quotes_of_flat
from fundledger.app.fund.problems import gone, refused
from fundledger.app.fund.service import FundService
from fundledger.app.many import decoder_of_many, item_decoder
from fundledger.app.render import encode
from fundledger.app.reply import JSON, Reply
from fundledger.app.routing import BATCH_BODY_BYTES_MAX, Call, Route
from fundledger.fund.answer import Away
from fundledger.fund.bank_statements import LINES_MAX, StatementLine, StatementRequest, import_statement
from fundledger.fund.refusal import Refusal
from fundledger.ratelimit.classes import ApiClass

_REPLAY: Final = {"Idempotent-Replay": "true"}
_decode = decoder_of_many(StatementRequest, "lines", LINES_MAX, item_decoder(StatementLine, quotes_of_flat))


async def post_statement(service: FundService, call: Call) -> Reply:
    """`POST /v1/bank-statements`: match its lines with the books, book the differences. Idempotent by its number."""
    given, lines = await _decode(call.body)
    known_currency(given.currency)
    request = StatementRequest(given.channel, given.statement_no, given.currency, lines)
    answer = await import_statement(service.desk, service.pool, request, call.module)
    if isinstance(answer, Refusal):
        return refused(answer)
    if isinstance(answer, Away):
        return gone(answer)
    return Reply(200 if answer.replay else 201, encode(answer.report), JSON, _REPLAY if answer.replay else {})


ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "POST",
        "/v1/bank-statements",
        post_statement,
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        api_class=ApiClass.CONFIRM,
    ),
]
