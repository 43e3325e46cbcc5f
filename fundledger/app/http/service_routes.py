"""Routes that both HTTP services have (health, metrics, limits, documentation), and examples of their answers."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from fundledger.app.http import health, worker_stats
from fundledger.app.http.admission.debug_limits import Class, Limit, Limits
from fundledger.app.http.home_page import LINKS, Home, home
from fundledger.app.http.metrics.hot_keys import HotKey, HotKeyKinds, HotKeys
from fundledger.app.http.openapi.document import Pages
from fundledger.app.http.openapi.types import SERVICE_TAG, Answer, query, shown
from fundledger.app.http.problems import IANA, QuotaExceeded, ReducedCapacity
from fundledger.app.http.routing import Call, Route
from fundledger.app.http.wire.reply import JSON, Reply
from fundledger.app.http.worker import Worker
from fundledger.json_values import Id
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.policies import Kind

W = TypeVar("W", bound=Worker)
HOT_KEYS: Final[Route[Worker]] = Route(
    "GET",
    "/debug/hotkeys",
    worker_stats.get_hot_keys,
    ApiClass.QUERY,
    "get_hot_keys",
    SERVICE_TAG,
    "Read the hot keys",
    "The most frequent callers, merchants and accounts of the last second, over all workers.",
    {200: shown(HotKeys, "By kind, the most frequent first.")},
)


def service_routes(pages: Pages, get_limits: Callable[[W, Call], Awaitable[Reply]]) -> list[Route[W]]:
    """Return, for one service, the routes that both services have.

    `pages`: the OpenAPI document of the service, and the HTML page of that document.
    """
    return [
        Route(
            "GET",
            "/",
            home(pages.about.title),
            None,
            "get_home",
            SERVICE_TAG,
            "Find the documentation",
            "A short page with links if `Accept` contains `text/html`, else the same links as JSON.",
            {200: Answer("Links to the documentation.", {JSON: Home, "text/html": str})},
        ),
        Route(
            "GET",
            "/healthz",
            health.healthz,
            None,
            "get_liveness",
            SERVICE_TAG,
            "Check liveness",
            "For process supervisors.",
            {200: shown(health.Alive, "The process is alive.")},
        ),
        Route(
            "GET",
            "/readyz",
            health.readyz,
            None,
            "get_readiness",
            SERVICE_TAG,
            "Check readiness",
            "For load balancers.",
            {
                200: shown(health.Ready, "The worker accepts requests."),
                503: Answer(
                    "The worker is stopping, or its database does not answer or takes no writes.",
                    headers={"Retry-After": True},
                    problems=("draining", "no-database"),
                ),
            },
        ),
        Route(
            "GET",
            "/metrics",
            worker_stats.get_metrics,
            None,
            "get_metrics",
            SERVICE_TAG,
            "Read metrics for Prometheus",
            "The sum over all workers, including workers that have ended.",
            {
                200: Answer("The Prometheus text format.", {"text/plain": str}),
                503: Answer(
                    "The supervisor does not answer.", headers={"Retry-After": True}, problems=("unavailable",)
                ),
            },
            cost=1,
        ),
        Route(
            "GET",
            "/debug/limits",
            get_limits,
            ApiClass.QUERY,
            "get_limits",
            SERVICE_TAG,
            "Read the limits that apply to a request",
            "The policies that apply to the described request, and the current use of each. Costs one query.",
            {200: shown(Limits, "The policies, the most general first; none when limits are off.")},
            (
                query("caller", Id, "a module; default: the caller"),
                query("class", Class, "class of the request", ApiClass.PAYMENT),
                query("merchant", Id, "owner of the account"),
                query("account", Id, "account that the request concerns"),
            ),
        ),
        Route(
            "GET",
            "/openapi.json",
            pages.get_document,
            None,
            "get_openapi",
            SERVICE_TAG,
            "Read the OpenAPI document",
            "OpenAPI 3.1.",
            {200: Answer("The document.", {JSON: dict})},
            cost=5,
        ),
        Route(
            "GET",
            "/docs",
            pages.get_page,
            None,
            "get_docs",
            SERVICE_TAG,
            "Read this page",
            "The OpenAPI document as HTML.",
            {200: Answer("The page.", {"text/html": str})},
            cost=5,
        ),
    ]


_ACCOUNT: Final = "merchant:10001:available"
_MERCHANT: Final = "merchant:10001"
HOT_KEYS_EXAMPLE: Final = HotKeys(
    HotKeyKinds(
        [HotKey("gateway", 812.0, 0.406)],
        [HotKey(_MERCHANT, 640.0, 0.32)],
        [HotKey(_ACCOUNT, 640.0, 0.16)],
    ),
    1.0,
)
SERVICE_EXAMPLES: Final = (
    Limits(
        mode="normal",
        version="1.4f1ab0c3",
        class_=ApiClass.PAYMENT,
        caller="gateway",
        policies=[
            Limit(
                policy="merchant",
                key=Kind.MERCHANT,
                of=_MERCHANT,
                rate=100000.0,
                limit=100000,
                used=640,
                reset_ms=6,
                mode="leased",
                shadow=False,
                source="store",
                held_here=1250,
            )
        ],
    ),
    QuotaExceeded(
        IANA + "quota-exceeded",
        "Too many requests",
        429,
        "the quota of the policy merchant is used up; nothing was done, send the same request later",
        ["merchant"],
        1000,
    ),
    ReducedCapacity(
        IANA + "temporary-reduced-capacity",
        "Service temporarily unavailable",
        503,
        "the service is overloaded; nothing was done, the same request may be sent again",
        2000,
    ),
    Home("fundledger account service", list(LINKS)),
    health.Alive("alive"),
    health.Ready("ready"),
)
