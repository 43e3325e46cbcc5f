"""What the OpenAPI file says of events."""

from typing import Final

from fundledger.app.openapi_schemas import INSTANT, REF, UUID, Schema
from fundledger.app.openapi_types import VOUCHER, Operation, query_parameter, shown
from fundledger.outbox.feed import LIMIT_MAX, WAIT_MAX_S

_SEQ: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": (1 << 53) - 1}
READING: Final = (
    query_parameter("after", {**_SEQ, "default": 0}, "the `next` of the page before; 0: from the beginning"),
    query_parameter("limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": 100}, "events at most"),
    query_parameter(
        "wait_s",
        {"type": "number", "minimum": 0, "maximum": int(WAIT_MAX_S), "default": 0},
        "how long (s) to wait for one when there is none",
    ),
)
"""The parameters of either service."""

EVENT_SCHEMAS: Final[dict[str, Schema]] = {
    "Event": {
        "type": "object",
        "properties": {
            "seq": {**_SEQ, "description": "orders all events; with gaps"},
            "id": {**UUID, "description": "the voucher's: who gets it twice knows by that"},
            "type": {"type": "string", "enum": ["voucher.posted", "voucher.refused", "voucher.unverified"]},
            "module": {"type": ["string", "null"], "description": "the module that posted it: its ids are its own"},
            "at": INSTANT,
            "voucher": {"$ref": REF + "Voucher"},
            "integrity": {
                "type": "boolean",
                "const": False,
                "description": "the record does not match its MAC, so its content is not shown; else absent",
            },
        },
        "required": ["seq", "id", "type", "at"],
    },
    "Events": {
        "type": "object",
        "properties": {
            "events": {"type": "array", "items": {"$ref": REF + "Event"}, "description": "in order"},
            "next": {**_SEQ, "description": "send it as `after` for the next page, also when this one is empty"},
        },
        "required": ["events", "next"],
        "examples": [
            {
                "events": [
                    {
                        "seq": 16385,
                        "id": VOUCHER,
                        "type": "voucher.posted",
                        "module": "dev",
                        "at": "2026-01-01T00:00:00.000000Z",
                        "voucher": {
                            "id": VOUCHER,
                            "type": "pay",
                            "status": "posted",
                            "posted_at": "2026-01-01T00:00:00.000000Z",
                            "accounting_date": "2026-01-01",
                            "module": "dev",
                            "entries": [
                                {"account": "bank:icbc", "side": "debit", "amount": 10000},
                                {"account": "merchant:10001:available", "side": "credit", "amount": 10000},
                            ],
                            "reference": None,
                        },
                    }
                ],
                "next": 16385,
            }
        ],
    },
}

EVENTS: Final = (
    Operation(
        "GET",
        "/v1/events",
        "list_events",
        "Events",
        "What happened",
        "Every voucher that was posted or refused, once it is durable: at least once, and in order for each account. "
        "Keep `next`, and go on with it whenever you come back: nothing is left out meanwhile.",
        {200: shown("Events", "The next events; none when nothing happened while it waited.")},
        READING,
    ),
)
