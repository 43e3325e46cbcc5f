"""The schemas of the fund service's OpenAPI file: requests from the types that decode them, answers as render.py writes
them.
"""

from typing import Any, Final, get_args

import msgspec

from fundledger.app.fund import bodies
from fundledger.app.openapi_answers import ANSWERS
from fundledger.app.openapi_schemas import INSTANT, REF, UUID, Schema, schemas_of, with_enums_inlined
from fundledger.app.problems import URN
from fundledger.fund.bank_statements import StatementReport, StatementRequest
from fundledger.fund.order import Kind, State
from fundledger.fund.requests import AMOUNT_MAX, REQUESTS, Calendar, MerchantRequest

ORDER_ID: Final = "e7a4c3e6-2a63-8d53-94dd-28fb4eb9a3ba"
_BODIES: Final[tuple[type[msgspec.Struct], ...]] = (
    *REQUESTS.values(),
    MerchantRequest,
    bodies.PaymentsBody,
    bodies.PaidBody,
    bodies.BouncedBody,
    bodies.ApproveBody,
    bodies.RetryBody,
    bodies.FeeRuleBody,
    bodies.WebhookBody,
    bodies.DisableBody,
    bodies.RedeliverBody,
    StatementRequest,
)
_DESCRIPTIONS: Final = {
    **{(type_.__name__, "ticket"): "taken, not looked at in this version" for type_ in REQUESTS.values()},
    ("WebhookBody", "url"): "https, to the public internet; of the dev profile any http(s)",
    ("WebhookBody", "events"): "types of events, `KIND.STATE`, such as `payment.posted`; left out: all",
    ("DisableBody", "reason"): "kept with the endpoint",
    ("RedeliverBody", "seqs"): "of events that were given up; left out: all of them",
}
REQUEST_SCHEMAS: Final = schemas_of(_BODIES, {}, _DESCRIPTIONS)
MERCHANT_ID: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}
ORDER_NO: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9:_./-]{1,64}$"}
STATE: Final[Schema] = {"type": "string", "enum": [str(state) for state in State]}
_CURSOR: Final[Schema] = {
    "type": ["string", "null"],
    "description": "send it as `cursor` for the next page; null on the last page",
}
_AMOUNT: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 1, "maximum": AMOUNT_MAX}
_PART: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 0}
_FEE: Final[dict[str, Schema]] = {
    "basis_points": {"type": "integer", "minimum": 0, "maximum": 10000, "description": "hundredths of a percent"},
    "fixed": _PART,
    "minimum": _PART,
    "maximum": {**_PART, "type": ["integer", "null"]},
}


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None, **more: Any) -> Schema:
    return {"type": "object", "properties": {**required, **(optional or {})}, "required": list(required), **more}


def _list_of(schema: str, description: str = "") -> Schema:
    found: Schema = {"type": "array", "items": {"$ref": REF + schema}}
    return {**found, "description": description} if description else found


LEFT_OUT: Final[dict[str, Schema]] = {
    "unverified": _list_of(
        "Unverified", "what is left out of the page because it does not match its MAC; absent without such"
    )
}
_PROBLEM: Final[Schema] = ANSWERS["Problem"]
_WEBHOOK: Final[dict[str, Schema]] = {
    "id": UUID,
    "merchant": MERCHANT_ID,
    "url": {"type": "string"},
    "events": {"type": ["array", "null"], "items": {"type": "string"}, "description": "the types; null: all"},
    "created_at": INSTANT,
    "disabled_at": {**INSTANT, "type": ["string", "null"], "description": "nothing is sent there since"},
    "disabled_why": {"type": ["string", "null"]},
}
_SECRET: Final[Schema] = {
    "type": "string",
    "pattern": "^whsec_[A-Za-z0-9+/]{43}=$",
    "description": "what signs: the base64 after `whsec_`. Shown this once",
}
_SEQ: Final[Schema] = {"type": "integer", "minimum": 1}
_WEBHOOKS: Final[dict[str, Schema]] = {
    "Webhook": _object(_WEBHOOK),
    "WebhookWithSecret": _object({**_WEBHOOK, "secret": _SECRET}),
    "Webhooks": _object({"webhooks": _list_of("Webhook", "oldest first, disabled ones too, 1,000 at most")}, LEFT_OUT),
    "DeadEvent": _object(
        {
            "seq": _SEQ,
            "event": {"type": "object", "description": "as it was sent"},
            "attempts": {"type": "integer", "minimum": 0},
            "ended_at": INSTANT,
            "last_status": {"type": ["integer", "null"], "description": "null: there was no answer"},
            "last_error": {"type": ["string", "null"]},
        }
    ),
    "DeadEvents": _object(
        {
            "dead": _list_of("DeadEvent", "in order"),
            "next": {
                "type": ["integer", "null"],
                "description": "send it as `after` for the next page; null: the last",
            },
        }
    ),
    "Redelivered": _object({"redelivered": {"type": "integer", "minimum": 0, "description": "how many events"}}),
}
_SCHEMAS: Final[dict[str, Schema]] = {
    "Order": _object(
        {
            "id": {**UUID, "description": "made of kind, merchant and number"},
            "kind": {"type": "string", "enum": [str(kind) for kind in Kind]},
            "merchant": {**MERCHANT_ID, "description": "`platform` of an order that is no merchant's"},
            "order_no": ORDER_NO,
            "state": STATE,
            "amount": _AMOUNT,
            "fee": {**_PART, "description": "charged, or given back"},
            "net": {"type": "integer", "description": "by how much the merchant's balance moves in all"},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "voucher_id": {**UUID, "description": "of its voucher in the account service"},
            "channel": {"type": ["string", "null"]},
            "created_at": INSTANT,
        },
        {
            "posted_at": INSTANT,
            "problem": {"$ref": REF + "Problem", "description": "why the account service refused it"},
            "channel_ref": {"type": "string"},
            "settle": {"type": "string", "enum": ["now", "later"]},
            "of_order": {**UUID, "description": "the order that it is about"},
            "from_pending": {**_AMOUNT, "description": "of a refund: what comes from money that was not settled yet"},
            "to_receivable": {**_AMOUNT, "description": "of a chargeback: what the merchant had not, and owes"},
            "direction": {"type": "string", "enum": ["credit", "debit", "more", "less"]},
            "reason": {"type": "string"},
            "approved_by": {"type": "string", "description": "a module, or module/person"},
            "reversed_by": {**UUID, "description": "the order that undid it"},
            "ending": {
                "type": "string",
                "enum": ["paid", "bounced"],
                "description": "how it ends; its state, when that is certain",
            },
        },
    ),
    "Orders": _object({"orders": _list_of("Order", "oldest first"), "next_cursor": _CURSOR}, LEFT_OUT),
    "Unverified": _object({"id": {"type": "string"}, "problem": {"$ref": REF + "Problem"}}),
    "Step": _object({"state": STATE, "at": INSTANT}, {"detail": {"description": "what was told of it"}}),
    "History": _object({"id": UUID, "history": _list_of("Step", "oldest first")}),
    "PaymentResult": _object(
        {"order_no": ORDER_NO, "state": STATE},
        {
            "id": UUID,
            "replay": {"type": "boolean", "description": "it had been asked for before: the state is as it stands"},
            "problem": {"$ref": REF + "Problem", "description": "of a refused one; without `id` nothing is kept"},
        },
    ),
    "PaymentResults": _object({"results": _list_of("PaymentResult", "`results[i]` answers `payments[i]`")}),
    "FeeNow": _object(_FEE),
    "FeeTierShown": _object({"from_amount": _AMOUNT, "basis_points": _FEE["basis_points"], "fixed": _PART}),
    "FeeRule": _object(
        {
            "version": {"type": "integer", "minimum": 1},
            "merchant": {"type": ["string", "null"], "description": "null: of all"},
            "product": {"type": "string", "enum": ["payment", "withdrawal"]},
            "channel": {"type": ["string", "null"], "description": "null: of all"},
            **_FEE,
            "tiers": _list_of("FeeTierShown"),
            "effective_at": INSTANT,
        }
    ),
    "Merchant": _object(
        {
            "id": MERCHANT_ID,
            "name": {"type": "string"},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "withdrawal_limit": {**_PART, "type": ["integer", "null"], "description": "of a day (UTC); null: none"},
            "settlement": {
                "type": "string",
                "enum": list(get_args(Calendar)),
                "description": "when what is pending is settled by itself (weekly: on Mondays, monthly: on the first)",
            },
            "fee": {
                "oneOf": [{"$ref": REF + "FeeNow"}, {"type": "null"}],
                "description": "of a payment now, where its channel has no rule of its own",
            },
            "fees": _list_of("FeeRule", "all that may apply, those of all merchants too"),
            "accounts": {
                "type": "array",
                "items": {"type": "string"},
                "description": "their ids in the account service: available, pending, receivable",
            },
            "created_at": INSTANT,
        },
        {
            "balances": {
                "type": "object",
                "additionalProperties": {"$ref": REF + "Balance"},
                "description": "by account; lists do not show them",
            }
        },
    ),
    "Merchants": _object({"merchants": _list_of("Merchant", "oldest first"), "next_cursor": _CURSOR}, LEFT_OUT),
    "Events": _object({"events": {"type": "array", "items": {"type": "object"}, "description": "oldest first"}}),
    **_WEBHOOKS,
    "Problem": {
        **{name: value for name, value in _PROBLEM.items() if name != "examples"},
        "properties": {
            **_PROBLEM["properties"],
            "type": {"type": "string", "pattern": f"^{URN}[a-z-]+$", "description": "one of those listed below"},
            "order": {"$ref": REF + "Order", "description": "that the account service refused"},
        },
    },
    **{name: ANSWERS[name] for name in ("Balance", "QuotaExceeded", "ReducedCapacity", "Alive", "Ready", "Home")},
    **{name: ANSWERS[name] for name in ("Limit", "Limits")},
}
SCHEMAS: Final[dict[str, Schema]] = with_enums_inlined(
    {**REQUEST_SCHEMAS, **schemas_of((StatementReport,), {}, {}), **_SCHEMAS}
)
