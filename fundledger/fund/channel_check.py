"""Check of the fund service that the channel of a new order is registered and permits the order."""

import asyncio
from collections import defaultdict
from collections.abc import Collection
from typing import Protocol

from fundledger.fund.account_gateway import AccountGateway
from fundledger.fund.model.channel import Channel, refusal_of, unknown_channel
from fundledger.fund.model.drafts import Draft
from fundledger.fund.model.order import Kind
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import Request


class Registry(Protocol):
    """The interface to the registered channels, as far as orders need it."""

    def known(self, name: str, currency: str) -> Channel | None: ...

    async def get(self, name: str, currency: str) -> Channel | None: ...

    async def look(self) -> None: ...

    @property
    def names(self) -> Collection[str]: ...


class ChannelCheck:
    """The check of channels in one worker."""

    def __init__(self, channels: Registry, gateway: AccountGateway) -> None:
        self._channels = channels
        self._gateway = gateway
        self._next: dict[tuple[str, str], asyncio.Task[int]] = {}
        self._locks: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    def is_ready(self, request: Request, currency: str) -> bool:
        """Return whether this worker knows that the channel of a request permits the request, and that its accounts are
        open. Never waits.
        """
        name = getattr(request, "channel", None)
        if name is None:
            return True
        channel = self._channels.known(name, currency)
        if channel is None or not self._gateway.is_open(name, currency):
            return False
        is_bounded = request.kind is Kind.WITHDRAWAL and channel.overdraft is not None
        return not is_bounded and refusal_of(request, channel) is None

    async def refusal_of(self, draft: Draft) -> Refusal | None:
        """Return why the channel of a draft does not permit the order, or None. In that case the accounts of the
        channel are open. Raises Tampered, GatewayFault, and what asyncpg raises.

        Concurrent withdrawals may be accepted although the bank account does not hold enough for all. The job that
        sends payouts checks the balance again.
        """
        order, request = draft.order, draft.request
        if order.channel is None or request is None:
            return None
        names = [order.channel] if order.kind is not Kind.OWN_TRANSFER else [order.channel, order.counterparty or ""]
        for name in names:
            channel = await self._channels.get(name, order.currency)
            if channel is None:
                return unknown_channel(name, order.currency, self._channels.names)
            no = refusal_of(request, channel)
            if no is not None:
                return no
            if not self._gateway.is_open(name, order.currency):
                await self._gateway.open_channel(name, order.currency)
            if order.kind is Kind.WITHDRAWAL and channel.overdraft is not None:
                left = await self._left(name, order.currency) + channel.overdraft
                if order.amount > left:
                    detail = f"the bank account of channel {name} does not hold enough for this payout"
                    return Refusal(Code.CHANNEL_UNDERFUNDED, detail, "amount")
        return None

    async def _left(self, name: str, currency: str) -> int:
        """Return the balance that is left for payouts. Concurrent withdrawals share a read, which begins after each of
        them was requested. Raises GatewayFault, and what asyncpg raises.
        """
        key = name, currency
        read = self._next.get(key)
        if read is None or read.done():
            read = self._next[key] = asyncio.create_task(self._read_left(name, currency))
        return await asyncio.shield(read)

    async def _read_left(self, name: str, currency: str) -> int:
        async with self._locks[name, currency]:
            # A withdrawal that is requested from now on needs a later read.
            del self._next[name, currency]
            return await self._gateway.left_for_payouts(name, currency)
