"""Route of the fund service for the bill of a merchant, handled by `handlers/bills.py`: path, OpenAPI operation."""

from datetime import date
from typing import Annotated, Final

from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.handlers import bills
from fundledger.app.fund.handlers.merchants import named
from fundledger.app.fund.routes.kinds import MERCHANT
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.spreadsheet import HEADERS
from fundledger.app.http.openapi.types import Answer, count, no_such, path, query
from fundledger.app.http.routing import Route
from fundledger.app.http.wire.reply import JSON
from fundledger.fund.bills import CURSOR
from fundledger.fund.model.requests import MerchantId
from fundledger.json_values import about
from fundledger.ratelimit.classes import ApiClass

ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "GET",
        "/v1/merchants/{id}/bill",
        bills.get_bill,
        ApiClass.LIST,
        "get_bill",
        "Merchants",
        "Read the bill of a merchant",
        "Returns each movement of the merchant's accounts in a day or a month, the oldest first, with its order, "
        "its fee and the balances after it. The lines add up to the movement of the accounts in the account service. "
        "A page may be short while `next_cursor` is not null. With `Accept: text/csv` the page is CSV, with the header "
        "`X-Next-Cursor` unless it is the last one. Returns `unavailable` if the account service does not answer.",
        {
            200: Answer("A page.", {JSON: answers.Bill, "text/csv": str}, HEADERS),
            404: no_such("merchant"),
        },
        (
            path(MerchantId, "id of the merchant", MERCHANT),
            query("day", date, "the day; default: the current day"),
            query(
                "month",
                Annotated[str, about(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$")],
                "the month, such as `2026-01`; cannot be combined with `day`",
            ),
            query("cursor", Annotated[str, about(pattern=CURSOR)], "`next_cursor` of the previous page"),
            count(bills.LIMIT_DEFAULT, bills.LIMIT_MAX, "lines"),
        ),
        whose=named,
    ),
]
