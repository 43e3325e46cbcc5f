"""Interface of the payment channels of the fund service. A call can fail in two ways: nothing was sent, or the outcome
is unknown.
"""

from datetime import date
from enum import StrEnum
from typing import Protocol

import msgspec

from fundledger.fund.model.bank_account import BankAccount


class Standing(StrEnum):
    """The status of a payout or a refund, as its channel reports it. One that is `accepted` becomes `paid` or `bounced`
    later. `absent`: the channel has received no request for it.
    """

    ACCEPTED = "accepted"
    PAID = "paid"
    BOUNCED = "bounced"
    ABSENT = "absent"


class Payout(msgspec.Struct, frozen=True):
    """The report of a channel about a payout or a refund. `amount` (in minor units) and `currency` are None if the
    channel omits them.
    """

    state: Standing
    channel_ref: str | None = None
    reason: str | None = None
    amount: int | None = None
    currency: str | None = None


class StatementLine(msgspec.Struct, frozen=True):
    """A movement of money at a channel. `amount` is positive for money that the channel received. `ref`: for a payout
    or a refund that the fund service requested, and for a payout that returned, its order id; for any other movement,
    the channel's own reference.
    """

    ref: str
    amount: int
    currency: str


class ChannelFault(Exception):
    """A channel did not answer, or its answer is invalid."""


class ChannelAway(ChannelFault):
    """It is certain that the channel did not execute a call. A retry is safe."""


class ChannelSilent(ChannelFault):
    """The outcome of a call is unknown. The caller has to call `query`. A retry is safe only after `query` returned
    `absent`.
    """


class Channel(Protocol):
    """A payment channel. `ref` is the order id of a payout or a refund. The channel never executes two payouts, or two
    refunds, with the same `ref`.

    Every call ends in bounded time. After a cancellation the outcome of the call is unknown, as after ChannelSilent.
    """

    async def pay_out(self, ref: str, amount: int, currency: str, payee: BankAccount | None = None) -> Payout:
        """Send money to a bank account. `payee` is None for a merchant without payees: then the channel has to know the
        account. A repeated call with the same `ref` sends nothing and returns the current status. The status is never
        `absent`. Raises ChannelAway, ChannelSilent.
        """
        ...

    async def query(self, ref: str) -> Payout:
        """Return the current status of a payout. Changes nothing. Raises ChannelAway."""
        ...

    async def refund(self, ref: str, original_ref: str | None, amount: int, currency: str) -> Payout:
        """Send money back to the payer of a payment. `original_ref`: the reference of the payment at the channel, None
        if the payment has none. Otherwise as `pay_out`.
        """
        ...

    async def query_refund(self, ref: str) -> Payout:
        """Return the current status of a refund, as `query` of a payout."""
        ...

    async def statement(self, day: date) -> list[StatementLine]:
        """Return the movements of a day (UTC), in the sequence of the channel. Raises ChannelAway."""
        ...
