"""Python client of the account service and the fund service, asynchronous and typed. Examples:
docs/how-to/client.md.
"""

from fundledger.client.account_service import AccountService
from fundledger.client.connection import Retries
from fundledger.client.event import Event
from fundledger.client.faults import (
    ContractBroken,
    Fault,
    OutcomeUnknown,
    Problem,
    QuotaExceeded,
    Refused,
    Unauthorized,
    Unavailable,
)
from fundledger.client.fund_service import FundService
from fundledger.client.fund_types import (
    DeadEvent,
    Fee,
    FeeRule,
    Merchant,
    Order,
    OrderRefused,
    Payment,
    PaymentResult,
    Step,
    Webhook,
)
from fundledger.client.types import (
    Account,
    Balance,
    BalanceAt,
    Entry,
    Hold,
    PostedVoucher,
    StatementEntry,
    Voucher,
    VoucherRecord,
    VoucherResult,
    credit,
    debit,
)

__all__ = [
    "Account",
    "AccountService",
    "Balance",
    "BalanceAt",
    "ContractBroken",
    "DeadEvent",
    "Entry",
    "Event",
    "Fault",
    "Fee",
    "FeeRule",
    "FundService",
    "Hold",
    "Merchant",
    "Order",
    "OrderRefused",
    "OutcomeUnknown",
    "Payment",
    "PaymentResult",
    "PostedVoucher",
    "Problem",
    "QuotaExceeded",
    "Refused",
    "Retries",
    "StatementEntry",
    "Step",
    "Unauthorized",
    "Unavailable",
    "Voucher",
    "VoucherRecord",
    "VoucherResult",
    "Webhook",
    "credit",
    "debit",
]
