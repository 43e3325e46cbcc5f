"""Route table of the fund service, and the OpenAPI document that is built from the routes.

Each module of this folder declares routes: method, path, class and OpenAPI operation. The handlers of these routes are
in `app/fund/handlers/`, mostly in the module of the same name. The event feed is handled by `app/http/events.py`.
"""

from typing import Final

import msgspec

from fundledger.app.fund.handlers.limits import get_limits
from fundledger.app.fund.openapi.document import ABOUT
from fundledger.app.fund.routes import (
    approvals,
    bills,
    channels,
    events,
    lists,
    merchant_changes,
    merchants,
    orders,
    payees,
    payout_files,
    statements,
    webhooks,
)
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.document import Pages
from fundledger.app.http.routing import WITH_BODY, Route
from fundledger.app.http.service_routes import service_routes
from fundledger.fund.model.person import Role


def _with_role(route: Route[FundService]) -> Route[FundService]:
    """Return a route for which a person needs a role: that of the route, or `maker` if the route has none. A read needs
    no role.
    """
    needs = route.api_class is not None and route.method in WITH_BODY
    return msgspec.structs.replace(route, role=route.role or Role.MAKER) if needs else route


PAGES: Final = Pages(ABOUT, lambda: ROUTES)
_DECLARED: Final[list[Route[FundService]]] = [
    *merchants.ROUTES,
    *merchant_changes.ROUTES,
    *orders.ROUTES,
    *approvals.ROUTES,
    *channels.ROUTES,
    *payees.ROUTES,
    *payout_files.ROUTES,
    *statements.ROUTES,
    *lists.ROUTES,
    *bills.ROUTES,
    *events.ROUTES,
    *webhooks.ROUTES,
    *service_routes(PAGES, get_limits),
]
ROUTES: Final[list[Route[FundService]]] = [_with_role(route) for route in _DECLARED]
