"""Routes of the fund service for lists over all merchants, handled by `handlers/lists.py`: path, OpenAPI operation."""

from datetime import date
from typing import Annotated, Final

import msgspec

from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.handlers import lists
from fundledger.app.fund.requests.order_query import CURSOR
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.spreadsheet import HEADERS
from fundledger.app.http.openapi.types import Answer, Parameter, count, path, query
from fundledger.app.http.routing import Route
from fundledger.app.http.wire.reply import JSON
from fundledger.fund.model.order import Kind
from fundledger.fund.model.order_json import StateName
from fundledger.fund.model.requests import Amount, ChannelName, ChannelRef, MerchantId
from fundledger.json_values import Instant, about
from fundledger.ratelimit.classes import ApiClass

_CSV: Final = "With `Accept: text/csv` the page is CSV, with the header `X-Next-Cursor` unless it is the last one."


def listed(type_: type[msgspec.Struct], description: str = "A page.") -> dict[int, Answer]:
    """Return the answer of a list, by status: JSON or CSV."""
    return {200: Answer(description, {JSON: type_, "text/csv": str}, HEADERS)}


def _cursor(pattern: str) -> Parameter:
    return query("cursor", Annotated[str, about(pattern=pattern)], "`next_cursor` of the previous page")


ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "GET",
        "/v1/orders",
        lists.list_orders,
        ApiClass.LIST,
        "list_orders",
        "Orders",
        "List the orders of all merchants",
        "Returns the orders that match all parameters, the earliest created first. A page may have fewer orders than "
        f"`limit`, or none, while `next_cursor` is not null. {_CSV}",
        listed(answers.Orders),
        (
            query("merchant", MerchantId, "only orders of this merchant"),
            query("kind", Annotated[str, about(enum=[str(kind) for kind in Kind])], "only orders of this kind"),
            query("state", StateName, "only orders in this state; `stuck`: orders that need an operator"),
            query("from", Instant, "earliest `created_at`, inclusive"),
            query("to", Instant, "latest `created_at`, inclusive"),
            query("channel", ChannelName, "only orders of this channel"),
            query("channel_ref", ChannelRef, "only orders with this reference of a channel"),
            query("amount", Amount, "only orders of this amount"),
            _cursor(CURSOR),
            count(lists.LIMIT_DEFAULT, lists.LIMIT_MAX, "orders"),
        ),
    ),
    Route(
        "GET",
        "/v1/days/{date}",
        lists.get_day,
        ApiClass.LIST,
        "get_day",
        "Orders",
        "Read the sums of a day",
        "Returns the sums of the orders that were posted on the day, and of the orders that ended on it, by "
        "merchant, kind, currency and state. They are written once, when the day is closed. Before that, `closed_at` "
        f"is null. {_CSV}",
        listed(answers.Day),
        (
            path(date, "the day", "2026-01-31", "date"),
            _cursor(lists.SUM_CURSOR),
            count(lists.LIMIT_DEFAULT, lists.LIMIT_MAX, "sums"),
        ),
    ),
    Route(
        "GET",
        "/v1/bank-statements",
        lists.get_statements,
        ApiClass.LIST,
        "list_bank_statements",
        "Orders",
        "List bank statements",
        f"Returns imported bank statements, with the number of lines by outcome. {_CSV}",
        listed(answers.BankStatements),
        (
            query("channel", ChannelName, "only statements of this channel"),
            _cursor(lists.STATEMENT_CURSOR),
            count(lists.STATEMENTS_DEFAULT, lists.STATEMENTS_MAX, "statements"),
        ),
    ),
]
