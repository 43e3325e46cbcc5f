"""OpenAPI schemas of the account service's events, and the operation that reads them."""

from typing import Final

from fundledger.app.account.openapi.examples import VOUCHER
from fundledger.app.http.events import AFTER_MAX
from fundledger.app.http.openapi.operations import EVENTS_QUERY
from fundledger.app.http.openapi.schemas import INSTANT, REF, UUID, Schema
from fundledger.app.http.openapi.types import Operation, shown

_SEQ: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": AFTER_MAX}
EVENT_SCHEMAS: Final[dict[str, Schema]] = {
    "Event": {
        "type": "object",
        "properties": {
            "seq": {**_SEQ, "description": "position of the event in the feed; with gaps"},
            "id": {**UUID, "description": "id of the voucher; use it to detect duplicates"},
            "type": {"type": "string", "enum": ["voucher.posted", "voucher.refused", "voucher.unverified"]},
            "module": {
                "type": ["string", "null"],
                "description": "the module that posted it; ids are unique within a module",
            },
            "at": INSTANT,
            "voucher": {"$ref": REF + "Voucher"},
            "integrity": {
                "type": "boolean",
                "const": False,
                "description": "present if the record does not match its MAC; its content is then withheld",
            },
        },
        "required": ["seq", "id", "type", "at"],
    },
    "Events": {
        "type": "object",
        "properties": {
            "events": {"type": "array", "items": {"$ref": REF + "Event"}, "description": "ordered by `seq`"},
            "next": {**_SEQ, "description": "send it as `after` for the next page, also if this page is empty"},
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
        "List events",
        "Returns every posted or refused voucher after it is durable: at least once, and in order for each account. "
        "Store `next` and send it as `after` to continue: no event is skipped, however much later.",
        {200: shown("Events", "The next events. Empty if there was none within `wait_s`.")},
        EVENTS_QUERY,
    ),
)
