"""Examples of answers in the OpenAPI file, by the name of their schema."""

from typing import Any, Final

from fundledger.app.gate import IANA
from fundledger.app.openapi_types import BANK, HOLD, MERCHANT, OTHER_VOUCHER, REVERSAL, VOUCHER
from fundledger.app.problems import REFUSALS, URN
from fundledger.ledger.refusal import Code

_ENTRIES: Final = [
    {"account": BANK, "side": "debit", "amount": 10000},
    {"account": MERCHANT, "side": "credit", "amount": 10000},
]
_REFUSAL: Final = {
    "type": URN + "insufficient-funds",
    "title": REFUSALS[Code.INSUFFICIENT_FUNDS][1],
    "status": 422,
    "detail": f"account {MERCHANT} has not enough available",
    "account": MERCHANT,
}
EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "Account": {
        "id": MERCHANT,
        "module": "gateway",
        "owner": "merchant:10001",
        "type": "merchant_available",
        "currency": "CNY",
        "status": "open",
        "balance": {"posted": 10000, "held": 5000, "pending": 0, "available": 5000},
        "version": 2,
        "sub_accounts": 1,
        "heat": "cold",
        "posting": "direct",
        "created_at": "2026-11-23T04:32:59.121428Z",
    },
    "BalanceAt": {
        "account": MERCHANT,
        "at": "2026-11-23T05:00:00.000000Z",
        "posted": 10000,
        "held": 5000,
        "available": 5000,
    },
    "Statement": {
        "entries": [
            {
                "seq": 1,
                "voucher_id": VOUCHER,
                "type": "pay",
                "side": "credit",
                "amount": 10000,
                "balance_after": 10000,
                "posted_at": "2026-11-23T04:32:59.137384Z",
                "accounting_date": "2026-11-23",
                "slot": 0,
                "summary": None,
                "currency": "CNY",
                "reference": "order 2026-0001",
                "counter_account": "bank:icbc",
                "counter_accounts": ["bank:icbc"],
                "order_no": None,
                "kind": None,
            }
        ],
        "next_cursor": None,
    },
    "Voucher": {
        "id": VOUCHER,
        "module": "gateway",
        "type": "pay",
        "status": "posted",
        "posted_at": "2026-11-23T04:32:59.137384Z",
        "accounting_date": "2026-11-23",
        "entries": _ENTRIES,
        "reference": "order 2026-0001",
    },
    "BatchResults": {
        "results": [
            {"id": OTHER_VOUCHER, "status": "posted", "posted_at": "2026-11-23T04:32:59.137384Z"},
            {"id": REVERSAL, "status": "refused", "problem": _REFUSAL},
        ]
    },
    "Hold": {
        "id": HOLD,
        "module": "gateway",
        "account": MERCHANT,
        "amount": 5000,
        "captured": 0,
        "status": "open",
        "created_at": "2026-11-23T04:32:59.180737Z",
        "expires_at": None,
        "ended_at": None,
        "voucher_id": None,
    },
    "HotKeys": {
        "kinds": {
            "caller": [{"id": "gateway", "rate": 812.0, "share": 0.406}],
            "merchant": [{"id": "merchant:10001", "rate": 640.0, "share": 0.32}],
            "account": [{"id": MERCHANT, "rate": 640.0, "share": 0.16}],
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
        "detail": "the quota of the policy merchant is used up; nothing was done, the same may be sent again",
        "violated-policies": ["merchant"],
        "retry_after_ms": 1000,
    },
    "ReducedCapacity": {
        "type": IANA + "temporary-reduced-capacity",
        "title": "Not at the moment",
        "status": 503,
        "detail": "there is more to do than can be done; nothing was done, the same request may be sent again",
        "retry_after_ms": 2000,
    },
    "Home": {"service": "fundledger account service", "links": ["/docs", "/openapi.json", "/metrics", "/readyz"]},
    "Alive": {"status": "alive"},
    "Ready": {"status": "ready"},
    "Problem": _REFUSAL,
}
