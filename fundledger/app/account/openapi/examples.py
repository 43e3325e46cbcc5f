"""Examples in the account service's OpenAPI document: ids, and answers."""

from datetime import date
from typing import Any, Final
from uuid import UUID

from msgspec import Raw

from fundledger.app.account.answers import structs as answers
from fundledger.app.account.answers.problems import refusal_members
from fundledger.app.http.events import Events
from fundledger.app.http.service_routes import HOT_KEYS_EXAMPLE, SERVICE_EXAMPLES
from fundledger.app.http.wire.reply import encode
from fundledger.json_values import Balance
from fundledger.ledger.model.refusal import Code, Refusal

BANK: Final = "bank:icbc"
MERCHANT: Final = "merchant:10001:available"
VOUCHER: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a11"
OTHER_VOUCHER: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a12"
REVERSAL: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a13"
CAPTURE: Final = "0190b0a5-3c1e-7d52-9c3a-5b7f2d6e8a14"
HOLD: Final = "hold:10001:1"
_REFUSAL: Final = refusal_members(
    Refusal(Code.INSUFFICIENT_FUNDS, f"account {MERCHANT} has insufficient available funds", account=MERCHANT)
)
_POSTED_AT: Final = "2026-11-23T04:32:59.137384Z"
_VOUCHER: Final = answers.Voucher(
    id=UUID(VOUCHER),
    type="pay",
    status="posted",
    posted_at=_POSTED_AT,
    accounting_date=date(2026, 11, 23),
    module="gateway",
    entries=[answers.Entry(BANK, "debit", 10000), answers.Entry(MERCHANT, "credit", 10000)],
    reference="order 2026-0001",
)
_EVENT: Final = answers.Event(
    seq=16385,
    id=_VOUCHER.id,
    type="voucher.posted",
    module=_VOUCHER.module,
    voucher=_VOUCHER,
    at=_POSTED_AT,
)
EXAMPLES: Final = (
    answers.Account(
        id=MERCHANT,
        module="gateway",
        owner="merchant:10001",
        type="merchant_available",
        currency="CNY",
        status="open",
        balance=Balance(10000, 5000, 0, 5000),
        version=2,
        sub_accounts=1,
        heat="cold",
        posting="direct",
        created_at="2026-11-23T04:32:59.121428Z",
    ),
    answers.BalanceAt(MERCHANT, "2026-11-23T05:00:00.000000Z", 10000, 5000, 5000),
    answers.Calendar("Asia/Shanghai", "23:00"),
    answers.Statement(
        [
            answers.StatementEntry(
                seq=1,
                voucher_id=_VOUCHER.id,
                type="pay",
                side="credit",
                amount=10000,
                balance_after=10000,
                posted_at=_POSTED_AT,
                accounting_date=date(2026, 11, 23),
                slot=0,
                summary=None,
                currency="CNY",
                reference="order 2026-0001",
                counter_account=BANK,
                counter_accounts=[BANK],
                order_no=None,
                kind=None,
            )
        ],
        None,
    ),
    _VOUCHER,
    answers.BatchResults(
        [
            answers.BatchResult(UUID(OTHER_VOUCHER), "posted", _POSTED_AT),
            answers.BatchResult(UUID(REVERSAL), "refused", problem=_REFUSAL),
        ]
    ),
    answers.Hold(
        id=HOLD,
        module="gateway",
        account=MERCHANT,
        amount=5000,
        captured=0,
        status="open",
        created_at="2026-11-23T04:32:59.180737Z",
        expires_at=None,
        ended_at=None,
        voucher_id=None,
    ),
    Events([Raw(encode(_EVENT))], _EVENT.seq),
    _REFUSAL,
    HOT_KEYS_EXAMPLE,
    *SERVICE_EXAMPLES,
)


def moves(voucher: str, type_: str, amount: int) -> dict[str, Any]:
    """Return the body of a voucher that moves an amount from bank to merchant, or back if the amount is negative."""
    entries = [(BANK, "debit"), (MERCHANT, "credit")] if amount > 0 else [(MERCHANT, "debit"), (BANK, "credit")]
    members = [{"account": account, "side": side, "amount": abs(amount)} for account, side in entries]
    return {"id": voucher, "type": type_, "entries": members}
