"""The route table of the account service: handler, class and limits of each route."""

from fundledger.app.account import accounts, holds, vouchers
from fundledger.app.account.openapi import document as openapi
from fundledger.app.account.service import Service
from fundledger.app.http import events, health, worker_stats
from fundledger.app.http.admission import debug_limits
from fundledger.app.http.home_page import Home
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX, Route
from fundledger.ratelimit.classes import ApiClass

HOME = Home("fundledger account service")
STATEMENT = ("limit", "cursor", "from", "to", "level")
ROUTES: list[Route[Service]] = [
    Route("POST", "/v1/accounts", accounts.open_account, api_class=ApiClass.PAYMENT),
    Route("GET", "/v1/accounts", accounts.list_accounts, query=accounts.LIST, api_class=ApiClass.LIST),
    Route("GET", "/v1/accounts/{id}", accounts.get_account, api_class=ApiClass.QUERY, whose=accounts.whose),
    Route(
        "GET",
        "/v1/accounts/{id}/entries",
        accounts.get_entries,
        query=STATEMENT,
        api_class=ApiClass.LIST,
        whose=accounts.whose,
    ),
    Route(
        "GET",
        "/v1/accounts/{id}/balance",
        accounts.get_balance,
        query=("at",),
        api_class=ApiClass.QUERY,
        whose=accounts.whose,
    ),
    # A freeze is as urgent as a withdrawal. It charges no account, so it is admitted while the rate-limit store is
    # unavailable, and after the quota of the account is exhausted.
    Route("POST", "/v1/accounts/{id}/freeze", accounts.freeze, api_class=ApiClass.WITHDRAW),
    Route("POST", "/v1/accounts/{id}/unfreeze", accounts.unfreeze, api_class=ApiClass.ADMIN, whose=accounts.whose),
    Route("POST", "/v1/accounts/{id}/close", accounts.close, api_class=ApiClass.ADMIN, whose=accounts.whose),
    Route("POST", "/v1/accounts/{id}/policy", accounts.set_policy, api_class=ApiClass.ADMIN, whose=accounts.whose),
    Route("POST", "/v1/vouchers", vouchers.post_one, api_class=ApiClass.PAYMENT, enters=True, by_body=True),
    Route(
        "POST",
        "/v1/vouchers/batch",
        vouchers.post_batch,
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        api_class=ApiClass.BATCH,
        enters=True,
    ),
    Route("GET", "/v1/vouchers/{id}", vouchers.get_voucher, api_class=ApiClass.QUERY),
    Route("POST", "/v1/vouchers/{id}/reverse", vouchers.reverse_voucher, api_class=ApiClass.REFUND, enters=True),
    Route("POST", "/v1/holds", holds.place_hold, api_class=ApiClass.PAYMENT, enters=True),
    Route("GET", "/v1/holds/{id}", holds.get_hold, api_class=ApiClass.QUERY),
    Route("POST", "/v1/holds/{id}/capture", holds.capture_hold, api_class=ApiClass.CONFIRM, enters=True),
    Route("POST", "/v1/holds/{id}/release", holds.release_hold, api_class=ApiClass.CONFIRM, enters=True),
    Route("GET", "/v1/events", events.get_events, query=events.QUERY, api_class=ApiClass.NOTIFY, enters=True),
    Route("GET", "/", HOME.get, public=True),
    Route("GET", "/healthz", health.healthz, public=True),
    Route("GET", "/readyz", health.readyz, public=True),
    Route("GET", "/metrics", worker_stats.get_metrics, public=True, cost=1),
    Route("GET", "/debug/hotkeys", worker_stats.get_hot_keys, api_class=ApiClass.QUERY),
    Route(
        "GET",
        "/debug/limits",
        debug_limits.get_limits,
        query=("caller", "class", "merchant", "account"),
        api_class=ApiClass.QUERY,
    ),
    Route("GET", "/openapi.json", openapi.PAGES.get_document, public=True, cost=5),
    Route("GET", "/docs", openapi.PAGES.get_page, public=True, cost=5),
]
