"""Examples in the account service's OpenAPI document: ids, and answers by schema name."""

from typing import Any, Final

from fundledger.app.account.problems import REFUSALS
from fundledger.app.http.problems import URN
from fundledger.ledger.model.refusal import Code

BANK: Final = "bank:icbc"
MERCHANT: Final = "merchant:10001:available"
VOUCHER: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a11"
OTHER_VOUCHER: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a12"
REVERSAL: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a13"
CAPTURE: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a14"
HOLD: Final = "hold:10001:1"
_ENTRIES: Final = [
    {"account": BANK, "side": "debit", "amount": 10000},
    {"account": MERCHANT, "side": "credit", "amount": 10000},
]
_REFUSAL: Final = {
    "type": URN + "insufficient-funds",
    "title": REFUSALS[Code.INSUFFICIENT_FUNDS][1],
    "status": 422,
    "detail": f"account {MERCHANT} has insufficient available funds",
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
    "Problem": _REFUSAL,
}
