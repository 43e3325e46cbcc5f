"""HTTP handlers of the fund service for lists over all merchants: orders, day sums, bank statements.

`routes/lists.py` declares their routes.
"""

import re
from datetime import date
from typing import Final

import msgspec

from fundledger.app.fund.answers import render
from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.answers.problems import unverified_items
from fundledger.app.fund.requests.lookup import verifies
from fundledger.app.fund.requests.order_query import cursor_of, order_filter, place_of
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.spreadsheet import csv_page, wants_csv
from fundledger.app.http.problems import malformed
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.fund.model.days import FIRST, LAST
from fundledger.fund.model.order import Order as StoredOrder
from fundledger.fund.model.order_json import Order, published
from fundledger.fund.statements.listing import ListedStatement, StatementKey, list_statements
from fundledger.fund.statements.matching import Outcome
from fundledger.fund.store.day_sums import DaySum, SumKey, read_day
from fundledger.fund.store.order_lists import Place, find_orders
from fundledger.fund.store.orders import read_orders
from fundledger.json_values import time_text

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 500
STATEMENTS_DEFAULT: Final = 20
STATEMENTS_MAX: Final = 50
"""The maximum number of bank statements of a page. Each can have 5,000 lines, which are counted."""
ORDER_COLUMNS: Final = Order.__struct_fields__
SUM_COLUMNS: Final = DaySum._fields
STATEMENT_COLUMNS: Final = (
    *("channel", "statement_no", "currency", "at", "module", "lines"),
    *[str(outcome) for outcome in Outcome],
    *("total", "difference"),
)
SUM_CURSOR: Final = "^([A-Za-z0-9_.-]{1,64}):([a-z_]{1,32}):([A-Z]{3}):([a-z_]{1,32})$"
STATEMENT_CURSOR: Final = "^([A-Za-z0-9_.-]{1,32}):([A-Za-z0-9:_./-]{1,64})$"
_is_date = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}").fullmatch
_is_channel = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z").match
_is_sum_cursor = re.compile(SUM_CURSOR).fullmatch
_is_statement_cursor = re.compile(STATEMENT_CURSOR).fullmatch


async def list_orders(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/orders`: a page of the matching orders of all merchants, the earliest created first.

    A page may have fewer orders than `limit`, or none, although more follow. On the last page `next_cursor` is null.
    """
    wanted, after = order_filter(call.query), place_of(call.query)
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)

    async def read() -> tuple[list[StoredOrder], Place | None]:
        ids, following = await find_orders(service.pool, wanted, after, limit)
        found = await read_orders(service.pool, ids) if ids else {}
        return [found[id_] for id_ in ids if id_ in found], following

    orders, following = await service.reading(read)
    bad = [order.id for order in orders if not verifies(service, order)]
    shown = [order for order in orders if order.id not in bad]
    cursor = cursor_of(following)
    if wants_csv(call):
        return csv_page(ORDER_COLUMNS, (_cells(published(order)) for order in shown), cursor, bad)
    return Reply(200, render.page(shown, cursor, unverified_items("order", bad)))


def _cells(order: Order) -> list[object]:
    """Return the cells of an order. A member that does not apply to its kind is an empty cell."""
    values = [getattr(order, name) for name in ORDER_COLUMNS]
    shown = [_cell(value) for value in values]
    return [None if value is msgspec.UNSET else value for value in shown]


def _cell(value: object) -> object:
    """Return the cell of a member: JSON for a problem, and for the parts of a split order."""
    if isinstance(value, list):
        return encode(value).decode()
    return bytes(value).decode() if isinstance(value, msgspec.Raw) else value


def date_of(text: str, field: str) -> date:
    """Return a date in the form YYYY-MM-DD. Raises BadRequest (400) that names the field."""
    try:
        day = date.fromisoformat(text) if _is_date(text) else None
    except ValueError:
        day = None
    if day is None or not FIRST <= day <= LAST:
        raise malformed(f"{field} must be a date from {FIRST} to {LAST}, such as 2026-01-31", field=field)
    return day


async def get_day(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/days/{date}`: the sums of a closed day, ordered by merchant, kind, currency and state."""
    day = date_of(call.parameters["date"], "date")
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    after = None
    if "cursor" in call.query:
        parts = _is_sum_cursor(call.query["cursor"])
        if parts is None:
            raise malformed("cursor must be the next_cursor of the previous page", field="cursor")
        after = SumKey(*parts.groups())
    found = await service.reading(lambda: read_day(service.pool, service.macs.days, day, after, limit + 1))
    page = found.sums[:limit]
    last = page[-1] if len(found.sums) > limit else None
    cursor = None if last is None else f"{last.merchant}:{last.kind}:{last.currency}:{last.state}"
    if wants_csv(call):
        return csv_page(SUM_COLUMNS, page, cursor)
    closed_at = None if found.closed_at is None else time_text(found.closed_at)
    shown = [answers.DaySum(*each) for each in page]
    period = time_text(found.begins_at), time_text(found.ends_at), found.ends
    return Reply(200, encode(answers.Day(day, closed_at, found.orders, shown, cursor, *period)))


async def get_statements(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/bank-statements`: imported bank statements, ordered by channel and number."""
    query = call.query
    limit = number(query, "limit", STATEMENTS_DEFAULT, 1, STATEMENTS_MAX)
    channel, after = query.get("channel"), None
    if channel is not None and not _is_channel(channel):
        raise malformed("channel must be 1 to 32 characters of [A-Za-z0-9_.-]", field="channel")
    if "cursor" in query:
        parts = _is_statement_cursor(query["cursor"])
        if parts is None:
            raise malformed("cursor must be the next_cursor of the previous page", field="cursor")
        after = StatementKey(*parts.groups())
    found = await service.reading(lambda: list_statements(service.pool, channel, after, limit + 1))
    page = found[:limit]
    cursor = f"{page[-1].channel}:{page[-1].statement_no}" if len(found) > limit else None
    if wants_csv(call):
        return csv_page(STATEMENT_COLUMNS, map(_row, page), cursor)
    shown = [answers.BankStatement(**{**msgspec.structs.asdict(each), "at": time_text(each.at)}) for each in page]
    return Reply(200, encode(answers.BankStatements(shown, cursor)))


def _row(statement: ListedStatement) -> list[object]:
    counts = {str(outcome): count for outcome, count in statement.counts.items()}
    members = {**msgspec.structs.asdict(statement), **counts, "at": time_text(statement.at)}
    return [members[name] for name in STATEMENT_COLUMNS]
