"""Route of the account service's event feed: path, class, OpenAPI operation. `app/http/events.py` handles it."""

from typing import Final

from fundledger.app.account.service import Service
from fundledger.app.http.events import QUERY, Events, get_events
from fundledger.app.http.openapi.types import shown
from fundledger.app.http.routing import Route
from fundledger.ratelimit.classes import ApiClass

ROUTES: Final[list[Route[Service]]] = [
    Route(
        "GET",
        "/v1/events",
        get_events,
        ApiClass.NOTIFY,
        "list_events",
        "Events",
        "List events",
        "Returns every posted or refused voucher after it is durable: at least once, and in order for each account. "
        "Store `next` and send it as `after` to continue: no event is skipped, however much later.",
        {200: shown(Events, "The next events. Empty if there was none within `wait_s`.")},
        QUERY,
        enters=True,
    ),
]
