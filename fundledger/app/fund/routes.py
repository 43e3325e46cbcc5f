"""Route table of the fund service. Bank statements and webhooks define their routes in their own modules."""

from collections.abc import Iterator

from fundledger.app.fund import limits, merchants, orders, statements, webhooks, withdrawals
from fundledger.app.fund.kinds import KINDS
from fundledger.app.fund.openapi import document as openapi
from fundledger.app.fund.service import FundService
from fundledger.app.http import events, health, worker_stats
from fundledger.app.http.home_page import Home
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX, Route
from fundledger.fund.model.order import Kind
from fundledger.ratelimit.classes import ApiClass

HOME = Home("fundledger fund service")
LIST = ("merchant", "order_no", "state", "cursor", "limit")


def _of(kind: Kind) -> Iterator[Route[FundService]]:
    path, api_class = f"/v1/{KINDS[kind].collection}", KINDS[kind].api_class
    by_body = kind is Kind.PAYMENT
    yield Route("POST", path, orders.posting(kind), api_class=api_class, enters=True, by_body=by_body)
    # The query decides whether the API class is QUERY (one order) or LIST.
    yield Route("GET", path, orders.listing(kind), query=LIST, api_class=ApiClass.LIST, enters=True, by_body=True)
    yield Route("GET", f"{path}/{{id}}", orders.getting(kind), api_class=ApiClass.QUERY)
    yield Route("GET", f"{path}/{{id}}/history", orders.history(kind), api_class=ApiClass.QUERY)
    yield Route("POST", f"{path}/{{id}}/retry", withdrawals.retrying(kind), api_class=ApiClass.ADMIN, enters=True)


ORDERS: list[Route[FundService]] = [
    *[route for kind in Kind for route in _of(kind)],
    Route(
        "POST",
        "/v1/payments/batch",
        orders.post_payments,
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        api_class=ApiClass.BATCH,
        enters=True,
    ),
    Route("POST", "/v1/withdrawals/{id}/paid", withdrawals.paid, api_class=ApiClass.CONFIRM, enters=True),
    Route("POST", "/v1/withdrawals/{id}/bounced", withdrawals.bounced, api_class=ApiClass.CONFIRM, enters=True),
    Route("POST", "/v1/adjustments/{id}/approve", withdrawals.approve, api_class=ApiClass.ADMIN, enters=True),
]
MERCHANTS: list[Route[FundService]] = [
    Route("POST", "/v1/merchants", merchants.create_merchant, api_class=ApiClass.ADMIN),
    Route("GET", "/v1/merchants", merchants.list_merchants, query=("cursor", "limit"), api_class=ApiClass.LIST),
    Route("GET", "/v1/merchants/{id}", merchants.get_merchant, api_class=ApiClass.QUERY, whose=merchants.named),
    Route("POST", "/v1/merchants/{id}/fees", merchants.add_fee, api_class=ApiClass.ADMIN),
]
EVENTS: list[Route[FundService]] = [
    Route("GET", "/v1/events", events.get_events, query=events.QUERY, api_class=ApiClass.NOTIFY, enters=True),
]
SERVICE: list[Route[FundService]] = [
    Route("GET", "/", HOME.get, public=True),
    Route("GET", "/healthz", health.healthz, public=True),
    Route("GET", "/readyz", health.readyz, public=True),
    Route("GET", "/metrics", worker_stats.get_metrics, public=True, cost=1),
    Route(
        "GET",
        "/debug/limits",
        limits.get_limits,
        query=("caller", "class", "merchant", "account"),
        api_class=ApiClass.QUERY,
    ),
    Route("GET", "/openapi.json", openapi.PAGES.get_document, public=True, cost=5),
    Route("GET", "/docs", openapi.PAGES.get_page, public=True, cost=5),
]
ROUTES = [*ORDERS, *MERCHANTS, *statements.ROUTES, *EVENTS, *webhooks.ROUTES, *SERVICE]
