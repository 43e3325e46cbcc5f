"""What a channel has to be able to do, and the two ways in which it can fail."""

from datetime import date
from enum import StrEnum
from typing import Protocol

import msgspec


class Standing(StrEnum):
    """Of one payout at its channel. `accepted` becomes paid or bounced; `absent`: it was never asked for it."""

    ACCEPTED = "accepted"
    PAID = "paid"
    BOUNCED = "bounced"
    ABSENT = "absent"


class Payout(msgspec.Struct, frozen=True):
    """What the channel says. `amount` (in minor units) and `currency`: of what it has, if it tells."""

    state: Standing
    channel_ref: str | None = None
    reason: str | None = None
    amount: int | None = None
    currency: str | None = None


class StatementLine(msgspec.Struct, frozen=True):
    """Money that moved at the channel: `amount` is positive if it came in. `ref` is ours if the channel was asked by us
    (an order id), else the channel's own.
    """

    ref: str
    amount: int
    currency: str


class ChannelFault(Exception):
    """The channel did not answer, or not what can be understood."""


class ChannelAway(ChannelFault):
    """Nothing was sent, for sure. The same call may be made again."""


class ChannelSilent(ChannelFault):
    """It may have been done, or not: ask by `query`. To call again is right only after `query` said `absent`."""


class Channel(Protocol):
    """`ref` is the order's id: the channel does what it is asked under one reference at most once, for ever.

    Every call ends in bounded time. A call that is cancelled has to be taken for silent.
    """

    async def pay_out(self, ref: str, amount: int, currency: str) -> Payout:
        """Send money; a repeat is answered as it stands. Never `absent`. Raises ChannelAway, ChannelSilent."""
        ...

    async def query(self, ref: str) -> Payout:
        """What became of it; changes nothing. Raises ChannelAway."""
        ...

    async def statement(self, day: date) -> list[StatementLine]:
        """What moved on a day (UTC), in the channel's order. Raises ChannelAway."""
        ...
