"""Model of the fund service: the bodies of API requests, one strict and bounded type for each kind of order.

A request is refused if an order with the same order number and other content exists.
"""

import hashlib
from datetime import date
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from fundledger.fund.model.days import FIRST, LAST
from fundledger.fund.model.fees import FeeReturn, TaxMode
from fundledger.fund.model.order import PLATFORM, Kind
from fundledger.json_values import Uuid, about

AUTO: Final = "auto-"
"""Prefix of the order numbers of automatic settlements, of the final orders of merchants that close, of rolling reserve
holds, and of the releases by the job `reserves`.
"""
AMOUNT_MAX: Final = 2**53 - 1
BATCH_MAX: Final = 5000
DAYS_MAX: Final = 60
"""The maximum of `settlement_days`."""
ROLLING_DAYS_MAX: Final = 1095
"""The maximum of `rolling_days`."""

Amount = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX, description="in minor units")]
Part = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX, description="in minor units")]
MerchantId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="1 to 64 of `[A-Za-z0-9_.-]`")]
OrderNo = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9:_./-]{1,64}\Z", description="the merchant's own number")]
CallerOrderNo = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?!auto-)[A-Za-z0-9:_./-]{1,64}\Z", description="the merchant's own number; `auto-` is reserved"
    ),
]
WithdrawalNo = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?!auto-close-)[A-Za-z0-9:_./-]{1,64}\Z",
        description="the merchant's own number; `auto-close-` is reserved",
    ),
]
ChannelName = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,32}\Z", description="1 to 32 of `[A-Za-z0-9_.-]`")
]
ChannelRef = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00]*\Z")]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z", description="ISO 4217")]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=1000, pattern=r"^[^\x00]*\Z")]
Person = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.@-]{1,64}\Z", description="a note of the caller; it decides nothing")
]
Ticket = Annotated[
    str,
    msgspec.Meta(max_length=1024, pattern=r"^[^\x00]*\Z", description="accepted and ignored in this version"),
]
Region = Annotated[
    str,
    msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,32}\Z", description="a currency, a country, or another name for holidays"),
]
LocalTime = Annotated[
    str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z", description="local time of day, in whole minutes")
]
SettlementDays = Annotated[int, msgspec.Meta(ge=0, le=DAYS_MAX, description="working days")]
RollingDays = Annotated[int, msgspec.Meta(ge=1, le=ROLLING_DAYS_MAX, description="days")]
RollingBasisPoints = Annotated[int, msgspec.Meta(ge=1, le=10000, description="hundredths of a percent")]
BasisPoints = Annotated[int, msgspec.Meta(ge=0, le=10000, description="hundredths of a percent")]
Month = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])\Z", description="a month, YYYY-MM")]


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The request of an order. `merchant` is absent, or `platform`, if the order belongs to the platform."""

    kind: ClassVar[Kind]
    order_no: OrderNo
    ticket: Ticket | None = None

    @property
    def whose(self) -> str:
        return getattr(self, "merchant", PLATFORM)

    def digest(self) -> bytes:
        """Return the SHA-256 of the content of the request. Requests with the same content have the same digest."""
        return hashlib.sha256(self.kind.encode() + b"|" + _encode(self)).digest()


class OwnedRequest(Request, kw_only=True):
    """The request of an order that belongs to a merchant, or to the platform. It has the same digest whether it names
    the platform or omits it. A reversal has another digest then, because its digests are stored since earlier versions.
    """

    def digest(self) -> bytes:
        for name in ("merchant", "of_merchant"):
            if getattr(self, name, None) == PLATFORM:
                # The encoder omits a default only if it is the same object, and a decoded text is another one.
                setattr(self, name, PLATFORM)
        return Request.digest(self)


class Payment(Request, kw_only=True):
    """A payment that its channel has confirmed: `channel` has the money. `settle`: with `now` the merchant can withdraw
    the money immediately, with `later` after a settlement.
    """

    kind: ClassVar[Kind] = Kind.PAYMENT
    merchant: MerchantId
    amount: Amount
    currency: Currency
    channel: ChannelName
    channel_ref: ChannelRef | None = None
    settle: Literal["now", "later"] = "now"


class Refund(Request, kw_only=True):
    """A full or partial refund of a posted payment. The fee is returned in proportion, unless the fee rule
    keeps it. In the state `posted`, the money has left the merchant. The last state is `paid` or `bounced`.
    """

    kind: ClassVar[Kind] = Kind.REFUND
    merchant: MerchantId
    payment_order_no: OrderNo
    amount: Amount


def require_day(day: date, member: str = "day") -> None:
    """Raise ValueError if the day in a member is too early or too late for the calendar."""
    if not FIRST <= day <= LAST:
        raise ValueError(f"{member} must be within {FIRST} to {LAST}")


def require_both(*, has_points: bool, has_days: bool) -> None:
    """Raise ValueError if only one member of a rolling reserve has a value."""
    if has_points != has_days:
        missing = "rolling_basis_points" if has_days else "rolling_days"
        raise ValueError(f"{missing} has no value: send both members of the rolling reserve, or null for both")


class Settlement(Request, kw_only=True):
    """A settlement of payments with `settle: later`, oldest first. Without `amount`, all of these payments
    are settled. With `day`, only payments that are due on or before this day are settled.
    """

    kind: ClassVar[Kind] = Kind.SETTLEMENT
    order_no: CallerOrderNo
    merchant: MerchantId
    amount: Amount | None = None
    day: Annotated[date, msgspec.Meta(description="only payments with `settle_on` up to this day")] | None = None

    def __post_init__(self) -> None:
        if self.day is not None:
            require_day(self.day)


class Withdrawal(Request, kw_only=True):
    """A withdrawal of `amount` to the bank account `payee` of the merchant. A merchant with a registered payee has to
    name one. With `all` instead of `amount`, the amount is what remains of the available balance after the merchant's
    debt and the fee. A replay has the amount that was decided first.
    """

    kind: ClassVar[Kind] = Kind.WITHDRAWAL
    order_no: WithdrawalNo
    merchant: MerchantId
    amount: Amount | None = None
    channel: ChannelName
    all: bool = False
    payee: Annotated[Uuid, about("id of the payee")] | None = None

    def __post_init__(self) -> None:
        if self.amount is None and not self.all:
            raise ValueError("amount is missing: send `amount`, or `all` as true")
        if self.amount is not None and self.all:
            raise ValueError("amount must be omitted if all is true")


class PayoutReturn(Request, kw_only=True):
    """A return of a payout: the payee's bank returned the money of a withdrawal that is `paid`, in whole or in part.
    `channel_ref` is the reference of the return at the channel. The amount is credited to the merchant, without the fee
    of the withdrawal if `fee` is `kept`, with its share of the fee if `fee` is `returned`.
    """

    kind: ClassVar[Kind] = Kind.PAYOUT_RETURN
    merchant: MerchantId
    withdrawal_order_no: OrderNo
    amount: Amount
    channel_ref: ChannelRef
    fee: Literal["kept", "returned"] = "kept"


class Chargeback(Request, kw_only=True):
    """A chargeback: the payer's bank took a payment back. It takes the pending part of the payment first, then the
    available balance. The merchant owes the rest.
    """

    kind: ClassVar[Kind] = Kind.CHARGEBACK
    merchant: MerchantId
    payment_order_no: OrderNo
    amount: Amount
    channel_ref: ChannelRef | None = None


class Recovery(Request, kw_only=True):
    """A recovery: the merchant's debt is repaid from its available balance."""

    kind: ClassVar[Kind] = Kind.RECOVERY
    merchant: MerchantId
    amount: Amount


class WriteOff(Request, kw_only=True):
    """A write-off of a merchant's debt, as a loss of the platform. It is posted after another identity has approved
    it.
    """

    kind: ClassVar[Kind] = Kind.WRITE_OFF
    merchant: MerchantId
    amount: Amount
    reason: Reason


class Adjustment(Request, kw_only=True):
    """A correction of a merchant's balance, against suspense. It is posted after another identity has approved it.
    `against`: the suspense account, `suspense:over` or `suspense:short`; default: `short` for a credit, `over` for a
    debit.
    """

    kind: ClassVar[Kind] = Kind.ADJUSTMENT
    merchant: MerchantId
    amount: Amount
    direction: Literal["credit", "debit"]
    reason: Reason
    person: Person | None = None
    against: Literal["over", "short"] | None = None


class ChannelCost(Request, kw_only=True):
    """A cost that a channel charges the platform."""

    kind: ClassVar[Kind] = Kind.CHANNEL_COST
    channel: ChannelName
    amount: Amount
    currency: Currency


class BankDifference(Request, kw_only=True):
    """A bank overage (`more`) or shortage (`less`) against the ledger, in suspense until it is explained. It is posted
    after another identity has approved it.
    """

    kind: ClassVar[Kind] = Kind.BANK_DIFFERENCE
    channel: ChannelName
    amount: Amount
    currency: Currency
    direction: Literal["more", "less"]
    reason: Reason


class Reversal(Request, kw_only=True):
    """The reversal of the voucher of an order of one of the kinds `of_kind`. Other kinds have another way back.

    An order can be reversed once, after another identity has approved the reversal. Omit `merchant` if the order
    belongs to the platform.
    """

    kind: ClassVar[Kind] = Kind.REVERSAL
    merchant: MerchantId = PLATFORM
    of_kind: Literal[
        "payment",
        "payout_return",
        "channel_cost",
        "adjustment",
        "bank_difference",
        "settlement",
        "recovery",
        "write_off",
        "top_up",
        "dispute_fee",
        "own_funds",
        "fee_sweep",
        "payable_payment",
        "suspense_clearing",
        "parked_clearing",
        "split_payment",
        "split_chargeback",
        "channel_invoice",
    ]
    of_order_no: OrderNo
    reason: Reason


class FeeTier(msgspec.Struct, forbid_unknown_fields=True):
    """A fee tier: it applies to the whole amount if the amount is at least `from_amount`."""

    from_amount: Amount
    basis_points: BasisPoints = 0
    fixed: Part = 0


class Fee(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A fee: `basis_points` of the amount, rounded half up, plus `fixed`; limited to `minimum` and `maximum`, and to
    the amount. `tax_basis_points`: the tax on the fee, which is `included` in the fee, or `added` to it. `return`:
    whether refunds return the fee, in proportion or not at all.
    """

    basis_points: BasisPoints = 0
    fixed: Part = 0
    minimum: Part = 0
    maximum: Part | None = None
    tiers: Annotated[list[FeeTier], msgspec.Meta(max_length=20)] = []
    tax_basis_points: BasisPoints = 0
    tax_mode: TaxMode = "included"
    returned: FeeReturn = msgspec.field(default="proportional", name="return")

    def __post_init__(self) -> None:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError("maximum is less than minimum")


Calendar = Literal["manual", "daily", "weekly", "monthly"]
MerchantName = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*\Z")]


class MerchantRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A new merchant. `fee` applies to payments, `withdrawal_fee` to withdrawals. `withdrawal_limit` is per day.
    `settlement`: when pending payments are settled automatically (weekly: on Mondays, monthly: on the first).

    `settlement_days`: the working days from a payment to its settlement; without it, a payment is settled on the next
    day of the calendar. `settlement_cut`: the local time at which a day of payments ends; without it, the cut of the
    accounting date. `settlement_region`: whose holidays apply; without it, those of the currency.

    `rolling_basis_points`, `rolling_days`: the rolling reserve, both or none of them.
    """

    id: MerchantId
    name: MerchantName
    currency: Currency
    fee: Fee | None = None
    withdrawal_fee: Fee | None = None
    withdrawal_limit: Part | None = None
    settlement: Calendar = "manual"
    settlement_days: SettlementDays | None = None
    settlement_cut: LocalTime | None = None
    settlement_region: Region | None = None
    rolling_basis_points: RollingBasisPoints | None = None
    rolling_days: RollingDays | None = None

    def __post_init__(self) -> None:
        points, days = self.rolling_basis_points, self.rolling_days
        require_both(has_points=points is not None, has_days=days is not None)

    def digest(self) -> bytes:
        return hashlib.sha256(b"merchant|" + _encode(self)).digest()


_encode = msgspec.json.Encoder().encode
