"""OpenAPI operations of both HTTP services that move no money. Public ones are neither limited nor shed."""

from typing import Final

from fundledger.app.http.events import AFTER_MAX, LIMIT_DEFAULT
from fundledger.app.http.openapi.schemas import ID, REF
from fundledger.app.http.openapi.types import Answer, Operation, query_parameter, shown
from fundledger.app.http.wire.reply import JSON
from fundledger.outbox.feed import LIMIT_MAX, WAIT_MAX_S
from fundledger.ratelimit.classes import ApiClass

EVENTS_QUERY: Final = (
    query_parameter(
        "after",
        {"type": "integer", "minimum": 0, "maximum": AFTER_MAX, "default": 0},
        "`next` of the previous page; 0 starts at the first event",
    ),
    query_parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
        "maximum number of events",
    ),
    query_parameter(
        "wait_s",
        {"type": "number", "minimum": 0, "maximum": int(WAIT_MAX_S), "default": 0},
        "seconds to wait for an event if there is none",
    ),
)
"""Query parameters of `GET /v1/events`."""
SERVICE: Final = (
    Operation(
        "GET",
        "/",
        "get_home",
        "Service",
        "Find the documentation",
        "A short page with links if `Accept` contains `text/html`, else the same links as JSON.",
        {
            200: Answer(
                "Links to the documentation.",
                {JSON: {"$ref": REF + "Home"}, "text/html": {"type": "string"}},
            )
        },
        public=True,
    ),
    Operation(
        "GET",
        "/healthz",
        "get_liveness",
        "Service",
        "Check liveness",
        "For process supervisors.",
        {200: shown("Alive", "The process is alive.")},
        public=True,
    ),
    Operation(
        "GET",
        "/readyz",
        "get_readiness",
        "Service",
        "Check readiness",
        "For load balancers.",
        {
            200: shown("Ready", "The worker accepts requests."),
            503: Answer(
                "The worker is stopping, or its database does not answer or takes no writes.",
                headers={"Retry-After": True},
                problems=("draining", "no-database"),
            ),
        },
        public=True,
    ),
    Operation(
        "GET",
        "/metrics",
        "get_metrics",
        "Service",
        "Read metrics for Prometheus",
        "The sum over all workers, including workers that have ended.",
        {
            200: Answer("The Prometheus text format.", {"text/plain": {"type": "string"}}),
            503: Answer("The supervisor does not answer.", headers={"Retry-After": True}, problems=("unavailable",)),
        },
        public=True,
    ),
    Operation(
        "GET",
        "/debug/hotkeys",
        "get_hot_keys",
        "Service",
        "Read the hot keys",
        "The most frequent callers, merchants and accounts of the last second, over all workers.",
        {200: shown("HotKeys", "By kind, the most frequent first.")},
    ),
    Operation(
        "GET",
        "/debug/limits",
        "get_limits",
        "Service",
        "Read the limits that apply to a request",
        "The policies that apply to the described request, and the current use of each. Costs one query.",
        {200: shown("Limits", "The policies, the most general first; none when limits are off.")},
        (
            query_parameter("caller", ID, "a module; default: the caller"),
            query_parameter(
                "class",
                {"type": "string", "enum": [str(c) for c in ApiClass], "default": str(ApiClass.PAYMENT)},
                "class of the request",
            ),
            query_parameter("merchant", ID, "owner of the account"),
            query_parameter("account", ID, "account that the request concerns"),
        ),
    ),
    Operation(
        "GET",
        "/openapi.json",
        "get_openapi",
        "Service",
        "Read the OpenAPI document",
        "OpenAPI 3.1.",
        {200: Answer("The document.", {JSON: {"type": "object"}})},
        public=True,
    ),
    Operation(
        "GET",
        "/docs",
        "get_docs",
        "Service",
        "Read this page",
        "The OpenAPI document as HTML.",
        {200: Answer("The page.", {"text/html": {"type": "string"}})},
        public=True,
    ),
)
