"""OpenAPI schemas of the fund service: requests are derived from their decoding types, responses follow render.py."""

from typing import Final, get_args

import msgspec

from fundledger.app.fund import bodies
from fundledger.app.http.openapi.answers import ANSWERS, BALANCE
from fundledger.app.http.openapi.schemas import INSTANT, REF, UUID, Schema, object_of, schemas_of, with_enums_inlined
from fundledger.app.http.problems import URN
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.requests import AMOUNT_MAX, REQUESTS, Calendar, MerchantRequest
from fundledger.fund.statements.imports import StatementReport, StatementRequest

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
    **{(type_.__name__, "ticket"): "accepted and ignored in this version" for type_ in REQUESTS.values()},
    ("WebhookBody", "url"): "an https URL on the public internet; the dev profile accepts any http(s) URL",
    ("WebhookBody", "events"): "event types, `KIND.STATE`, such as `payment.posted`; default: all",
    ("DisableBody", "reason"): "stored with the endpoint",
    ("RedeliverBody", "seqs"): "`seq` of events that were given up; default: all of them",
}
REQUEST_SCHEMAS: Final = schemas_of(_BODIES, {}, _DESCRIPTIONS)
MERCHANT_ID: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$"}
ORDER_NO: Final[Schema] = {"type": "string", "pattern": "^[A-Za-z0-9:_./-]{1,64}$"}
STATE: Final[Schema] = {"type": "string", "enum": [str(state) for state in State]}
_CURSOR: Final[Schema] = {
    "type": ["string", "null"],
    "description": "send this as `cursor` for the next page; null on the last page",
}
_AMOUNT: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 1, "maximum": AMOUNT_MAX}
_PART: Final[Schema] = {"type": "integer", "format": "int64", "minimum": 0}
_FEE: Final[dict[str, Schema]] = {
    "basis_points": {"type": "integer", "minimum": 0, "maximum": 10000, "description": "hundredths of a percent"},
    "fixed": _PART,
    "minimum": _PART,
    "maximum": {**_PART, "type": ["integer", "null"]},
}


def _list_of(schema: str, description: str = "") -> Schema:
    found: Schema = {"type": "array", "items": {"$ref": REF + schema}}
    return {**found, "description": description} if description else found


LEFT_OUT: Final[dict[str, Schema]] = {
    "unverified": _list_of(
        "Unverified", "records omitted from the page because they do not match their MAC; absent if none"
    )
}
_PROBLEM: Final[Schema] = ANSWERS["Problem"]
_WEBHOOK: Final[dict[str, Schema]] = {
    "id": UUID,
    "merchant": MERCHANT_ID,
    "url": {"type": "string"},
    "events": {"type": ["array", "null"], "items": {"type": "string"}, "description": "event types; null: all"},
    "created_at": INSTANT,
    "disabled_at": {**INSTANT, "type": ["string", "null"], "description": "no events are sent after this time"},
    "disabled_why": {"type": ["string", "null"]},
}
_SECRET: Final[Schema] = {
    "type": "string",
    "pattern": "^whsec_[A-Za-z0-9+/]{43}=$",
    "description": "the signing key is the base64 after `whsec_`; returned only once",
}
_SEQ: Final[Schema] = {"type": "integer", "minimum": 1}
_WEBHOOKS: Final[dict[str, Schema]] = {
    "Webhook": object_of(_WEBHOOK),
    "WebhookWithSecret": object_of({**_WEBHOOK, "secret": _SECRET}),
    "Webhooks": object_of(
        {"webhooks": _list_of("Webhook", "oldest first, including disabled endpoints, at most 1,000")}, LEFT_OUT
    ),
    "DeadEvent": object_of(
        {
            "seq": _SEQ,
            "event": {"type": "object", "description": "the event as sent"},
            "attempts": {"type": "integer", "minimum": 0},
            "ended_at": INSTANT,
            "last_status": {"type": ["integer", "null"], "description": "null: no response"},
            "last_error": {"type": ["string", "null"]},
        }
    ),
    "DeadEvents": object_of(
        {
            "dead": _list_of("DeadEvent", "in order"),
            "next": {
                "type": ["integer", "null"],
                "description": "send this as `after` for the next page; null on the last page",
            },
        }
    ),
    "Redelivered": object_of({"redelivered": {"type": "integer", "minimum": 0, "description": "number of events"}}),
}
_SCHEMAS: Final[dict[str, Schema]] = {
    "Order": object_of(
        {
            "id": {**UUID, "description": "derived from kind, merchant and number"},
            "kind": {"type": "string", "enum": [str(kind) for kind in Kind]},
            "merchant": {**MERCHANT_ID, "description": "`platform` if the order belongs to no merchant"},
            "order_no": ORDER_NO,
            "state": STATE,
            "amount": _AMOUNT,
            "fee": {**_PART, "description": "the fee charged or returned"},
            "net": {"type": "integer", "description": "total change of the merchant's balance"},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "voucher_id": {**UUID, "description": "id of the order's voucher in the account service"},
            "channel": {"type": ["string", "null"]},
            "created_at": INSTANT,
        },
        {
            "posted_at": INSTANT,
            "problem": {"$ref": REF + "Problem", "description": "the account service's reason for the refusal"},
            "channel_ref": {"type": "string"},
            "settle": {"type": "string", "enum": ["now", "later"]},
            "of_order": {**UUID, "description": "the order that this order refers to"},
            "from_pending": {**_AMOUNT, "description": "of a refund: the part taken from the pending balance"},
            "to_receivable": {
                **_AMOUNT,
                "description": "of a chargeback: the part that the balance did not cover and the merchant owes",
            },
            "direction": {"type": "string", "enum": ["credit", "debit", "more", "less"]},
            "reason": {"type": "string"},
            "approved_by": {"type": "string", "description": "a module, or module/person"},
            "reversed_by": {**UUID, "description": "the order that reversed this order"},
            "ending": {
                "type": "string",
                "enum": ["paid", "bounced"],
                "description": "the reported end of the withdrawal; `state` follows when it is certain",
            },
        },
    ),
    "Orders": object_of({"orders": _list_of("Order", "oldest first"), "next_cursor": _CURSOR}, LEFT_OUT),
    "Unverified": object_of({"id": {"type": "string"}, "problem": {"$ref": REF + "Problem"}}),
    "Step": object_of({"state": STATE, "at": INSTANT}, {"detail": {"description": "details of the change"}}),
    "History": object_of({"id": UUID, "history": _list_of("Step", "oldest first")}),
    "PaymentResult": object_of(
        {"order_no": ORDER_NO, "state": STATE},
        {
            "id": UUID,
            "replay": {"type": "boolean", "description": "replay of an earlier request: the current state"},
            "problem": {
                "$ref": REF + "Problem",
                "description": "of a refused payment; without `id`, nothing is stored",
            },
        },
    ),
    "PaymentResults": object_of({"results": _list_of("PaymentResult", "`results[i]` answers `payments[i]`")}),
    "FeeNow": object_of(_FEE),
    "FeeTierShown": object_of({"from_amount": _AMOUNT, "basis_points": _FEE["basis_points"], "fixed": _PART}),
    "FeeRule": object_of(
        {
            "version": {"type": "integer", "minimum": 1},
            "merchant": {"type": ["string", "null"], "description": "null: all merchants"},
            "product": {"type": "string", "enum": ["payment", "withdrawal"]},
            "channel": {"type": ["string", "null"], "description": "null: all channels"},
            **_FEE,
            "tiers": _list_of("FeeTierShown"),
            "effective_at": INSTANT,
        }
    ),
    "Merchant": object_of(
        {
            "id": MERCHANT_ID,
            "name": {"type": "string"},
            "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
            "withdrawal_limit": {**_PART, "type": ["integer", "null"], "description": "per day (UTC); null: no limit"},
            "settlement": {
                "type": "string",
                "enum": list(get_args(Calendar)),
                "description": "when the pending balance is settled automatically (weekly: Monday, monthly: first day)",
            },
            "fee": {
                "oneOf": [{"$ref": REF + "FeeNow"}, {"type": "null"}],
                "description": "current fee of a payment through a channel without its own rule",
            },
            "fees": _list_of("FeeRule", "all rules that may apply, including those for all merchants"),
            "accounts": {
                "type": "array",
                "items": {"type": "string"},
                "description": "account ids in the account service: available, pending, receivable",
            },
            "created_at": INSTANT,
        },
        {
            "balances": {
                "type": "object",
                "additionalProperties": {"$ref": REF + "Balance"},
                "description": "by account id; omitted in lists",
            }
        },
    ),
    "Merchants": object_of({"merchants": _list_of("Merchant", "oldest first"), "next_cursor": _CURSOR}, LEFT_OUT),
    "Events": object_of({"events": {"type": "array", "items": {"type": "object"}, "description": "oldest first"}}),
    **_WEBHOOKS,
    "Problem": {
        **{name: value for name, value in _PROBLEM.items() if name != "examples"},
        "properties": {
            **_PROBLEM["properties"],
            "type": {
                "type": "string",
                "pattern": f"^{URN}[a-z-]+$",
                "description": "one of the problem types listed below",
            },
            "order": {"$ref": REF + "Order", "description": "the order that the account service refused"},
        },
    },
    "Balance": BALANCE,
    **{name: ANSWERS[name] for name in ("QuotaExceeded", "ReducedCapacity", "Alive", "Ready", "Home")},
    **{name: ANSWERS[name] for name in ("Limit", "Limits")},
}
SCHEMAS: Final[dict[str, Schema]] = with_enums_inlined(
    {**REQUEST_SCHEMAS, **schemas_of((StatementReport,), {}, {}), **_SCHEMAS}
)
