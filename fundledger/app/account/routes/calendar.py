"""Route of the account service for its accounting calendar, handled by `handlers/calendar.py`: OpenAPI operation."""

from typing import Final

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.handlers import calendar
from fundledger.app.account.service import Service
from fundledger.app.http.openapi.types import shown
from fundledger.app.http.routing import Route
from fundledger.ratelimit.classes import ApiClass

ROUTES: Final[list[Route[Service]]] = [
    Route(
        "GET",
        "/v1/calendar",
        calendar.get_calendar,
        ApiClass.QUERY,
        "get_calendar",
        "Accounts",
        "Read the accounting calendar",
        "Returns the time zone and the cut that determine accounting dates. With a cut of 23:00, a voucher of 23:30 on "
        "the 1st belongs to the 2nd.",
        {200: shown(answers.Calendar, "The calendar.")},
    ),
]
