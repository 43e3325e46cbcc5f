"""Route table of the account service, and the OpenAPI document that is built from the routes.

Each module of this folder declares routes: method, path, class and OpenAPI operation. The handlers of these routes are
in the module of the same name in `app/account/handlers/`. The handler of the event feed is in `app/http/events.py`.
"""

from typing import Final

from fundledger.app.account.openapi.document import ABOUT
from fundledger.app.account.routes import accounts, balances, calendar, events, holds, vouchers
from fundledger.app.account.service import Service
from fundledger.app.http.admission.debug_limits import get_limits
from fundledger.app.http.openapi.document import Pages
from fundledger.app.http.routing import Route
from fundledger.app.http.service_routes import HOT_KEYS, service_routes

PAGES: Final = Pages(ABOUT, lambda: ROUTES)
ROUTES: Final[list[Route[Service]]] = [
    *accounts.ROUTES,
    *balances.ROUTES,
    *calendar.ROUTES,
    *vouchers.ROUTES,
    *holds.ROUTES,
    *events.ROUTES,
    HOT_KEYS,
    *service_routes(PAGES, get_limits),
]
