"""The interface of a payment channel, and its two kinds of failure: nothing was sent, or the outcome is unknown."""

from datetime import date
from enum import StrEnum
from typing import Protocol

import msgspec


class Standing(StrEnum):
    """The status of a payout at its channel. `accepted` becomes `paid` or `bounced`. `absent`: the channel has received
    no request for this payout.
    """

    ACCEPTED = "accepted"
    PAID = "paid"
    BOUNCED = "bounced"
    ABSENT = "absent"


class Payout(msgspec.Struct, frozen=True):
    """The report of a channel about a payout. `amount` (in minor units) and `currency`: None if not reported."""

    state: Standing
    channel_ref: str | None = None
    reason: str | None = None
    amount: int | None = None
    currency: str | None = None


class StatementLine(msgspec.Struct, frozen=True):
    """A movement of money at the channel. `amount` is positive for money received. `ref`: the order id of a payout that
    the fund service requested, else the channel's own reference.
    """

    ref: str
    amount: int
    currency: str


class ChannelFault(Exception):
    """The channel did not answer, or its answer is invalid."""


class ChannelAway(ChannelFault):
    """It is certain that the channel did not execute the call. A retry is safe."""


class ChannelSilent(ChannelFault):
    """The outcome of the call is unknown: call `query`. A retry is safe only after `query` returned `absent`."""


class Channel(Protocol):
    """A payment channel. `ref` is the order id. The channel never executes two payouts with the same reference.

    Every call ends in bounded time. After a cancelled call the outcome is unknown, as after ChannelSilent.
    """

    async def pay_out(self, ref: str, amount: int, currency: str) -> Payout:
        """Send money. A repeated call with the same `ref` sends nothing, and returns the current status, never
        `absent`. Raises ChannelAway, ChannelSilent.
        """
        ...

    async def query(self, ref: str) -> Payout:
        """Return the current status of a payout. Changes nothing. Raises ChannelAway."""
        ...

    async def statement(self, day: date) -> list[StatementLine]:
        """Return the movements of a day (UTC), in the channel's order. Raises ChannelAway."""
        ...
