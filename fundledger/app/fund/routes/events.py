"""Route of the fund service's event feed: path, class, OpenAPI operation. `app/http/events.py` handles it."""

from typing import Final

from fundledger.app.fund.service import FundService
from fundledger.app.http.events import QUERY, Events, get_events
from fundledger.app.http.openapi.types import shown
from fundledger.app.http.routing import Route
from fundledger.ratelimit.classes import ApiClass

ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "GET",
        "/v1/events",
        get_events,
        ApiClass.NOTIFY,
        "get_events",
        "Events",
        "Read events",
        "Returns events at least once, in order for each order. With `wait_s`, waits for new events if there are none.",
        {200: shown(Events, "A page of events.")},
        QUERY,
        enters=True,
    ),
]
