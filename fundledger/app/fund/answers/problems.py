"""Answers of the fund service to refused requests: the problem (RFC 9457) of each refusal, with advice."""

from collections.abc import Sequence
from typing import Final

from msgspec import UNSET, UnsetType

from fundledger.app.fund.answers.structs import Unverified
from fundledger.app.http.problems import PROBLEM_TYPE, UNVERIFIED, URN, Problem, faulted, unverified
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.faults import Fault, OutcomeUnknown, Unavailable
from fundledger.fund.model.answer import Answer, OrderFault
from fundledger.fund.model.refusal import Code, Refusal

REFUSALS: Final[dict[Code, tuple[int, str]]] = {
    Code.ORDER_NO_REUSED: (422, "Order number already used with different content"),
    Code.STATEMENT_NO_REUSED: (422, "Statement number already used with different lines"),
    Code.MERCHANT_EXISTS: (409, "Merchant already exists with different data"),
    Code.FEE_RULE_TOO_SOON: (422, "Fee rule would take effect too soon"),
    Code.MERCHANT_NOT_FOUND: (422, "Merchant not found"),
    Code.MERCHANT_SUSPENDED: (422, "Merchant is suspended"),
    Code.MERCHANT_CLOSED: (422, "Merchant is closed"),
    Code.MERCHANT_NOT_EMPTY: (422, "Merchant has money, debts or open orders"),
    Code.CURRENCY_MISMATCH: (422, "Currency differs from the merchant's currency"),
    Code.RECEIPT_ALREADY_BOOKED: (422, "Reference of the channel already booked by another order"),
    Code.CHANNEL_NOT_FOUND: (422, "Channel is not registered"),
    Code.CHANNEL_EXISTS: (409, "Channel is already registered"),
    Code.CHANNEL_CLOSED: (422, "Channel is closed"),
    Code.CHANNEL_REF_MISSING: (422, "Reference of the channel is missing"),
    Code.CHANNEL_UNDERFUNDED: (422, "Bank account of the channel does not hold enough"),
    Code.CHANNEL_NOT_FILE: (422, "Channel is not paid out by files"),
    Code.PAYEE_REQUIRED: (422, "Payee is missing"),
    Code.PAYEE_NOT_FOUND: (422, "Payee not found for this merchant"),
    Code.PAYEE_COOLING: (422, "Payee is not usable yet"),
    Code.PAYEE_EXISTS: (409, "Account is already a payee of the merchant"),
    Code.TOO_MANY_PAYEES: (409, "Merchant has too many payees"),
    Code.PAYOUT_FILE_NO_WRONG: (422, "Number of the payout file cannot be used"),
    Code.NOTHING_TO_EXPORT: (422, "No withdrawal to export"),
    Code.PAYOUT_RESULTS_OTHER: (422, "Results belong to another payout file"),
    Code.ORDER_NOT_FOUND: (422, "Order not found"),
    Code.PAYMENT_NOT_FOUND: (422, "Payment not found for this merchant"),
    Code.PAYMENT_NOT_POSTED: (422, "Payment is not posted"),
    Code.PAYMENT_BEING_SETTLED: (422, "Settlement of the payment is in progress"),
    Code.REFUND_EXCEEDS_PAYMENT: (422, "Refunds would exceed the payment"),
    Code.CHARGEBACK_EXCEEDS_PAYMENT: (422, "Refunds and chargebacks would exceed the payment"),
    Code.NOTHING_TO_SETTLE: (422, "Nothing to settle"),
    Code.SETTLEMENT_EXCEEDS_PENDING: (422, "Settlement exceeds the pending balance"),
    Code.INVOICE_EXCEEDED: (422, "Payments would exceed the invoice"),
    Code.RESERVE_EXCEEDED: (422, "Amount exceeds what is held without a release day"),
    Code.RESERVE_HOLD_RELEASED: (422, "Reserve hold is released or being released"),
    Code.DEBT_EXCEEDED: (422, "Amount exceeds the merchant's debt"),
    Code.DEBT_IN_PROGRESS: (422, "Order that may change the merchant's debt is in progress"),
    Code.WITHDRAWAL_LIMIT_EXCEEDED: (422, "Daily withdrawal limit would be exceeded"),
    Code.NOTHING_TO_WITHDRAW: (422, "Nothing to withdraw"),
    Code.WITHDRAWAL_NOT_POSTED: (422, "Withdrawal is not posted"),
    Code.WITHDRAWAL_PAID: (422, "Withdrawal is already paid"),
    Code.WITHDRAWAL_BOUNCED: (422, "Withdrawal has already bounced"),
    Code.WITHDRAWAL_NOT_FOUND: (422, "Withdrawal not found for this merchant"),
    Code.WITHDRAWAL_NOT_PAID: (422, "Withdrawal is not paid"),
    Code.RETURN_EXCEEDS_WITHDRAWAL: (422, "Returns would exceed the withdrawal"),
    Code.REFUNDS_WAITING: (422, "Refunds of the channel wait for their ends"),
    Code.REFUND_NOT_POSTED: (422, "Refund is not posted"),
    Code.REFUND_PAID: (422, "Refund is already paid"),
    Code.REFUND_BOUNCED: (422, "Refund has already bounced"),
    Code.ORDER_NOT_POSTED: (422, "Order is not posted"),
    Code.ORDER_ENDED: (422, "Order has already ended otherwise"),
    Code.ORDER_NOT_PARKED: (422, "Order is not parked"),
    Code.CHARGEBACK_NOT_POSTED: (422, "Chargeback is not posted"),
    Code.WIN_EXCEEDS_CHARGEBACK: (422, "Won disputes would exceed the chargeback"),
    Code.OWN_FUNDS_EXCEEDED: (422, "Amount exceeds the own funds that came in"),
    Code.SWEEP_EXCEEDS_INCOME: (422, "Fee sweeps would exceed the income"),
    Code.PAYABLE_EXCEEDED: (422, "Amount exceeds what the platform owes"),
    Code.SUSPENSE_EXCEEDED: (422, "Amount exceeds the suspense account"),
    Code.APPROVAL_NEEDS_ANOTHER: (422, "A different approver is required"),
    Code.ORDER_APPROVED: (422, "Order is already approved"),
    Code.ORDER_REJECTED: (422, "Order is rejected"),
    Code.ORDER_EXPIRED: (422, "Order has expired"),
    Code.CHANGE_WAITING: (409, "Another change waits for a decision"),
    Code.CHANGE_ENDED: (422, "Change has ended"),
    Code.ORDER_NOT_REVERSIBLE: (422, "Order cannot be reversed"),
    Code.ORDER_ALREADY_REVERSED: (422, "Order is already reversed"),
    Code.TOO_MANY_WEBHOOKS: (409, "Merchant has too many webhook endpoints"),
}
ADVICE: Final[dict[Code, str]] = {
    Code.ORDER_NO_REUSED: "Read the order that has this number. To create a different order, use a new number.",
    Code.STATEMENT_NO_REUSED: "Send the same lines in the same order. For a different statement, use a new number.",
    Code.MERCHANT_EXISTS: "Read the merchant that has this id. To create a different merchant, use another id.",
    Code.FEE_RULE_TOO_SOON: "Request a later `effective_at`, or omit it. At an approval, reject the change first.",
    Code.MERCHANT_NOT_FOUND: "Create the merchant, then send the same request again.",
    Code.MERCHANT_SUSPENDED: "Resume the merchant, then send the same request again.",
    Code.MERCHANT_CLOSED: "If the merchant is being closed, resume it first. If it is closed, no action is possible.",
    Code.MERCHANT_NOT_EMPTY: "Complete what `detail` names, or send `final` to settle and withdraw the money.",
    Code.CURRENCY_MISMATCH: "Send the currency of the merchant. All merchants of an order have the same currency.",
    Code.RECEIPT_ALREADY_BOOKED: "Read the order that `detail` names. Each reference counts once in each direction.",
    Code.CHANNEL_NOT_FOUND: "Check the name, or register the channel for the currency with `POST /v1/channels`.",
    Code.CHANNEL_EXISTS: "Read the channel. To change it, use `PATCH /v1/channels/{name}`.",
    Code.CHANNEL_CLOSED: "Use another channel, or request a change that opens this one.",
    Code.CHANNEL_REF_MISSING: "Send `channel_ref`, the reference of the payment at the channel.",
    Code.CHANNEL_UNDERFUNDED: "Use another channel, or send the same request when the books show enough at the bank.",
    Code.CHANNEL_NOT_FILE: "Request a change of the channel to the payout method `file`, or use another channel.",
    Code.PAYEE_REQUIRED: "Send `payee`, the id of a payee of `GET /v1/merchants/{id}/payees`.",
    Code.PAYEE_NOT_FOUND: "Send the id of an active payee of the merchant, or register the account as a new payee.",
    Code.PAYEE_COOLING: "Send the same request after the time that `detail` names, or use another payee.",
    Code.PAYEE_EXISTS: "Use the payee that `detail` names. To register the account again, disable that payee first.",
    Code.TOO_MANY_PAYEES: "Disable a payee that is not needed, then send the same request again.",
    Code.PAYOUT_FILE_NO_WRONG: "Read the payout files of the channel, and send the next number, or omit `file_no`.",
    Code.NOTHING_TO_EXPORT: "Wait until a withdrawal with a payee is posted. The list has the files made so far.",
    Code.PAYOUT_RESULTS_OTHER: "Send `file_no` of the file that the results name.",
    Code.ORDER_NOT_FOUND: "Check the kind, merchant and number of the order.",
    Code.PAYMENT_NOT_FOUND: "Check the number: it must name a payment, or a split payment, of this merchant.",
    Code.PAYMENT_NOT_POSTED: "If the payment is `posting`, send the same request later. A refused one moved no money.",
    Code.PAYMENT_BEING_SETTLED: "Send the same request again shortly, with the same number.",
    Code.REFUND_EXCEEDS_PAYMENT: "Refund at most the remaining amount of the payment.",
    Code.CHARGEBACK_EXCEEDS_PAYMENT: "Charge back at most the remaining amount of the payment.",
    Code.NOTHING_TO_SETTLE: "Wait until a payment with `settle` set to `later` has been posted.",
    Code.SETTLEMENT_EXCEEDS_PENDING: "Send a smaller amount, or omit `amount` to settle everything.",
    Code.INVOICE_EXCEEDED: "Pay at most the unpaid amount of the invoice, which `detail` names.",
    Code.RESERVE_EXCEEDED: "Release at most the amount that `detail` names, or a whole hold with `hold_order_no`.",
    Code.RESERVE_HOLD_RELEASED: "Read the order that `detail` names. If it is refused, send the same request again.",
    Code.DEBT_EXCEEDED: "Send an amount that is at most the debt, see `balances` of `GET /v1/merchants/{id}`.",
    Code.DEBT_IN_PROGRESS: "Send the same request again. If a chargeback of the merchant is parked, release it first.",
    Code.WITHDRAWAL_LIMIT_EXCEEDED: "Withdraw less, or withdraw on another day.",
    Code.NOTHING_TO_WITHDRAW: "Wait until the available balance exceeds the merchant's debt and the fee.",
    Code.WITHDRAWAL_NOT_POSTED: "Read the withdrawal. It can become `paid` or `bounced` only after it was posted.",
    Code.WITHDRAWAL_PAID: "If the money came back later, send `POST /v1/payout-returns`. Otherwise the order is final.",
    Code.WITHDRAWAL_BOUNCED: "No action is needed: the withdrawal is final and the merchant has the money again.",
    Code.WITHDRAWAL_NOT_FOUND: "Check `withdrawal_order_no`: it must name a withdrawal of this merchant.",
    Code.WITHDRAWAL_NOT_PAID: "Read the withdrawal. Only a `paid` withdrawal can return; any other one can bounce.",
    Code.RETURN_EXCEEDS_WITHDRAWAL: "Return at most the amount of the withdrawal less `returned`.",
    Code.REFUNDS_WAITING: "Report the end of each `posted` refund of the channel, then approve the change again.",
    Code.REFUND_NOT_POSTED: "Read the refund. It can become `paid` or `bounced` only after it was posted.",
    Code.REFUND_PAID: "No action is needed: the refund is final.",
    Code.REFUND_BOUNCED: "No action is needed: the refund is final and the merchant has the money again.",
    Code.ORDER_NOT_POSTED: "Read the order. The request needs it to be `posted`.",
    Code.ORDER_ENDED: "No action is needed: the order is final.",
    Code.ORDER_NOT_PARKED: "Read `detail`. Only a parked order can be cleared, and only once at a time.",
    Code.CHARGEBACK_NOT_POSTED: "If the chargeback is `posting`, send the request later. End an open dispute as `won`.",
    Code.WIN_EXCEEDS_CHARGEBACK: "Send at most the amount of the chargeback that has not come back.",
    Code.OWN_FUNDS_EXCEEDED: "Take out at most the own funds that came in. Sweep income with `POST /v1/fee-sweeps`.",
    Code.SWEEP_EXCEEDS_INCOME: "Sweep at most the income less the expenses that has not been swept.",
    Code.PAYABLE_EXCEEDED: "Pay at most the balance of the account that `detail` names.",
    Code.SUSPENSE_EXCEEDED: "Clear at most what is open in the suspense account, see `GET /v1/balances`.",
    Code.APPROVAL_NEEDS_ANOTHER: "Use the token of another module, or of another person with the role `checker`.",
    Code.ORDER_APPROVED: "Read the order. To undo a posted order, request its reversal.",
    Code.ORDER_REJECTED: "The order is final. Send a new order with a new `order_no`.",
    Code.ORDER_EXPIRED: "The order is final. Send a new order with a new `order_no`.",
    Code.CHANGE_WAITING: "Wait until the change that `detail` names is decided, then send the request again.",
    Code.CHANGE_ENDED: "Read the change. To request it again, send a new request.",
    Code.ORDER_NOT_REVERSIBLE: 'Read `detail`. See "Way back" of the fund service for what undoes the order.',
    Code.ORDER_ALREADY_REVERSED: "No action is needed: `reversed_by` of the order names the reversal.",
    Code.TOO_MANY_WEBHOOKS: "Disable an endpoint that is not needed, then send the same request again.",
}


def refusal_members(refusal: Refusal) -> Problem:
    """Return the problem for a refusal."""
    status, title = REFUSALS[refusal.code]
    field = UNSET if refusal.field is None else refusal.field
    return Problem(URN + refusal.code, title, status, refusal.detail, field=field)


def refused(refusal: Refusal) -> Reply:
    return Reply(REFUSALS[refusal.code][0], encode(refusal_members(refusal)), PROBLEM_TYPE, {})


def unverified_items(kind: str, keys: Sequence[object]) -> list[Unverified] | UnsetType:
    """Return the member `unverified` of a page. It lists the omitted records, which do not match their MAC."""
    if not keys:
        return UNSET
    type_, found = URN + "integrity", [(str(key), f"{kind} {key} does not match its MAC") for key in keys]
    return [Unverified(key, Problem(type_, UNVERIFIED, 500, detail)) for key, detail in found]


def gone(away: OrderFault) -> Reply:
    """Return the reply for an order whose request ended with a fault.

    The status is 503 if nothing was stored. It is 503 with `outcome-unknown` if it is uncertain whether the order was
    stored. It is 500 if a row does not match its MAC. After a 503 a retry is safe.
    """
    fault = fault_of(away)
    return unverified(away.detail) if fault is None else faulted(fault)


def fault_of(answer: Answer) -> Fault | None:
    """Return the fault of an answer if a retry is safe and may help, else None."""
    if not isinstance(answer, OrderFault) or answer.tampered:
        return None
    return Unavailable(answer.detail) if answer.undone else OutcomeUnknown(answer.detail)
