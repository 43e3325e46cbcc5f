"""Background job of the fund service that completes the end of merchants that are being closed.

For each merchant, the job settles the pending payments, withdraws the available balance if the request to close named a
channel, and waits until nothing is left. Then it closes the accounts of the merchant, and records that the merchant is
closed. A merchant with a debt, or with an order that has a further step, waits.
"""

import logging
from typing import Final

import asyncpg

from fundledger.fund.account_gateway import GatewayFault
from fundledger.fund.batcher import OrderBatcher
from fundledger.fund.jobs.pacing import Pacing
from fundledger.fund.model import accounts
from fundledger.fund.model.answer import Taken
from fundledger.fund.model.merchant import CLOSING, Merchant, MerchantState
from fundledger.fund.model.order import Kind, State
from fundledger.fund.model.refusal import Code, Refusal
from fundledger.fund.model.requests import AUTO, Settlement, Withdrawal
from fundledger.fund.store.macs import Tampered
from fundledger.fund.store.merchant_changes import MerchantChanges
from fundledger.fund.store.merchants import Merchants
from fundledger.fund.store.orders import Pool
from fundledger.fund.store.queries import SQL

AT_ONCE: Final = 100
AGAIN_S: Final = 5.0
AGAIN_MAX_S: Final = 600.0
"""The first and the longest pause before a final order that was refused is requested again, in seconds."""
_OVER: Final = frozenset({State.REFUSED, State.PAID})
"""States of a final order after which another one may be requested, if the merchant has money again."""
_log = logging.getLogger(__name__)


class Closer:
    """The job. Several processes may run it concurrently: each step is an order, or is made under the lock of the
    merchant.
    """

    def __init__(
        self,
        pool: Pool,
        batcher: OrderBatcher,
        merchants: Merchants,
        changes: MerchantChanges,
        again_s: float = AGAIN_S,
    ) -> None:
        self._pool = pool
        self._batcher = batcher
        self._merchants = merchants
        self._changes = changes
        self._pacing = Pacing(again_s, AGAIN_MAX_S)
        self._waits: dict[str, str] = {}
        self._after = ""
        self._taken: dict[tuple[str, Kind], int] = {}
        """Numbers that orders of other requesters have, counted by merchant and kind."""

    async def close_some(self) -> tuple[int, float]:
        """Run once, for the next AT_ONCE merchants. Return `(number of merchants that were closed, 0)`: a merchant
        waits for its orders, not for this job. A merchant that cannot be closed now does not delay the others. Raises
        what asyncpg raises.
        """
        closed = 0
        ids = [row["id"] for row in await self._pool.fetch(SQL["closing_merchants"], self._after, AT_ONCE)]
        self._after = ids[-1] if len(ids) == AT_ONCE else ""
        for id_ in ids:
            try:
                why = await self._close(id_)
            except (GatewayFault, Tampered, asyncpg.PostgresError) as fault:
                why = str(fault)
            closed += why is None
            if why is not None and self._waits.get(id_) != why:
                _log.warning(
                    "merchant %s is still being closed: %s",
                    *(id_, why),
                    extra={"event": "merchant_close_waits", "merchant": id_},
                )
            if why is None:
                self._waits.pop(id_, None)
            else:
                self._waits[id_] = why
        return closed, 0.0

    async def _close(self, id_: str) -> str | None:
        """Make the next steps of a merchant. Return what it still has, or None if it is closed. Raises GatewayFault,
        Tampered.
        """
        merchant = await self._merchants.read(id_)
        if merchant is None or merchant.state is not MerchantState.CLOSING:
            return None
        await self._empty(merchant)
        return await self._changes.end(id_)

    async def _empty(self, merchant: Merchant) -> None:
        """Settle and withdraw what a merchant has. A refusal is not reported: `MerchantChanges.end` returns what is
        left.
        """
        gateway = self._batcher.gateway
        pending, available = accounts.pending(merchant.id), accounts.available(merchant.id)
        found = await gateway.balances([pending, available])
        # A frozen account would refuse each settlement.
        takes = all(name in found and found[name].status == "open" for name in (pending, available))
        if takes and found[pending].balance.available > 0:
            number = await self._number(merchant.id, Kind.SETTLEMENT)
            if number is not None:
                await self._ask(Settlement(merchant=merchant.id, order_no=number))
        found = await gateway.balances([available])
        channel = merchant.final_channel
        if channel is not None and available in found and found[available].balance.available > 0:
            number = await self._number(merchant.id, Kind.WITHDRAWAL)
            if number is not None:
                payee = merchant.final_payee
                await self._ask(
                    Withdrawal(merchant=merchant.id, order_no=number, channel=channel, all=True, payee=payee)
                )

    async def _number(self, merchant: str, kind: Kind) -> str | None:
        """Return the number of the next final order. Every run returns the same number until an order has it. None: no
        order is requested now, because the last one has a further step or bounced. After a bounce, a person has to
        request the end of the merchant again.
        """
        if not self._pacing.is_due((merchant, kind)):
            return None
        last = await self._pool.fetchrow(SQL["final_orders"], merchant, kind, CLOSING)
        if last is None:
            return self._named(merchant, kind, 1)
        is_free = last["state"] in _OVER or (last["state"] == State.BOUNCED and last["asked_again"])
        if kind is Kind.SETTLEMENT and last["state"] == State.POSTED:
            is_free = True
        return self._named(merchant, kind, last["number"] + 1) if is_free else None

    def _named(self, merchant: str, kind: Kind, number: int) -> str:
        return f"{AUTO}close-{number + self._taken.get((merchant, kind), 0)}"

    async def _ask(self, request: Settlement | Withdrawal) -> None:
        answer = await self._batcher.ask(request, CLOSING)
        key = request.merchant, request.kind
        is_other = isinstance(answer, Taken) and answer.order.module != CLOSING
        if is_other or (isinstance(answer, Refusal) and answer.code is Code.ORDER_NO_REUSED):
            # An earlier version accepted orders with such numbers from other requesters.
            self._taken[key] = self._taken.get(key, 0) + 1
        elif isinstance(answer, Taken) and answer.order.state is not State.REFUSED:
            self._pacing.succeeded(key)
        else:
            self._pacing.failed(key)
