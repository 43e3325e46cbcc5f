"""OpenAPI schemas of the account service: requests derived from their body types, answers as render.py writes them."""

from typing import Final

from fundledger.app.account import bodies
from fundledger.app.account.openapi.events import EVENT_SCHEMAS
from fundledger.app.account.openapi.examples import EXAMPLES
from fundledger.app.account.render import STATUS_NAMES
from fundledger.app.http.openapi.answers import ANSWERS as SHARED_ANSWERS
from fundledger.app.http.openapi.answers import AVAILABLE, BALANCE, HELD, POSTED
from fundledger.app.http.openapi.schemas import (
    ID,
    INSTANT,
    REF,
    UUID,
    Schema,
    amount,
    exactly,
    nullable,
    object_of,
    schemas_of,
)
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.hold import HoldStatus

_BODIES: Final = (
    bodies.AccountBody,
    bodies.VoucherBody,
    bodies.BatchBody,
    bodies.ReverseBody,
    bodies.HoldBody,
    bodies.CaptureBody,
    bodies.FreezeBody,
    bodies.PolicyBody,
    bodies.ReasonBody,
)
# Checks that bodies.py makes with functions instead of types: (schema, member) -> schema of the check.
_CHECKED_BY_FUNCTIONS: Final[dict[tuple[str, str], Schema]] = {
    ("EntryBody", "account"): {**ID, "description": "id of an open account"},
    ("VoucherBody", "id"): {**UUID, "description": "the idempotency key; it never expires"},
    ("VoucherBody", "type"): {"type": "string", "pattern": "^[a-z_]{1,32}$", "description": "defined by the caller"},
    ("ReverseBody", "id"): {**UUID, "description": "id of the reversal, which is itself a voucher"},
    ("AccountBody", "type"): {
        "type": "string",
        "enum": list(CHART),
        "description": "\n".join(f"`{type_.name}`: {type_.meaning}" for type_ in CHART.values()),
    },
    ("HoldBody", "expires_at"): {
        "type": ["string", "null"],
        "format": "date-time",
        "default": None,
        "description": "must be in the future; without it, the hold never expires",
    },
}
_DESCRIPTIONS: Final[dict[tuple[str, str], str]] = {
    ("EntryBody", "side"): "a debit adds to "
    + ", ".join(f"`{type_.name}`" for type_ in CHART.values() if type_.normal < 0)
    + "; a credit adds to all others",
    ("VoucherBody", "reference"): "free text; part of the voucher's content",
    ("ReverseBody", "reference"): "free text; part of the reversal's content",
    ("VoucherBody", "ticket"): "accepted and ignored in this version",
    ("VoucherBody", "entries"): "total debits equal total credits; all accounts are open and have the same currency",
    (
        "BatchBody",
        "atomic",
    ): "true: all vouchers are posted, or none; false or absent: each voucher is decided separately",
    ("AccountBody", "owner"): "the owner of the account; all accounts of one owner are stored together",
    ("AccountBody", "posting"): "`buffered`: credits are `pending` for a moment, and are posted in groups",
    ("PolicyBody", "posting"): "`buffered`: credits are `pending` for a moment, and are posted in groups",
    ("PolicyBody", "reason"): "stored with the change",
    ("FreezeBody", "reason"): "stored with the change",
    ("ReasonBody", "reason"): "stored with the change",
    ("FreezeBody", "scope"): "`debits`: debits are refused; `all`: all entries are refused",
}
REQUEST_SCHEMAS: Final = schemas_of(_BODIES, _CHECKED_BY_FUNCTIONS, _DESCRIPTIONS)
_DATE: Final[Schema] = {"type": "string", "format": "date"}
_PROBLEM: Final[Schema] = {"$ref": REF + "Problem"}
_METADATA: Final[Schema] = {"type": "object", "description": "as it was sent; absent if none was sent"}
_ENTRY: Final[Schema] = {
    "type": "object",
    "properties": {
        "account": ID,
        "side": {"type": "string", "enum": ["credit", "debit"]},
        "amount": {"type": "integer", "minimum": 1, "description": "in minor units"},
    },
    "required": ["account", "side", "amount"],
}


_SCHEMAS: Final[dict[str, Schema]] = {
    "Balance": BALANCE,
    "Account": object_of(
        {
            "id": ID,
            "module": nullable(
                {"type": "string"},
                "the module that opened the account; null if it was opened before modules were recorded",
            ),
            "owner": ID,
            "type": {"type": "string", "enum": list(CHART)},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "status": {"type": "string", "enum": list(dict.fromkeys(STATUS_NAMES.values()))},
            "balance": {"$ref": REF + "Balance"},
            "version": {"type": "integer", "minimum": 0, "description": "increases with every change"},
            "sub_accounts": {
                "type": "integer",
                "minimum": 1,
                "description": "number of sub-accounts that hold the balance",
            },
            "heat": {"type": "string", "enum": ["cold", "warming", "hot", "cooling"]},
            "posting": {"type": "string", "enum": ["direct", "buffered"]},
            "created_at": INSTANT,
        },
        {
            "metadata": _METADATA,
            "frozen_scope": {
                "type": "string",
                "enum": ["all"],
                "description": "present if the account is frozen for credits, too",
            },
        },
    ),
    "Accounts": object_of(
        {
            "accounts": {
                "type": "array",
                "items": {"$ref": REF + "Account"},
                "description": "ordered by id",
            },
            "unverified": {
                "type": "array",
                "items": ID,
                "description": "accounts of this page whose records fail their MAC check; report them to the operator",
            },
            "next_cursor": {
                "type": ["string", "null"],
                "description": "send it as `cursor` for the next page; null on the last page",
            },
        }
    ),
    "BalanceAt": exactly(
        {
            "account": ID,
            "at": nullable(INSTANT, "the requested time; null for the current balance"),
            "posted": POSTED,
            "held": HELD,
            "available": AVAILABLE,
        }
    ),
    "StatementEntry": exactly(
        {
            "seq": {
                "type": "integer",
                "minimum": 1,
                "description": "number of the line in the account, from 1; it never changes. "
                "At level `entries`: number of the entry in its slot",
            },
            "voucher_id": {
                "type": ["string", "null"],
                "format": "uuid",
                "description": "null only for a summary entry",
            },
            "type": {"type": "string", "description": "the type of the voucher, or `summary`"},
            "side": {"type": "string", "enum": ["credit", "debit"]},
            "amount": {"type": "integer", "minimum": 0, "description": "in minor units"},
            "balance_after": amount("the balance of the account, in its normal direction"),
            "posted_at": INSTANT,
            "accounting_date": _DATE,
            "slot": {
                "type": "integer",
                "minimum": 0,
                "description": "the slot of the entry; for a line over several slots, the last one",
            },
            "summary": {
                "type": ["integer", "null"],
                "minimum": 2,
                "description": "number of lines in the summary entry that includes this line; null if there is none",
            },
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "reference": nullable({"type": "string"}, "the reference of the voucher"),
            "counter_account": nullable(ID, "the account on the other side; null if there are several, or none"),
            "counter_accounts": {
                "type": "array",
                "items": ID,
                "description": "all other accounts on the other side of the voucher",
            },
            "order_no": nullable({"type": "string"}, "`order_no` of the voucher's metadata, if present"),
            "kind": nullable({"type": "string"}, "`kind` of the voucher's metadata, if present"),
        }
    ),
    "Statement": object_of(
        {
            "entries": {
                "type": "array",
                "items": {"$ref": REF + "StatementEntry"},
                "description": "oldest first; a page may be short or empty while `next_cursor` is not null",
            },
            "next_cursor": {
                "type": ["string", "null"],
                "description": "send it as `cursor` for the next page; null on the last page",
            },
        }
    ),
    "Entry": _ENTRY,
    "Voucher": object_of(
        {
            "id": UUID,
            "type": {"type": "string", "pattern": "^[a-z_]{1,32}$"},
            "status": {"type": "string", "enum": ["posted", "refused"]},
            "posted_at": {**INSTANT, "description": "time of posting or refusal"},
            "accounting_date": _DATE,
            "module": {"type": "string", "description": "the module that posted it; ids are unique within a module"},
            "entries": {"type": "array", "items": {"$ref": REF + "Entry"}, "minItems": 2, "maxItems": 64},
            "reference": {"type": ["string", "null"]},
        },
        {
            "metadata": _METADATA,
            "hold": {**ID, "description": "the hold that the voucher captured"},
            "reverses": {**UUID, "description": "the voucher that this one reverses"},
            "reversed_by": {**UUID, "description": "the voucher that reversed this one; only in answers to GET"},
            "problem": {**_PROBLEM, "description": "reason of the refusal; only in answers to GET"},
        },
    ),
    "BatchResult": object_of(
        {"id": UUID, "status": {"type": "string", "enum": ["posted", "refused"]}},
        {
            "posted_at": {**INSTANT, "description": "present if the item is posted"},
            "problem": {**_PROBLEM, "description": "present if the item is refused"},
            "replay": {"type": "boolean", "description": "present if the item had been posted before"},
        },
    ),
    "BatchResults": object_of(
        {
            "results": {
                "type": "array",
                "items": {"$ref": REF + "BatchResult"},
                "description": "`results[i]` answers `vouchers[i]`",
            }
        }
    ),
    "Hold": object_of(
        {
            "id": ID,
            "module": {"type": "string", "description": "the module that placed the hold; no other module can end it"},
            "account": ID,
            "amount": {"type": "integer", "minimum": 1, "description": "in minor units"},
            "captured": {"type": "integer", "minimum": 0, "description": "the amount that was captured"},
            "status": {"type": "string", "enum": [status.name.lower() for status in HoldStatus]},
            "created_at": INSTANT,
            "expires_at": nullable(INSTANT, "null if the hold never expires"),
            "ended_at": nullable(INSTANT, "null while the hold is open"),
            "voucher_id": nullable(UUID, "the voucher that captured the hold"),
        },
        {"problem": {**_PROBLEM, "description": "reason of the refusal"}},
    ),
    **SHARED_ANSWERS,
}

ANSWERS: Final[dict[str, Schema]] = {
    name: {**schema, "examples": [EXAMPLES[name]]} if name in EXAMPLES else schema
    for name, schema in {**_SCHEMAS, **EVENT_SCHEMAS}.items()
}
SCHEMAS: Final[dict[str, Schema]] = {**REQUEST_SCHEMAS, **ANSWERS}
