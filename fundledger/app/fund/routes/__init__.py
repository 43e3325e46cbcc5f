"""Route table of the fund service, and the OpenAPI document that is built from the routes.

Each module of this folder declares routes: method, path, class and OpenAPI operation. The handlers of these routes are
in `app/fund/handlers/`, mostly in the module of the same name. The event feed is handled by `app/http/events.py`.
"""

from typing import Final

from fundledger.app.fund.handlers.limits import get_limits
from fundledger.app.fund.openapi.document import ABOUT
from fundledger.app.fund.routes import bills, events, lists, merchants, orders, statements, webhooks
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.document import Pages
from fundledger.app.http.routing import Route
from fundledger.app.http.service_routes import service_routes

PAGES: Final = Pages(ABOUT, lambda: ROUTES)
ROUTES: Final[list[Route[FundService]]] = [
    *merchants.ROUTES,
    *orders.ROUTES,
    *statements.ROUTES,
    *lists.ROUTES,
    *bills.ROUTES,
    *events.ROUTES,
    *webhooks.ROUTES,
    *service_routes(PAGES, get_limits),
]
