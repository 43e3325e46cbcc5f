"""Model of the fund service: registered channels, and the orders that they permit. Pure."""

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from fundledger.fund.model.merchant_requests import TopUp
from fundledger.fund.model.order import REFUNDS, Kind
from fundledger.fund.model.own_requests import OwnTransfer
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import ChannelName, Currency, Part, Payment, Reason, Request
from fundledger.fund.model.split_requests import SplitPayment

CHANNELS_MAX: Final = 1000
"""The maximum number of channels that requests can register, because each worker keeps all channels in memory."""
NAMED_MAX: Final = 20
"""The maximum number of channels that a refusal names."""
SETTINGS: Final = "the settings"
"""`registered_by` of a channel that the settings name."""
UPGRADE: Final = "the upgrade"
"""`registered_by` of a channel that orders used before channels were registered."""
PayoutMethod = Literal["http", "file", "manual"]
RefundMethod = Literal["payout", "http", "file", "manual"]
ChannelState = Literal["open", "closed"]
Overdraft = Annotated[Part | None, msgspec.Meta(description="null: payouts may exceed the balance by any amount")]


class Channel(msgspec.Struct, frozen=True):
    """A row of fund.channels. `overdraft`: the amount by which payouts may exceed the balance of the bank account, None
    for any amount. `references_unique`: each payment needs a channel reference. A closed channel takes no withdrawals.
    `refund`: how refunds are made; `payout`: as payouts.
    """

    name: str
    currency: str
    bank_account: str
    payout: PayoutMethod
    references_unique: bool
    overdraft: int | None
    state: ChannelState
    registered_by: str
    created_at: datetime
    refund: RefundMethod = "payout"

    def sends(self, kind: Kind) -> bool:
        """Return whether the service sends the money of orders of this kind. Otherwise a person sends it."""
        method = self.refund if kind in REFUNDS else "payout"
        return (self.payout if method == "payout" else method) == "http"


class ChannelRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A new channel. `payout`: `http` if the service sends payouts to the URL of the channel in the settings, `file` if
    an operator exports them as payout files and imports their results, `manual` if a person sends them and reports
    their ends. `refund`: `http` if the service sends refunds, `file` or `manual` if a person does; `payout`: as
    payouts, but refunds are in no payout file.
    """

    name: ChannelName
    currency: Currency
    payout: PayoutMethod = "manual"
    references_unique: bool = True
    overdraft: Overdraft = 0
    refund: RefundMethod = "payout"
    why: Reason | None = None


class ChannelPatch(msgspec.Struct, forbid_unknown_fields=True):
    """A change of a channel. Members that are omitted keep their value."""

    currency: Currency
    payout: PayoutMethod | UnsetType = UNSET
    references_unique: bool | UnsetType = UNSET
    overdraft: Overdraft | UnsetType = UNSET
    refund: RefundMethod | UnsetType = UNSET
    state: ChannelState | UnsetType = UNSET
    why: Reason | None = None


def refusal_of(request: Request, channel: Channel) -> Refusal | None:
    """Return why a channel does not permit a request, or None if it does. A receipt is a fact, so a closed channel
    takes it. Own money can be transferred from a closed channel, but not to it.
    """
    name = channel.name
    receipt = request if isinstance(request, Payment | TopUp | SplitPayment) else None
    if receipt is not None and channel.references_unique and receipt.channel_ref is None:
        detail = f"a {request.kind.replace('_', '-')} through channel {name} needs the reference of the channel"
        return Refusal(Code.CHANNEL_REF_MISSING, detail, "channel_ref")
    is_target = isinstance(request, OwnTransfer) and request.channel == name
    if (request.kind is Kind.WITHDRAWAL or is_target) and channel.state == "closed":
        return Refusal(Code.CHANNEL_CLOSED, f"channel {name} is closed", "channel")
    return None


def unknown_channel(name: str, currency: str, known: Collection[str]) -> Refusal:
    """Return the refusal for a channel that is not registered for a currency. `known`: the registered names."""
    names = ", ".join(sorted(known)[:NAMED_MAX]) or "none"
    detail = f"channel {name} is not registered for {currency}; registered channels: {names}"
    return Refusal(Code.CHANNEL_NOT_FOUND, detail, "channel")
