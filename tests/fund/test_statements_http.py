"""Bank statements over HTTP: an import gets 201, a replay 200, and a different statement under the same number 422."""

from types import SimpleNamespace

import msgspec
import pytest
from multidict import CIMultiDict

from fundledger.app.fund.handlers.statements import post_statement
from fundledger.app.http.problems import BadRequest
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply
from tests.fund.bank import Pool, here
from tests.fund.test_statements import BooksInSql
from tests.support.fund_worker import EveryChannel


async def ask(pool: Pool, batcher: BooksInSql, body: object) -> Reply:
    service = SimpleNamespace(pool=pool, batcher=batcher, channels=EveryChannel(), reading=lambda read: read())
    return await post_statement(service, Call("dev", {}, {}, CIMultiDict(), msgspec.json.encode(body)))


async def test_a_statement_is_created_repeated_and_refused(fund_pool: Pool):
    batcher = BooksInSql(fund_pool)
    lines = [{"ref": "IN-1", "amount": 100}]
    body = {"channel": here.channel, "statement_no": "1", "currency": "CNY", "lines": lines}
    batcher.away_after = 0
    away = await ask(fund_pool, batcher, body)
    assert away.status == 503
    batcher.away_after = 9
    first = await ask(fund_pool, batcher, body)
    assert (first.status, first.headers) == (200, {"Idempotent-Replay": "true"})
    again = await ask(fund_pool, batcher, body)
    assert again.body == first.body
    assert (await ask(fund_pool, batcher, {**body, "statement_no": "2"})).status == 201
    other = await ask(fund_pool, batcher, {**body, "lines": lines * 2})
    assert other.status == 422
    assert msgspec.json.decode(other.body)["type"].endswith(":statement-no-reused")
    with pytest.raises(BadRequest):
        await ask(fund_pool, batcher, {**body, "lines": []})
