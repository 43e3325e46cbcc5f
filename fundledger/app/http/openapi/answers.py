"""OpenAPI schemas of answers that both HTTP services give: balances, problems, limits, hot keys, health."""

from typing import Any, Final

from fundledger.app.http.admission.controller import IANA
from fundledger.app.http.admission.hot_keys import KINDS, SHOWN
from fundledger.app.http.metrics.counters import MODES
from fundledger.app.http.openapi.schemas import ID, REF, Schema, amount, exactly, object_of
from fundledger.app.http.problems import URN
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.policies import Kind

POSTED: Final = amount("sum of posted entries, in the account's normal direction, in minor units")
HELD: Final = amount("sum of open holds", minimum=0)
AVAILABLE: Final = amount("posted - held")
BALANCE: Final[Schema] = exactly(
    {
        "posted": POSTED,
        "held": HELD,
        "pending": amount("credits that are accepted but not posted yet", minimum=0),
        "available": AVAILABLE,
    }
)
_RETRY_AFTER_MS: Final[Schema] = {"type": "integer", "minimum": 1000, "description": "`Retry-After` in milliseconds"}
_ACCOUNT: Final = "merchant:10001:available"
_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "HotKeys": {
        "kinds": {
            "caller": [{"id": "gateway", "rate": 812.0, "share": 0.406}],
            "merchant": [{"id": "merchant:10001", "rate": 640.0, "share": 0.32}],
            "account": [{"id": _ACCOUNT, "rate": 640.0, "share": 0.16}],
        },
        "window_s": 1.0,
    },
    "Limits": {
        "mode": "normal",
        "version": "1.4f1ab0c3",
        "class": "payment",
        "caller": "gateway",
        "policies": [
            {
                "policy": "merchant",
                "key": "merchant",
                "of": "merchant:10001",
                "rate": 100000.0,
                "limit": 100000,
                "used": 640,
                "reset_ms": 6,
                "mode": "leased",
                "shadow": False,
                "source": "store",
                "held_here": 1250,
            }
        ],
    },
    "QuotaExceeded": {
        "type": IANA + "quota-exceeded",
        "title": "Too many requests",
        "status": 429,
        "detail": "the quota of the policy merchant is used up; nothing was done, send the same request later",
        "violated-policies": ["merchant"],
        "retry_after_ms": 1000,
    },
    "ReducedCapacity": {
        "type": IANA + "temporary-reduced-capacity",
        "title": "Service temporarily unavailable",
        "status": 503,
        "detail": "the service is overloaded; nothing was done, the same request may be sent again",
        "retry_after_ms": 2000,
    },
    "Home": {"service": "fundledger account service", "links": ["/docs", "/openapi.json", "/metrics", "/readyz"]},
    "Alive": {"status": "alive"},
    "Ready": {"status": "ready"},
}
_SCHEMAS: Final[dict[str, Schema]] = {
    "HotKey": object_of(
        {
            "id": {"type": "string", "description": "the caller, merchant or account, as requests name it"},
            "rate": {"type": "number", "minimum": 0, "description": "requests per second"},
            "share": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "description": "share of all requests with a key of this kind",
            },
        }
    ),
    "HotKeys": object_of(
        {
            "kinds": object_of(
                {kind: {"type": "array", "items": {"$ref": REF + "HotKey"}, "maxItems": SHOWN} for kind in KINDS}
            ),
            "window_s": {"type": "number", "description": "period over which rates are measured, in seconds"},
        }
    ),
    "Limit": object_of(
        {
            "policy": {"type": "string", "description": "name of the policy"},
            "key": {"type": "string", "enum": [str(kind) for kind in Kind], "description": "kind of the bucket's key"},
            "of": {"type": "string", "description": "key of the bucket; empty: one bucket for all requests"},
            "rate": {"type": "number", "minimum": 0, "description": "tokens per second"},
            "limit": {"type": "integer", "minimum": 1, "description": "the burst, in tokens"},
            "used": {"type": "integer", "minimum": 0, "description": "tokens missing from the burst"},
            "reset_ms": {"type": "integer", "minimum": 0, "description": "time until the burst is full"},
            "mode": {"type": "string", "enum": ["leased", "strict"]},
            "shadow": {"type": "boolean", "description": "true: the policy rejects nothing"},
            "source": {
                "type": "string",
                "enum": ["store", "fallback"],
                "description": "source of `used`: the store, or this worker",
            },
            "held_here": {"type": "integer", "description": "tokens that the answering worker holds"},
        }
    ),
    "Limits": object_of(
        {
            "mode": {"type": "string", "enum": list(MODES)},
            "version": {
                "type": "string",
                "description": "version of the policies: the file's number and a digest of it",
            },
            "policies": {"type": "array", "items": {"$ref": REF + "Limit"}, "description": "the most general first"},
        },
        {
            "class": {"type": "string", "enum": [str(api_class) for api_class in ApiClass]},
            "caller": {"type": "string"},
        },
    ),
    "QuotaExceeded": object_of(
        {
            "type": {"type": "string", "enum": [IANA + "quota-exceeded"]},
            "title": {"type": "string"},
            "status": {"type": "integer", "enum": [429]},
            "detail": {"type": "string"},
            "violated-policies": {
                "type": "array",
                "items": {"type": "string"},
                "description": "names, see `/debug/limits`",
            },
            "retry_after_ms": _RETRY_AFTER_MS,
        },
        description="RFC 9457, with the type that IANA registers for a quota.",
    ),
    "ReducedCapacity": object_of(
        {
            "type": {"type": "string", "enum": [IANA + "temporary-reduced-capacity"]},
            "title": {"type": "string"},
            "status": {"type": "integer", "enum": [503]},
            "detail": {"type": "string"},
            "retry_after_ms": _RETRY_AFTER_MS,
        },
        description="RFC 9457, with the type that IANA registers for reduced capacity.",
    ),
    "Home": object_of({"service": {"type": "string"}, "links": {"type": "array", "items": {"type": "string"}}}),
    "Alive": object_of({"status": {"type": "string", "enum": ["alive"]}}),
    "Ready": object_of({"status": {"type": "string", "enum": ["ready"]}}),
    "Problem": object_of(
        {
            "type": {"type": "string", "pattern": f"^{URN}[a-z-]+$", "description": "a type listed below"},
            "title": {"type": "string", "description": "the same for every problem of a type"},
            "status": {"type": "integer", "description": "the HTTP status of this type"},
            "detail": {"type": "string", "description": "the reason in this case; never another owner's balance"},
        },
        {
            "account": {**ID, "description": "the account concerned"},
            "field": {"type": "string", "description": "the member or parameter concerned"},
            "request_id": {"type": "string", "description": "the `Request-Id` of this answer"},
            "documentation": {"type": "string", "description": "path on this host where `/docs` explains the type"},
        },
        description="RFC 9457. Later versions may add members.",
    ),
}
ANSWERS: Final[dict[str, Schema]] = {
    name: {**schema, "examples": [_EXAMPLES[name]]} if name in _EXAMPLES else schema
    for name, schema in _SCHEMAS.items()
}
