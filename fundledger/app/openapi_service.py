"""The operations of the OpenAPI file that are not money. Those that are public are neither limited nor shed."""

from typing import Final

from fundledger.app.openapi_schemas import ID, REF
from fundledger.app.openapi_types import Answer, Operation, query_parameter, shown
from fundledger.app.reply import JSON
from fundledger.ratelimit.classes import ApiClass

SERVICE: Final = (
    Operation(
        "GET",
        "/",
        "get_home",
        "Service",
        "Find the documentation",
        "A short page with links where `Accept` names `text/html`, else the same links as JSON.",
        {
            200: Answer(
                "Where to go from here.",
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
        "Is this process alive?",
        "For whoever restarts it.",
        {200: shown("Alive", "It is.")},
        public=True,
    ),
    Operation(
        "GET",
        "/readyz",
        "get_readiness",
        "Service",
        "Does it take requests?",
        "For load balancers.",
        {
            200: shown("Ready", "It does."),
            503: Answer(
                "It is stopping, or its database does not answer.",
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
        "Metrics for Prometheus",
        "The sum over all workers, also over those that are gone.",
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
        "Who asks most",
        "The most frequent callers, merchants and accounts of the last second, over all workers.",
        {200: shown("HotKeys", "By kind, the most frequent first.")},
    ),
    Operation(
        "GET",
        "/debug/limits",
        "get_limits",
        "Service",
        "Which limits a request meets",
        "The policies that such a request would meet, and what is used of each at this moment. It costs one query.",
        {200: shown("Limits", "The policies, the most general first; none when limits are off.")},
        (
            query_parameter("caller", ID, "a module; without it: the one that asks"),
            query_parameter(
                "class",
                {"type": "string", "enum": [str(c) for c in ApiClass], "default": str(ApiClass.PAYMENT)},
                "what it is for",
            ),
            query_parameter("merchant", ID, "the owner of the account that it is about"),
            query_parameter("account", ID, "that account"),
        ),
    ),
    Operation(
        "GET",
        "/openapi.json",
        "get_openapi",
        "Service",
        "This description",
        "OpenAPI 3.1.",
        {200: Answer("The file.", {JSON: {"type": "object"}})},
        public=True,
    ),
    Operation(
        "GET",
        "/docs",
        "get_docs",
        "Service",
        "This page",
        "The same description, to be read by people.",
        {200: Answer("The page.", {"text/html": {"type": "string"}})},
        public=True,
    ),
)
