"""Route of the account service for the trial balance, handled by `handlers/balances.py`: path, OpenAPI operation."""

from typing import Final

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.handlers import balances
from fundledger.app.account.service import Service
from fundledger.app.http.bodies.spreadsheet import HEADERS
from fundledger.app.http.openapi.types import Answer, count, query
from fundledger.app.http.routing import Route
from fundledger.app.http.wire.reply import JSON
from fundledger.json_values import Instant
from fundledger.ratelimit.classes import ApiClass

ROUTES: Final[list[Route[Service]]] = [
    Route(
        "GET",
        "/v1/balances",
        balances.get_balances,
        ApiClass.LIST,
        "list_balances",
        "Accounts",
        "Read the trial balance",
        "Returns the posted balance of every account at one time, in a debit and a credit column, ordered by id. All "
        "pages have the time of the first page. The last page has the totals of each currency: debits equal credits. A "
        "buffered credit counts from the time at which it was posted to its account. With `Accept: text/csv` the page "
        "is CSV, with the header `X-Next-Cursor` unless it is the last one.",
        {200: Answer("A page.", {JSON: answers.TrialBalance, "text/csv": str}, HEADERS)},
        (
            query("at", Instant, "the time; default, and for a later time: now. The same for each page"),
            query("cursor", str, "`next_cursor` of the previous page"),
            count(balances.LIMIT_DEFAULT, balances.LIMIT_MAX, "accounts"),
        ),
    ),
]
