"""Routes of the fund service: HTTP path, API class and OpenAPI texts of each kind of order, for `routes/orders.py`."""

from typing import Any, Final, NamedTuple

from fundledger.fund.model.order import Kind
from fundledger.fund.model.refusal import Code
from fundledger.ratelimit.classes import ApiClass


class KindApi(NamedTuple):
    """One kind of order. `collection`: path segment after `/v1/`. `api_class`, `summary`, `example` describe the POST.

    `refusals`: codes that the POST can return in addition to the codes that every kind has.
    """

    collection: str
    api_class: ApiClass
    summary: str
    example: dict[str, Any]
    refusals: tuple[str, ...] = ()


MERCHANT: Final = "10001"
"""Id of the merchant in the examples."""
_NAMED: Final = {"merchant": MERCHANT, "order_no": "2026-0001"}
_STATE: Final = (Code.MERCHANT_SUSPENDED, Code.MERCHANT_CLOSED)
_PAYMENT: Final = (Code.PAYMENT_NOT_FOUND, Code.PAYMENT_NOT_POSTED, Code.ORDER_ALREADY_REVERSED)
_OWN: Final = (Code.CHANNEL_UNDERFUNDED, Code.RECEIPT_ALREADY_BOOKED)
INVOICE: Final = (
    *(Code.PAYABLE_EXCEEDED, Code.INVOICE_EXCEEDED),
    *(Code.ORDER_NOT_POSTED, Code.ORDER_ALREADY_REVERSED),
)
"""Refusals of a payment of an invoice, at the request and at the approval."""
_OWN_EXAMPLE: Final = {"order_no": "2026-0001", "channel": "simulator", "amount": 500, "currency": "CNY"}
KINDS: Final[dict[Kind, KindApi]] = {
    Kind.PAYMENT: KindApi(
        "payments",
        ApiClass.PAYMENT,
        "Post a payment that its channel has confirmed",
        {**_NAMED, "amount": 10000, "currency": "CNY", "channel": "simulator"},
        (Code.CURRENCY_MISMATCH, Code.CHANNEL_REF_MISSING, Code.RECEIPT_ALREADY_BOOKED),
    ),
    Kind.REFUND: KindApi(
        "refunds",
        ApiClass.REFUND,
        "Refund a payment, in whole or in part",
        {**_NAMED, "payment_order_no": "2026-0001", "amount": 2500},
        (*_PAYMENT, Code.PAYMENT_BEING_SETTLED, Code.REFUND_EXCEEDS_PAYMENT, *_STATE),
    ),
    Kind.SETTLEMENT: KindApi(
        "settlements",
        ApiClass.PAYMENT,
        "Settle pending payments",
        _NAMED,
        (Code.NOTHING_TO_SETTLE, Code.SETTLEMENT_EXCEEDS_PENDING, *_STATE),
    ),
    Kind.WITHDRAWAL: KindApi(
        "withdrawals",
        ApiClass.WITHDRAW,
        "Withdraw from a merchant's balance",
        {**_NAMED, "amount": 5000, "channel": "simulator"},
        (
            *(Code.WITHDRAWAL_LIMIT_EXCEEDED, Code.DEBT_EXCEEDED, Code.DEBT_IN_PROGRESS),
            *(Code.CHANNEL_CLOSED, Code.CHANNEL_UNDERFUNDED),
            *(Code.PAYEE_REQUIRED, Code.PAYEE_NOT_FOUND, Code.PAYEE_COOLING),
            *(Code.NOTHING_TO_WITHDRAW, *_STATE),
        ),
    ),
    Kind.PAYOUT_RETURN: KindApi(
        "payout-returns",
        ApiClass.CONFIRM,
        "Post a return of a payout",
        {**_NAMED, "withdrawal_order_no": "2026-0001", "amount": 5000, "channel_ref": "R-20261123-1"},
        (
            *(Code.WITHDRAWAL_NOT_FOUND, Code.WITHDRAWAL_NOT_PAID, Code.RETURN_EXCEEDS_WITHDRAWAL),
            Code.RECEIPT_ALREADY_BOOKED,
        ),
    ),
    Kind.CHARGEBACK: KindApi(
        "chargebacks",
        # CONFIRM: the request only records an event that has already happened.
        ApiClass.CONFIRM,
        "Post a chargeback of a payment",
        {**_NAMED, "payment_order_no": "2026-0001", "amount": 1000},
        (*_PAYMENT, Code.CHARGEBACK_EXCEEDS_PAYMENT, Code.RECEIPT_ALREADY_BOOKED),
    ),
    Kind.RECOVERY: KindApi(
        "recoveries",
        ApiClass.PAYMENT,
        "Repay a merchant's debt from its balance",
        {**_NAMED, "amount": 500},
        (Code.DEBT_EXCEEDED, Code.MERCHANT_CLOSED),
    ),
    Kind.WRITE_OFF: KindApi(
        "write-offs",
        ApiClass.ADMIN,
        "Request a write-off of a merchant's debt",
        {**_NAMED, "amount": 500, "reason": "closed its shop"},
        (Code.DEBT_EXCEEDED, Code.MERCHANT_CLOSED),
    ),
    Kind.ADJUSTMENT: KindApi(
        "adjustments",
        ApiClass.ADMIN,
        "Request an adjustment of a merchant's balance",
        {**_NAMED, "amount": 100, "direction": "credit", "reason": "slip 17", "person": "an.li"},
        (Code.SUSPENSE_EXCEEDED,),
    ),
    Kind.CHANNEL_COST: KindApi(
        "channel-costs",
        ApiClass.CONFIRM,
        "Post a cost charged by a channel",
        {"order_no": "2026-0001", "channel": "simulator", "amount": 30, "currency": "CNY"},
    ),
    Kind.BANK_DIFFERENCE: KindApi(
        "bank-differences",
        ApiClass.ADMIN,
        "Request a bank difference",
        {
            "order_no": "2026-0001",
            "channel": "simulator",
            "amount": 7,
            "currency": "CNY",
            "direction": "more",
            "reason": "statement of 2026-11-23",
        },
    ),
    Kind.REVERSAL: KindApi(
        "reversals",
        ApiClass.REFUND,
        "Request the reversal of an order",
        {**_NAMED, "of_kind": "payment", "of_order_no": "2026-0002", "reason": "sent twice"},
        (
            Code.ORDER_NOT_FOUND,
            Code.ORDER_NOT_REVERSIBLE,
            Code.ORDER_ALREADY_REVERSED,
            "voucher-already-reversed",
            Code.MERCHANT_CLOSED,
        ),
    ),
    Kind.OWN_TRANSFER: KindApi(
        "own-transfers",
        ApiClass.ADMIN,
        "Request a transfer between two bank accounts of the platform",
        {"order_no": "2026-0001", "from_channel": "simulator", "channel": "bank", "amount": 500, "currency": "CNY"},
        (Code.CHANNEL_CLOSED, *_OWN),
    ),
    Kind.OWN_FUNDS: KindApi(
        "own-funds",
        ApiClass.ADMIN,
        "Request to post own funds of the platform",
        {**_OWN_EXAMPLE, "direction": "in", "reason": "capital for bank fees"},
        (Code.OWN_FUNDS_EXCEEDED, *_OWN),
    ),
    Kind.FEE_SWEEP: KindApi(
        "fee-sweeps",
        ApiClass.ADMIN,
        "Request to take income out of a bank account",
        {**_OWN_EXAMPLE, "reason": "fees of November"},
        (Code.SWEEP_EXCEEDS_INCOME, *_OWN),
    ),
    Kind.PAYABLE_PAYMENT: KindApi(
        "payable-payments",
        ApiClass.ADMIN,
        "Request to pay what the platform owes a channel or the tax authority",
        _OWN_EXAMPLE,
        (Code.ORDER_NOT_FOUND, *INVOICE, *_OWN),
    ),
    Kind.SUSPENSE_CLEARING: KindApi(
        "suspense-clearings",
        ApiClass.ADMIN,
        "Request to clear an explained difference",
        {
            "order_no": "2026-0001",
            "amount": 7,
            "currency": "CNY",
            "direction": "more",
            "against": "income",
            "reason": "no owner within a year",
        },
        (Code.CURRENCY_MISMATCH, Code.SUSPENSE_EXCEEDED, Code.CHANNEL_UNDERFUNDED),
    ),
    Kind.PARKED_CLEARING: KindApi(
        "parked-clearings",
        ApiClass.ADMIN,
        "Request to clear a parked order",
        {
            "order_no": "2026-0001",
            "of_kind": "payment",
            "of_merchant": MERCHANT,
            "of_order_no": "2026-0002",
            "against": "bank",
            "reason": "the shop is closed",
        },
        (Code.CURRENCY_MISMATCH, Code.ORDER_NOT_FOUND, Code.ORDER_NOT_PARKED, Code.CHANNEL_UNDERFUNDED),
    ),
    Kind.TOP_UP: KindApi(
        "top-ups",
        ApiClass.PAYMENT,
        "Post a top-up that its channel has confirmed",
        {**_NAMED, "amount": 10000, "currency": "CNY", "channel": "simulator"},
        (Code.CURRENCY_MISMATCH, Code.CHANNEL_REF_MISSING, Code.RECEIPT_ALREADY_BOOKED),
    ),
    Kind.TRANSFER: KindApi(
        "transfers",
        ApiClass.PAYMENT,
        "Transfer an amount to another merchant",
        {**_NAMED, "to_merchant": "10002", "amount": 500},
        (Code.CURRENCY_MISMATCH, Code.DEBT_EXCEEDED, Code.DEBT_IN_PROGRESS, *_STATE),
    ),
    Kind.RESERVE_HOLD: KindApi(
        "reserve-holds",
        ApiClass.PAYMENT,
        "Hold a part of a merchant's balance in reserve",
        {**_NAMED, "amount": 500, "reason": "5 % of November"},
        (Code.MERCHANT_CLOSED,),
    ),
    Kind.RESERVE_RELEASE: KindApi(
        "reserve-releases",
        ApiClass.PAYMENT,
        "Release an amount or a whole hold of a merchant's reserve",
        {**_NAMED, "amount": 500, "reason": "5 % of May"},
        (
            Code.MERCHANT_CLOSED,
            Code.RESERVE_EXCEEDED,
            Code.ORDER_NOT_FOUND,
            Code.ORDER_NOT_POSTED,
            Code.RESERVE_HOLD_RELEASED,
        ),
    ),
    Kind.DISPUTE: KindApi(
        "disputes",
        ApiClass.CONFIRM,
        "Open a dispute of a payment",
        {**_NAMED, "payment_order_no": "2026-0001", "amount": 1000, "reason": "goods not received"},
        (*_PAYMENT, Code.CHARGEBACK_EXCEEDS_PAYMENT, Code.MERCHANT_CLOSED),
    ),
    Kind.DISPUTE_WON: KindApi(
        "dispute-wins",
        ApiClass.CONFIRM,
        "Post the returned amount of a chargeback",
        {**_NAMED, "chargeback_order_no": "2026-0002", "amount": 1000},
        (
            *(Code.ORDER_NOT_FOUND, Code.CHARGEBACK_NOT_POSTED, Code.WIN_EXCEEDS_CHARGEBACK),
            Code.RECEIPT_ALREADY_BOOKED,
        ),
    ),
    Kind.DISPUTE_FEE: KindApi(
        "dispute-fees",
        ApiClass.CONFIRM,
        "Charge a merchant the fee of a dispute",
        {**_NAMED, "amount": 150, "channel": "simulator"},
        (Code.RECEIPT_ALREADY_BOOKED,),
    ),
    Kind.SPLIT_PAYMENT: KindApi(
        "split-payments",
        ApiClass.PAYMENT,
        "Post a confirmed payment that is divided among merchants",
        {
            "order_no": "2026-0001",
            "amount": 10000,
            "currency": "CNY",
            "channel": "simulator",
            "parts": [{"merchant": MERCHANT, "amount": 8000}, {"merchant": "10002", "amount": 2000, "commission": 100}],
        },
        (Code.CURRENCY_MISMATCH, Code.CHANNEL_REF_MISSING, Code.RECEIPT_ALREADY_BOOKED),
    ),
    Kind.SPLIT_REFUND: KindApi(
        "split-refunds",
        ApiClass.REFUND,
        "Refund a split payment, in whole or in part",
        {"order_no": "2026-0002", "of_order_no": "2026-0001", "amount": 2500},
        (*_PAYMENT, Code.REFUND_EXCEEDS_PAYMENT, *_STATE),
    ),
    Kind.SPLIT_CHARGEBACK: KindApi(
        "split-chargebacks",
        ApiClass.CONFIRM,
        "Post a chargeback of a split payment",
        {
            "order_no": "2026-0003",
            "of_order_no": "2026-0001",
            "channel_ref": "CB-7",
            "parts": [{"merchant": MERCHANT, "amount": 1000}],
        },
        (*_PAYMENT, Code.CHARGEBACK_EXCEEDS_PAYMENT, Code.RECEIPT_ALREADY_BOOKED),
    ),
    Kind.CHANNEL_INVOICE: KindApi(
        "channel-invoices",
        ApiClass.CONFIRM,
        "Post an invoice of a channel for its fees of a month",
        {
            "order_no": "2026-0001",
            "channel": "simulator",
            "amount": 4200,
            "currency": "CNY",
            "invoice_no": "INV-2026-11",
            "period": "2026-11",
        },
        (Code.RECEIPT_ALREADY_BOOKED,),
    ),
}


def one_of(kind: Kind, adjective: str = "") -> str:
    """Return the words for one order of a kind, with their article."""
    words = f"{adjective} {kind.value.replace('_', ' ')}".strip()
    if kind is Kind.OWN_FUNDS:
        return words
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
