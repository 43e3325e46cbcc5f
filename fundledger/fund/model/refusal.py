"""Model of the fund service: refusals before an order is stored. No money moved, and the order number is free."""

from enum import StrEnum

import msgspec


class Code(StrEnum):
    """Codes of the fund service's refusals, in the order of docs/reference/refusals.md.

    The checks are made in another sequence: first the merchant and the currency, second the order number, third the
    shared amounts, under locks.
    """

    ORDER_NO_REUSED = "order-no-reused"
    STATEMENT_NO_REUSED = "statement-no-reused"
    MERCHANT_EXISTS = "merchant-exists"
    FEE_RULE_TOO_SOON = "fee-rule-too-soon"
    MERCHANT_NOT_FOUND = "merchant-not-found"
    MERCHANT_SUSPENDED = "merchant-suspended"
    MERCHANT_CLOSED = "merchant-closed"
    MERCHANT_NOT_EMPTY = "merchant-not-empty"
    CURRENCY_MISMATCH = "currency-mismatch"
    RECEIPT_ALREADY_BOOKED = "receipt-already-booked"
    CHANNEL_NOT_FOUND = "channel-not-found"
    CHANNEL_EXISTS = "channel-exists"
    CHANNEL_CLOSED = "channel-closed"
    CHANNEL_REF_MISSING = "channel-ref-missing"
    CHANNEL_UNDERFUNDED = "channel-underfunded"
    CHANNEL_NOT_FILE = "channel-not-file"
    PAYEE_REQUIRED = "payee-required"
    PAYEE_NOT_FOUND = "payee-not-found"
    PAYEE_COOLING = "payee-cooling"
    PAYEE_EXISTS = "payee-exists"
    TOO_MANY_PAYEES = "too-many-payees"
    PAYOUT_FILE_NO_WRONG = "payout-file-no-wrong"
    NOTHING_TO_EXPORT = "nothing-to-export"
    PAYOUT_RESULTS_OTHER = "payout-results-other"
    ORDER_NOT_FOUND = "order-not-found"
    PAYMENT_NOT_FOUND = "payment-not-found"
    PAYMENT_NOT_POSTED = "payment-not-posted"
    PAYMENT_BEING_SETTLED = "payment-being-settled"
    REFUND_EXCEEDS_PAYMENT = "refund-exceeds-payment"
    CHARGEBACK_EXCEEDS_PAYMENT = "chargeback-exceeds-payment"
    NOTHING_TO_SETTLE = "nothing-to-settle"
    SETTLEMENT_EXCEEDS_PENDING = "settlement-exceeds-pending"
    INVOICE_EXCEEDED = "invoice-exceeded"
    RESERVE_EXCEEDED = "reserve-exceeded"
    RESERVE_HOLD_RELEASED = "reserve-hold-released"
    DEBT_EXCEEDED = "debt-exceeded"
    DEBT_IN_PROGRESS = "debt-in-progress"
    WITHDRAWAL_LIMIT_EXCEEDED = "withdrawal-limit-exceeded"
    NOTHING_TO_WITHDRAW = "nothing-to-withdraw"
    WITHDRAWAL_NOT_POSTED = "withdrawal-not-posted"
    WITHDRAWAL_PAID = "withdrawal-paid"
    WITHDRAWAL_BOUNCED = "withdrawal-bounced"
    WITHDRAWAL_NOT_FOUND = "withdrawal-not-found"
    WITHDRAWAL_NOT_PAID = "withdrawal-not-paid"
    RETURN_EXCEEDS_WITHDRAWAL = "return-exceeds-withdrawal"
    REFUNDS_WAITING = "refunds-waiting"
    REFUND_NOT_POSTED = "refund-not-posted"
    REFUND_PAID = "refund-paid"
    REFUND_BOUNCED = "refund-bounced"
    ORDER_NOT_POSTED = "order-not-posted"
    ORDER_ENDED = "order-ended"
    ORDER_NOT_PARKED = "order-not-parked"
    CHARGEBACK_NOT_POSTED = "chargeback-not-posted"
    WIN_EXCEEDS_CHARGEBACK = "win-exceeds-chargeback"
    OWN_FUNDS_EXCEEDED = "own-funds-exceeded"
    SWEEP_EXCEEDS_INCOME = "sweep-exceeds-income"
    PAYABLE_EXCEEDED = "payable-exceeded"
    SUSPENSE_EXCEEDED = "suspense-exceeded"
    APPROVAL_NEEDS_ANOTHER = "approval-needs-another"
    ORDER_APPROVED = "order-approved"
    ORDER_REJECTED = "order-rejected"
    ORDER_EXPIRED = "order-expired"
    CHANGE_WAITING = "change-waiting"
    CHANGE_ENDED = "change-ended"
    ORDER_NOT_REVERSIBLE = "order-not-reversible"
    ORDER_ALREADY_REVERSED = "order-already-reversed"
    TOO_MANY_WEBHOOKS = "too-many-webhooks"


class Refusal(msgspec.Struct, frozen=True):
    """A refusal, as a value. `field`: the field of the request that caused the refusal, or None."""

    code: Code
    detail: str
    field: str | None = None


class Refused(Exception):
    """An exception that carries a refusal out of a transaction, and rolls the transaction back."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal
