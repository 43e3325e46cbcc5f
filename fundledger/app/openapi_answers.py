"""The schemas of answers in the OpenAPI file: what render.py writes."""

from typing import Any, Final

from fundledger.app.gate import IANA
from fundledger.app.hotkeys import KINDS, SHOWN
from fundledger.app.metrics import MODES
from fundledger.app.openapi_events import EVENT_SCHEMAS
from fundledger.app.openapi_examples import EXAMPLES
from fundledger.app.openapi_schemas import ID, INSTANT, REF, UUID, Schema
from fundledger.app.problems import URN
from fundledger.app.render import STATUS_NAMES
from fundledger.ledger.chart import CHART
from fundledger.ledger.hold import HoldStatus
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.policies import Kind

_DATE: Final[Schema] = {"type": "string", "format": "date"}
_PROBLEM: Final[Schema] = {"$ref": REF + "Problem"}
_METADATA: Final[Schema] = {"type": "object", "description": "as it was sent; absent when none was"}
_ENTRY: Final[Schema] = {
    "type": "object",
    "properties": {
        "account": ID,
        "side": {"type": "string", "enum": ["credit", "debit"]},
        "amount": {"type": "integer", "minimum": 1, "description": "in minor units"},
    },
    "required": ["account", "side", "amount"],
}


def _amount(description: str, **more: Any) -> Schema:
    return {"type": "integer", "format": "int64", "description": description, **more}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        **more,
    }


def _nullable(schema: Schema, description: str) -> Schema:
    return {**schema, "type": [schema["type"], "null"], "description": description}


def _exactly(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    """An object whose amounts may be beyond what a double holds: then each is there as text, too."""
    texts: dict[str, Schema] = {
        f"{name}_text": {"type": "string", "description": f"`{name}`, where it is beyond 2^53 - 1 either way"}
        for name, schema in required.items()
        if schema.get("format") == "int64"
    }
    return _object(required, {**(optional or {}), **texts})


_POSTED = _amount("entries so far, in the account's normal direction, in minor units")
_HELD = _amount("sum of its open holds", minimum=0)
_AVAILABLE = _amount("posted - held")
_RETRY_AFTER_MS: Final[Schema] = {"type": "integer", "minimum": 1000, "description": "as `Retry-After`, in ms"}

_SCHEMAS: Final[dict[str, Schema]] = {
    "Balance": _exactly(
        {
            "posted": _POSTED,
            "held": _HELD,
            "pending": _amount("credits that are accepted and not posted yet", minimum=0),
            "available": _AVAILABLE,
        }
    ),
    "Account": _object(
        {
            "id": ID,
            "module": _nullable({"type": "string"}, "the module that opened it; null: before that was recorded"),
            "owner": ID,
            "type": {"type": "string", "enum": list(CHART)},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "status": {"type": "string", "enum": list(dict.fromkeys(STATUS_NAMES.values()))},
            "balance": {"$ref": REF + "Balance"},
            "version": {"type": "integer", "minimum": 0, "description": "rises with every change"},
            "sub_accounts": {"type": "integer", "minimum": 1, "description": "slices that its balance is kept in"},
            "heat": {"type": "string", "enum": ["cold", "warming", "hot", "cooling"]},
            "posting": {"type": "string", "enum": ["direct", "buffered"]},
            "created_at": INSTANT,
        },
        {
            "metadata": _METADATA,
            "frozen_scope": {
                "type": "string",
                "enum": ["all"],
                "description": "of a frozen account that takes no credits either",
            },
        },
    ),
    "Accounts": _object(
        {
            "accounts": {
                "type": "array",
                "items": {"$ref": REF + "Account"},
                "description": "in the order of their ids",
            },
            "unverified": {
                "type": "array",
                "items": ID,
                "description": "accounts of this page whose records do not match their MACs: tell the operator",
            },
            "next_cursor": {
                "type": ["string", "null"],
                "description": "send it as `cursor` for the next page; null on the last page",
            },
        }
    ),
    "BalanceAt": _exactly(
        {
            "account": ID,
            "at": _nullable(INSTANT, "the moment asked for; null: now"),
            "posted": _POSTED,
            "held": _HELD,
            "available": _AVAILABLE,
        }
    ),
    "StatementEntry": _exactly(
        {
            "seq": {
                "type": "integer",
                "minimum": 1,
                "description": "counts the lines of the account from 1, and never changes; "
                "at level `entries` the entries of one slot",
            },
            "voucher_id": {
                "type": ["string", "null"],
                "format": "uuid",
                "description": "null only of a summary itself",
            },
            "type": {"type": "string", "description": "the voucher's, or `summary`"},
            "side": {"type": "string", "enum": ["credit", "debit"]},
            "amount": {"type": "integer", "minimum": 0, "description": "in minor units"},
            "balance_after": _amount("the account's, in its normal direction"),
            "posted_at": INSTANT,
            "accounting_date": _DATE,
            "slot": {
                "type": "integer",
                "minimum": 0,
                "description": "which slice of the account its entry is on; of a line over several, the last of them",
            },
            "summary": {
                "type": ["integer", "null"],
                "minimum": 2,
                "description": "how many lines the stored entry stands for that this line is one of; else null",
            },
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "reference": _nullable({"type": "string"}, "the voucher's"),
            "counter_account": _nullable(ID, "the account on the other side; null where they are several, or none"),
            "counter_accounts": {
                "type": "array",
                "items": ID,
                "description": "all other accounts on the other side of the voucher",
            },
            "order_no": _nullable({"type": "string"}, "`order_no` of the voucher's metadata, if that has one"),
            "kind": _nullable({"type": "string"}, "`kind` of the voucher's metadata, if that has one"),
        }
    ),
    "Statement": _object(
        {
            "entries": {
                "type": "array",
                "items": {"$ref": REF + "StatementEntry"},
                "description": "newest last; a page may be short, or empty, although `next_cursor` is not null",
            },
            "next_cursor": {
                "type": ["string", "null"],
                "description": "send it as `cursor` for the next page; null on the last page",
            },
        }
    ),
    "Entry": _ENTRY,
    "Voucher": _object(
        {
            "id": UUID,
            "type": {"type": "string", "pattern": "^[a-z_]{1,32}$"},
            "status": {"type": "string", "enum": ["posted", "refused"]},
            "posted_at": {**INSTANT, "description": "when it was posted, or refused"},
            "accounting_date": _DATE,
            "module": {"type": "string", "description": "the module that posted it: its ids are its own"},
            "entries": {"type": "array", "items": {"$ref": REF + "Entry"}, "minItems": 2, "maxItems": 64},
            "reference": {"type": ["string", "null"]},
        },
        {
            "metadata": _METADATA,
            "hold": {**ID, "description": "the hold that it captured"},
            "reverses": {**UUID, "description": "the voucher that it undoes"},
            "reversed_by": {**UUID, "description": "the voucher that undid it; shown by GET only"},
            "problem": {**_PROBLEM, "description": "why it was refused; shown by GET only"},
        },
    ),
    "BatchResult": _object(
        {"id": UUID, "status": {"type": "string", "enum": ["posted", "refused"]}},
        {
            "posted_at": {**INSTANT, "description": "of a posted item"},
            "problem": {**_PROBLEM, "description": "of a refused item"},
            "replay": {"type": "boolean", "description": "of an item that had been posted before"},
        },
    ),
    "BatchResults": _object(
        {
            "results": {
                "type": "array",
                "items": {"$ref": REF + "BatchResult"},
                "description": "`results[i]` answers `vouchers[i]`",
            }
        }
    ),
    "Hold": _object(
        {
            "id": ID,
            "module": {"type": "string", "description": "the module that placed it, and alone may end it"},
            "account": ID,
            "amount": {"type": "integer", "minimum": 1, "description": "in minor units"},
            "captured": {"type": "integer", "minimum": 0, "description": "what its capture took of it"},
            "status": {"type": "string", "enum": [status.name.lower() for status in HoldStatus]},
            "created_at": INSTANT,
            "expires_at": _nullable(INSTANT, "null: never"),
            "ended_at": _nullable(INSTANT, "null while it is open"),
            "voucher_id": _nullable(UUID, "the voucher that captured it"),
        },
        {"problem": {**_PROBLEM, "description": "why it was refused"}},
    ),
    "HotKey": _object(
        {
            "id": {"type": "string", "description": "whom it is, as requests name it"},
            "rate": {"type": "number", "minimum": 0, "description": "requests per second"},
            "share": {"type": "number", "minimum": 0, "maximum": 1, "description": "of all requests with such a key"},
        }
    ),
    "HotKeys": _object(
        {
            "kinds": _object(
                {kind: {"type": "array", "items": {"$ref": REF + "HotKey"}, "maxItems": SHOWN} for kind in KINDS}
            ),
            "window_s": {"type": "number", "description": "over how many seconds rates are taken"},
        }
    ),
    "Limit": _object(
        {
            "policy": {"type": "string", "description": "its name"},
            "key": {"type": "string", "enum": [str(kind) for kind in Kind], "description": "whose bucket it is"},
            "of": {"type": "string", "description": "who that is here; empty: of all together"},
            "rate": {"type": "number", "minimum": 0, "description": "a second"},
            "limit": {"type": "integer", "minimum": 1, "description": "at once: the burst"},
            "used": {"type": "integer", "minimum": 0, "description": "missing from the burst now"},
            "reset_ms": {"type": "integer", "minimum": 0, "description": "until nothing is missing"},
            "mode": {"type": "string", "enum": ["leased", "strict"]},
            "shadow": {"type": "boolean", "description": "true: it refuses nothing"},
            "source": {"type": "string", "enum": ["store", "fallback"], "description": "who says so"},
            "held_here": {"type": "integer", "description": "tokens that the worker that answers holds"},
        }
    ),
    "Limits": _object(
        {
            "mode": {"type": "string", "enum": list(MODES)},
            "version": {"type": "string", "description": "of the policies: the file's number, a digest of its content"},
            "policies": {"type": "array", "items": {"$ref": REF + "Limit"}, "description": "the most general first"},
        },
        {
            "class": {"type": "string", "enum": [str(api_class) for api_class in ApiClass]},
            "caller": {"type": "string"},
        },
    ),
    "QuotaExceeded": _object(
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
    "ReducedCapacity": _object(
        {
            "type": {"type": "string", "enum": [IANA + "temporary-reduced-capacity"]},
            "title": {"type": "string"},
            "status": {"type": "integer", "enum": [503]},
            "detail": {"type": "string"},
            "retry_after_ms": _RETRY_AFTER_MS,
        },
        description="RFC 9457, with the type that IANA registers for too little capacity.",
    ),
    "Home": _object({"service": {"type": "string"}, "links": {"type": "array", "items": {"type": "string"}}}),
    "Alive": _object({"status": {"type": "string", "enum": ["alive"]}}),
    "Ready": _object({"status": {"type": "string", "enum": ["ready"]}}),
    "Problem": _object(
        {
            "type": {"type": "string", "pattern": f"^{URN}[a-z-]+$", "description": "one of those listed below"},
            "title": {"type": "string", "description": "the same for every problem of a type"},
            "status": {"type": "integer", "description": "the HTTP status of this type"},
            "detail": {"type": "string", "description": "what is the matter this time; never another owner's balance"},
        },
        {
            "account": {**ID, "description": "the account that is concerned"},
            "field": {"type": "string", "description": "the member or parameter that is concerned"},
            "request_id": {"type": "string", "description": "the `Request-Id` of this answer"},
            "documentation": {"type": "string", "description": "where `/docs` explains this type: a path of this host"},
        },
        description="RFC 9457. More members may come with later versions.",
    ),
}

ANSWERS: Final[dict[str, Schema]] = {
    name: {**schema, "examples": [EXAMPLES[name]]} if name in EXAMPLES else schema
    for name, schema in {**_SCHEMAS, **EVENT_SCHEMAS}.items()
}
