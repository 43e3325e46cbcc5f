"""HTTP handler of the fund service that imports bank statements. `routes/statements.py` declares its route."""

from typing import Final

from fundledger.app.fund.answers.problems import gone, refused
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.batch_decoding import decoder_of_many, item_decoder
from fundledger.app.http.bodies.decoding import known_currency, quotes_of_flat
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import JSON, Reply, encode
from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.channel import unknown_channel
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.statements.imports import LINES_MAX, StatementLine, StatementRequest, import_statement

_REPLAY: Final = {"Idempotent-Replay": "true"}
_decode = decoder_of_many(StatementRequest, "lines", LINES_MAX, item_decoder(StatementLine, quotes_of_flat))


async def post_statement(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/bank-statements`: match the lines with orders and post the differences.

    Idempotent by channel and statement number.
    """
    given, lines = await _decode(call.body)
    known_currency(given.currency)
    channel = await service.reading(lambda: service.channels.get(given.channel, given.currency))
    if channel is None:
        return refused(unknown_channel(given.channel, given.currency, service.channels.names))
    request = StatementRequest(given.channel, given.statement_no, given.currency, lines)
    answer = await import_statement(service.batcher, service.pool, request, call.module)
    if isinstance(answer, Refusal):
        return refused(answer)
    if isinstance(answer, OrderFault):
        return gone(answer)
    return Reply(200 if answer.replay else 201, encode(answer.report), JSON, _REPLAY if answer.replay else {})
