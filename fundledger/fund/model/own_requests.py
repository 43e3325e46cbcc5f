"""Model of the fund service: the bodies of API requests about the platform's own money, what it owes channels, and
suspense. Each but an invoice needs the approval of another identity.
"""

from typing import ClassVar, Final, Literal

from fundledger.fund.model.order import PLATFORM, RECEIPTS, Kind
from fundledger.fund.model.requests import (
    Amount,
    ChannelName,
    ChannelRef,
    Currency,
    MerchantId,
    Month,
    OrderNo,
    OwnedRequest,
    Reason,
    Request,
)


class OwnTransfer(Request, kw_only=True):
    """A transfer between two bank accounts of the platform: the money leaves the channel `from_channel` when the order
    is posted. The last state is `paid` when the money has arrived at the channel `channel`, or `bounced` when it has
    come back. `from_ref`: the reference of `from_channel`.
    """

    kind: ClassVar[Kind] = Kind.OWN_TRANSFER
    from_channel: ChannelName
    channel: ChannelName
    amount: Amount
    currency: Currency
    from_ref: ChannelRef | None = None

    def __post_init__(self) -> None:
        if self.from_channel == self.channel:
            raise ValueError("channel must differ from from_channel")


class OwnFunds(Request, kw_only=True):
    """Own funds of the platform that came into a bank account (`in`), or left it (`out`). No more can leave than came
    in.
    """

    kind: ClassVar[Kind] = Kind.OWN_FUNDS
    channel: ChannelName
    amount: Amount
    currency: Currency
    direction: Literal["in", "out"]
    reason: Reason
    channel_ref: ChannelRef | None = None


class FeeSweep(Request, kw_only=True):
    """A fee sweep: income of the platform leaves a bank account. The sum of all fee sweeps in a currency is at most the
    income less the expenses.
    """

    kind: ClassVar[Kind] = Kind.FEE_SWEEP
    channel: ChannelName
    amount: Amount
    currency: Currency
    reason: Reason
    channel_ref: ChannelRef | None = None


class ChannelInvoice(Request, kw_only=True):
    """An invoice of a channel for its fees of a month, which is not paid yet. `invoice_no` is the number that the
    channel gave the invoice: it counts once.
    """

    kind: ClassVar[Kind] = Kind.CHANNEL_INVOICE
    channel: ChannelName
    amount: Amount
    currency: Currency
    invoice_no: ChannelRef
    period: Month


class PayablePayment(Request, kw_only=True):
    """A payment of what the platform owes a channel, or the tax authority (`against`: `tax`), from the bank account of
    `channel`. It is at most the balance of the payable account. `invoice_order_no`: the invoice of the channel that is
    paid, in whole or in part. The payments of an invoice never exceed it.
    """

    kind: ClassVar[Kind] = Kind.PAYABLE_PAYMENT
    channel: ChannelName
    amount: Amount
    currency: Currency
    against: Literal["channel", "tax"] = "channel"
    invoice_order_no: OrderNo | None = None
    channel_ref: ChannelRef | None = None
    reason: Reason | None = None

    def __post_init__(self) -> None:
        if self.against == "tax" and self.invoice_order_no is not None:
            raise ValueError("invoice_order_no must be omitted if against is tax")


AGAINST_OVERAGE: Final = frozenset({"merchant", "income", "bank", "short"})
AGAINST_SHORTAGE: Final = frozenset({"merchant", "loss", "channel"})


class SuspenseClearing(OwnedRequest, kw_only=True):
    """The clearing of an overage (`more`) or a shortage (`less`) of a bank that was explained. `against`: the cause.

    An overage can belong to a merchant (`merchant`), be income of the platform (`income`), have been taken back by the
    bank of `channel` (`bank`), or be the other side of a shortage (`short`). A shortage can be the fault of a merchant
    (`merchant`), a loss (`loss`), or a cost of a channel (`channel`).
    """

    kind: ClassVar[Kind] = Kind.SUSPENSE_CLEARING
    merchant: MerchantId = PLATFORM
    amount: Amount
    currency: Currency
    direction: Literal["more", "less"]
    against: Literal["merchant", "income", "bank", "short", "loss", "channel"]
    channel: ChannelName | None = None
    reason: Reason

    def __post_init__(self) -> None:
        fitting = AGAINST_OVERAGE if self.direction == "more" else AGAINST_SHORTAGE
        if self.against not in fitting:
            raise ValueError(f"against must be one of {', '.join(sorted(fitting))} if direction is {self.direction}")
        if (self.against == "merchant") != (self.merchant != PLATFORM):
            raise ValueError("merchant is necessary if against is merchant, and must be omitted otherwise")
        if (self.against == "bank") != (self.channel is not None):
            raise ValueError("channel is necessary if against is bank, and must be omitted otherwise")


PARKED_IN: Final = frozenset({"merchant", "income", "bank"})
PARKED_OUT: Final = frozenset({"merchant", "loss"})


class ParkedClearing(OwnedRequest, kw_only=True):
    """The clearing of a parked order that cannot be released, for example because its merchant is closed. Its whole
    amount moves out of `suspense:parked`, and the parked order becomes `cleared`.

    `against`: where the money goes. Money that came in can go to another `merchant`, to income of the platform
    (`income`), or back out of the channel (`bank`). Money that went out can be charged to another `merchant`, or be a
    loss (`loss`). Omit `of_merchant` if the parked order belongs to the platform.
    """

    kind: ClassVar[Kind] = Kind.PARKED_CLEARING
    merchant: MerchantId = PLATFORM
    of_kind: Literal[
        "payment",
        "payout_return",
        "chargeback",
        "top_up",
        "dispute_won",
        "dispute_fee",
        "split_payment",
        "split_chargeback",
    ]
    of_merchant: MerchantId = PLATFORM
    of_order_no: OrderNo
    against: Literal["merchant", "income", "bank", "loss"]
    reason: Reason

    def __post_init__(self) -> None:
        if (self.against == "merchant") != (self.merchant != PLATFORM):
            raise ValueError("merchant is necessary if against is merchant, and must be omitted otherwise")
        fitting = PARKED_IN if RECEIPTS[Kind(self.of_kind)] == "in" else PARKED_OUT
        if self.against not in fitting:
            raise ValueError(f"against must be one of {', '.join(sorted(fitting))} if of_kind is {self.of_kind}")
        if self.merchant == self.of_merchant != PLATFORM:
            raise ValueError("merchant must differ from of_merchant: the order is released when its accounts are open")
