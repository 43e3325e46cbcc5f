"""Background job of the fund service, part of the payout job: the withdrawals and refunds that a channel may pay out
now.

The service sends a payout only through a registered channel whose payouts are made over `http`, and a refund only if
the refunds are made so. If the channel has a bound on its overdraft, its bank account has to hold the amounts of all
payouts and refunds that are sent and not ended.
"""

import logging
from collections.abc import Sequence

import asyncpg

from fundledger.fund.account_gateway import AccountGateway, GatewayFault
from fundledger.fund.channel_check import Registry
from fundledger.fund.model.channel import Channel
from fundledger.fund.model.order import Kind, Order
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.orders import AnyConnection
from fundledger.fund.store.queries import SQL

_log = logging.getLogger(__name__)


class PayoutFunds:
    """The check of withdrawals and refunds before their payouts are recorded as sent."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", gateway: AccountGateway, channels: Registry) -> None:
        self._pool = pool
        self._gateway = gateway
        self._channels = channels
        self._short: set[tuple[str, str, Kind]] = set()

    async def payable(self, name: str, orders: Sequence[Order]) -> tuple[list[Order], set[str]]:
        """Return `(the orders that channel `name` may pay out, the currencies in which it may pay out no further ones
        now)`. `orders`: withdrawals, or refunds, oldest first. Raises what asyncpg raises.
        """
        await self._channels.look()
        found: list[Order] = []
        unfunded: set[str] = set()
        for currency in dict.fromkeys(order.currency for order in orders):
            own = [order for order in orders if order.currency == currency]
            kind = own[0].kind
            left = await self._left(name, currency, kind)
            for order in own:
                if left is not None and order.amount > left:
                    unfunded.add(currency)
                    break
                left = None if left is None else left - order.amount
                found.append(order)
            self._report(name, currency, kind, is_short=currency in unfunded)
        return found, unfunded

    async def is_sent_by_service(self, name: str, currency: str, kind: Kind = Kind.WITHDRAWAL) -> bool:
        """Return whether the service sends the payouts, or the refunds, of channel `name`. Raises what asyncpg
        raises.
        """
        await self._channels.look()
        channel = self._channels.known(name, currency)
        return channel is not None and channel.sends(kind)

    async def _left(self, name: str, currency: str, kind: Kind) -> int | None:
        """Return the amount that may be paid out, None for any amount. It is 0 if the channel may not pay out, or if
        the balance cannot be read.
        """
        try:
            channel = await self._channels.get(name, currency)
            if channel is None or not channel.sends(kind):
                return 0
            return await self.left_of(self._pool, channel)
        except (GatewayFault, Tampered):
            return 0

    async def left_of(self, connection: AnyConnection, channel: Channel) -> int | None:
        """Return the amount that may be paid out through a channel, None for any amount. Raises GatewayFault, and what
        asyncpg raises.
        """
        if channel.overdraft is None:
            return None
        # An order that ends between these reads is counted twice, and never missed.
        sent = await connection.fetchval(SQL["payouts_underway"], channel.name, channel.currency)
        lost = await connection.fetchval(SQL["lost_disputes"], channel.name, channel.currency)
        bank = (await self._gateway.balances([channel.bank_account])).get(channel.bank_account)
        return (0 if bank is None else bank.balance.posted) + channel.overdraft - int(sent) - int(lost)

    def _report(self, name: str, currency: str, kind: Kind, *, is_short: bool) -> None:
        """Log once that withdrawals or refunds wait for the channel, until it pays out again."""
        if not is_short:
            self._short.discard((name, currency, kind))
        elif (name, currency, kind) not in self._short:
            self._short.add((name, currency, kind))
            _log.warning(
                "%ss in %s wait: channel %s is not `http`, or its bank account does not hold enough",
                *(kind, currency, name),
                extra={"event": "channel_underfunded", "channel": name, "currency": currency},
            )
