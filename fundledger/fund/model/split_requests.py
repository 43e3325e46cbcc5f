"""Model of the fund service: the bodies of API requests about payments that are divided among merchants."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

import msgspec

from fundledger.fund.model.order import PLATFORM, Kind
from fundledger.fund.model.requests import (
    AMOUNT_MAX,
    Amount,
    ChannelName,
    ChannelRef,
    Currency,
    MerchantId,
    OrderNo,
    OwnedRequest,
    Part,
)
from fundledger.fund.model.split import are_distinct

PARTS_MAX: Final = 20
"""The maximum number of parts of a split order. Its voucher has at most 43 entries; the account service takes 64."""
Owner = Annotated[MerchantId, msgspec.Meta(description="the merchant that owns the order, such as a marketplace")]


class SplitPaymentPart(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The part of one merchant. `commission`: the fee of this part. Without it, the merchant's own fee rule applies."""

    merchant: MerchantId
    amount: Amount
    commission: Part | None = None


class SplitPayment(OwnedRequest, kw_only=True):
    """A payment that its channel has confirmed, divided among 2 to 20 merchants with one currency. The parts sum to the
    amount. Omit `merchant` if the order belongs to the platform. It identifies the order together with `order_no`, and
    needs no part.
    """

    kind: ClassVar[Kind] = Kind.SPLIT_PAYMENT
    merchant: Owner = PLATFORM
    amount: Amount
    currency: Currency
    channel: ChannelName
    channel_ref: ChannelRef | None = None
    parts: Annotated[list[SplitPaymentPart], msgspec.Meta(min_length=2, max_length=PARTS_MAX)]

    def __post_init__(self) -> None:
        _check_parts(self.parts, self.amount)
        if any(part.commission is not None and part.commission > part.amount for part in self.parts):
            raise ValueError("commission must not exceed the amount of its part")


class SplitRefundPart(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    merchant: MerchantId
    amount: Amount


RefundParts = Annotated[
    list[SplitRefundPart], msgspec.Meta(min_length=1, max_length=PARTS_MAX, description="default: in proportion")
]


class _SplitReturn(OwnedRequest, kw_only=True):
    """The members that split refunds and split chargebacks have. `parts`: the division of the amount. Without `parts`,
    the amount is divided in proportion to what is left of each part.
    """

    kind: ClassVar[Kind]
    merchant: Owner = PLATFORM
    of_order_no: OrderNo
    amount: Amount | None = None
    parts: RefundParts | None = None

    def __post_init__(self) -> None:
        if self.parts is None:
            if self.amount is None:
                raise ValueError("amount is missing: send amount, or parts")
            return
        # The same content has to have the same digest, with or without the amount.
        self.amount = sum(part.amount for part in self.parts) if self.amount is None else self.amount
        _check_parts(self.parts, self.amount)


class SplitRefund(_SplitReturn, kw_only=True):
    """A full or partial refund of a posted split payment. `parts` has the amount that each merchant refunds. Without
    `parts`, `amount` is divided in proportion to what is left of each part. Fees are returned in proportion, unless the
    fee rule keeps them.
    """

    kind: ClassVar[Kind] = Kind.SPLIT_REFUND


class SplitChargeback(_SplitReturn, kw_only=True):
    """A chargeback of a split payment, divided as a split refund is. Each merchant owes the part that its available
    balance does not cover.
    """

    kind: ClassVar[Kind] = Kind.SPLIT_CHARGEBACK
    channel_ref: ChannelRef | None = None


def _check_parts(parts: Sequence[SplitPaymentPart | SplitRefundPart], amount: int) -> None:
    if not are_distinct(part.merchant for part in parts):
        raise ValueError("parts must have different merchants")
    if sum(part.amount for part in parts) != amount:
        raise ValueError("parts must sum to the amount")
    if amount > AMOUNT_MAX:
        raise ValueError(f"parts must sum to at most {AMOUNT_MAX}")
