"""Model of the fund service: the bodies of API requests about disputes, and about money of merchants that no payment
moves.
"""

from datetime import date
from typing import Annotated, ClassVar, Literal

import msgspec

from fundledger.fund.model.order import Kind
from fundledger.fund.model.requests import (
    Amount,
    CallerOrderNo,
    ChannelName,
    ChannelRef,
    Currency,
    MerchantId,
    OrderNo,
    Reason,
    Request,
    require_day,
)


class TopUp(Request, kw_only=True):
    """A top-up that its channel has confirmed: the merchant sent money to the platform. A fee is charged only if a fee
    rule of the product `top_up` applies.
    """

    kind: ClassVar[Kind] = Kind.TOP_UP
    merchant: MerchantId
    amount: Amount
    currency: Currency
    channel: ChannelName
    channel_ref: ChannelRef | None = None


class Transfer(Request, kw_only=True):
    """A transfer from the available balance of a merchant to that of another merchant in the same currency. The voucher
    also repays the whole debt of the merchant, and the debt of the other merchant as far as the amount reaches.
    """

    kind: ClassVar[Kind] = Kind.TRANSFER
    merchant: MerchantId
    to_merchant: MerchantId
    amount: Amount
    reason: Reason | None = None

    def __post_init__(self) -> None:
        if self.merchant == self.to_merchant:
            raise ValueError("to_merchant must differ from merchant")


class ReserveHold(Request, kw_only=True):
    """A part of a merchant's available balance that the platform holds in reserve. It cannot be withdrawn. With
    `release_on`, the whole hold is released on that day.
    """

    kind: ClassVar[Kind] = Kind.RESERVE_HOLD
    order_no: CallerOrderNo
    merchant: MerchantId
    amount: Amount
    reason: Reason | None = None
    release_on: Annotated[date, msgspec.Meta(description="the day on which the hold is released")] | None = None

    def __post_init__(self) -> None:
        if self.release_on is not None:
            require_day(self.release_on, "release_on")


class ReserveRelease(Request, kw_only=True):
    """A part of a merchant's reserve that returns to its available balance: either `amount`, or the whole reserve hold
    `hold_order_no`. An amount never comes from holds with `release_on`.
    """

    kind: ClassVar[Kind] = Kind.RESERVE_RELEASE
    order_no: CallerOrderNo
    merchant: MerchantId
    amount: Amount | None = None
    hold_order_no: OrderNo | None = None
    reason: Reason | None = None

    def __post_init__(self) -> None:
        if self.amount is None and self.hold_order_no is None:
            raise ValueError("amount is missing: send `amount`, or `hold_order_no`")
        if self.amount is not None and self.hold_order_no is not None:
            raise ValueError("amount must be omitted if hold_order_no is given")


class Dispute(Request, kw_only=True):
    """A dispute of a payment: the payer's bank may take the payment back. The amount is taken from the merchant like
    that of a chargeback, and is kept in dispute. The last state is `won` when the merchant has its money again, or
    `lost` when the bank has taken it: a lost dispute is the chargeback of its payment.
    """

    kind: ClassVar[Kind] = Kind.DISPUTE
    merchant: MerchantId
    payment_order_no: OrderNo
    amount: Amount
    reason: Reason | None = None


class DisputeWon(Request, kw_only=True):
    """A dispute that was won after the bank had taken the money: the bank returned the amount of a chargeback, or of a
    lost dispute, in whole or in part. The amount repays the merchant's debt first. `of_kind`: the kind of the order
    whose amount came back.
    """

    kind: ClassVar[Kind] = Kind.DISPUTE_WON
    merchant: MerchantId
    chargeback_order_no: OrderNo
    amount: Amount
    of_kind: Literal["chargeback", "dispute"] = "chargeback"
    channel_ref: ChannelRef | None = None


class DisputeFee(Request, kw_only=True):
    """A fee of a channel for a dispute, which the merchant bears. The merchant owes what its available balance does not
    cover. `against`: the channel has collected the fee (`bank`), or collects it later (`payable`).
    """

    kind: ClassVar[Kind] = Kind.DISPUTE_FEE
    merchant: MerchantId
    amount: Amount
    channel: ChannelName
    channel_ref: ChannelRef | None = None
    against: Literal["bank", "payable"] = "bank"
    reason: Reason | None = None

    def __post_init__(self) -> None:
        if self.against == "payable" and self.channel_ref is not None:
            raise ValueError("channel_ref must be omitted if against is payable: no money has moved at the channel")
