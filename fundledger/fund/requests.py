"""What a front end may ask for: strict, bounded, one type a kind of order. What is said of an order is its content: a
repeat of its number that says anything else is refused.
"""

import hashlib
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from fundledger.fund.order import PLATFORM, Kind

AUTO: Final = "auto-"
"""Begins the numbers of settlements that are made by themselves: no front end's number does."""
AMOUNT_MAX: Final = 2**53 - 1
BATCH_MAX: Final = 5000

Amount = Annotated[int, msgspec.Meta(ge=1, le=AMOUNT_MAX, description="in minor units")]
Part = Annotated[int, msgspec.Meta(ge=0, le=AMOUNT_MAX, description="in minor units")]
MerchantId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z", description="1 to 64 of `[A-Za-z0-9_.-]`")]
OrderNo = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9:_./-]{1,64}\Z", description="the merchant's own number")]
SettlementNo = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(?!auto-)[A-Za-z0-9:_./-]{1,64}\Z", description="the merchant's own number; `auto-` begins ours"
    ),
]
ChannelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,32}\Z", description="1 to 32 of the same")]
ChannelRef = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00]*\Z")]
Currency = Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z", description="ISO 4217")]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=1000, pattern=r"^[^\x00]*\Z")]
Person = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.@-]{1,64}\Z", description="which person of the module")]
Ticket = Annotated[str, msgspec.Meta(max_length=1024, pattern=r"^[^\x00]*\Z")]
BasisPoints = Annotated[int, msgspec.Meta(ge=0, le=10000, description="hundredths of a percent")]


class Request(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Of one order. `merchant` stands in every request that is about one's money."""

    kind: ClassVar[Kind]
    order_no: OrderNo
    ticket: Ticket | None = None

    @property
    def whose(self) -> str:
        return getattr(self, "merchant", PLATFORM)

    def digest(self) -> bytes:
        """SHA-256 of what is asked for: two requests with the same content have the same one."""
        return hashlib.sha256(self.kind.encode() + b"|" + _encode(self)).digest()


class Payment(Request, kw_only=True):
    """Confirmed by its channel: `channel` has the money. `settle`: whether the merchant may withdraw it at once."""

    kind: ClassVar[Kind] = Kind.PAYMENT
    merchant: MerchantId
    amount: Amount
    currency: Currency
    channel: ChannelName
    channel_ref: ChannelRef | None = None
    settle: Literal["now", "later"] = "now"


class Refund(Request, kw_only=True):
    """Of a posted payment, in whole or in part. The fee goes back in the same part."""

    kind: ClassVar[Kind] = Kind.REFUND
    merchant: MerchantId
    payment_order_no: OrderNo
    amount: Amount


class Settlement(Request, kw_only=True):
    """Of payments that are `settle: later`, oldest first. Without an amount: of all of them."""

    kind: ClassVar[Kind] = Kind.SETTLEMENT
    order_no: SettlementNo
    merchant: MerchantId
    amount: Amount | None = None


class Withdrawal(Request, kw_only=True):
    kind: ClassVar[Kind] = Kind.WITHDRAWAL
    merchant: MerchantId
    amount: Amount
    channel: ChannelName


class Chargeback(Request, kw_only=True):
    """The payer's bank took a payment back. What the merchant has not, he owes."""

    kind: ClassVar[Kind] = Kind.CHARGEBACK
    merchant: MerchantId
    payment_order_no: OrderNo
    amount: Amount
    channel_ref: ChannelRef | None = None


class Recovery(Request, kw_only=True):
    """The merchant pays what he owes from what he has."""

    kind: ClassVar[Kind] = Kind.RECOVERY
    merchant: MerchantId
    amount: Amount


class WriteOff(Request, kw_only=True):
    """What the merchant owes is given up, at our loss."""

    kind: ClassVar[Kind] = Kind.WRITE_OFF
    merchant: MerchantId
    amount: Amount
    reason: Reason


class Adjustment(Request, kw_only=True):
    """A correction of what the merchant has, against suspense. It is posted when another module approves,
    or another person of the same one, if `person` was named here.
    """

    kind: ClassVar[Kind] = Kind.ADJUSTMENT
    merchant: MerchantId
    amount: Amount
    direction: Literal["credit", "debit"]
    reason: Reason
    person: Person | None = None


class ChannelCost(Request, kw_only=True):
    """What a channel charges us."""

    kind: ClassVar[Kind] = Kind.CHANNEL_COST
    channel: ChannelName
    amount: Amount
    currency: Currency


class BankDifference(Request, kw_only=True):
    """The bank has more, or less, than the books: into suspense, until it is explained."""

    kind: ClassVar[Kind] = Kind.BANK_DIFFERENCE
    channel: ChannelName
    amount: Amount
    currency: Currency
    direction: Literal["more", "less"]
    reason: Reason


class Reversal(Request, kw_only=True):
    """The opposite of an order's voucher, once: of a payment, a channel cost, an adjustment or a bank difference.

    `merchant` is left out where the order is no merchant's.
    """

    kind: ClassVar[Kind] = Kind.REVERSAL
    merchant: MerchantId = PLATFORM
    of_kind: Literal["payment", "channel_cost", "adjustment", "bank_difference"]
    of_order_no: OrderNo
    reason: Reason


class FeeTier(msgspec.Struct, forbid_unknown_fields=True):
    """Of amounts from `from_amount` on: the whole amount is charged so."""

    from_amount: Amount
    basis_points: BasisPoints = 0
    fixed: Part = 0


class Fee(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`basis_points` of the amount, rounded half up, and `fixed`; from `minimum` to `maximum`, at most the amount."""

    basis_points: BasisPoints = 0
    fixed: Part = 0
    minimum: Part = 0
    maximum: Part | None = None
    tiers: Annotated[list[FeeTier], msgspec.Meta(max_length=20)] = []

    def __post_init__(self) -> None:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError("maximum is less than minimum")


Calendar = Literal["manual", "daily", "weekly", "monthly"]


class MerchantRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`fee` is that of payments, `withdrawal_fee` of withdrawals; `withdrawal_limit` is for a day (UTC); `settlement`:
    when what is pending is settled by itself (weekly: on Mondays, monthly: on the first).
    """

    id: MerchantId
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00]*\Z")]
    currency: Currency
    fee: Fee | None = None
    withdrawal_fee: Fee | None = None
    withdrawal_limit: Part | None = None
    settlement: Calendar = "manual"

    def digest(self) -> bytes:
        return hashlib.sha256(b"merchant|" + _encode(self)).digest()


REQUESTS: Final[dict[Kind, type[Request]]] = {type_.kind: type_ for type_ in Request.__subclasses__()}
_encode = msgspec.json.Encoder().encode
