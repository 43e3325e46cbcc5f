"""Background job of the fund service, part of the payout job: the payees of withdrawals, read before money is sent."""

import logging
from typing import Literal, Protocol
from uuid import UUID

import asyncpg
import msgspec

from fundledger.fund.model.answer import Answer, Taken
from fundledger.fund.model.order import Order, State
from fundledger.fund.model.payee import Payee, unusable
from fundledger.fund.store.macs import OrderMacs
from fundledger.fund.store.payees import read_payees
from fundledger.fund.store.reported import Reported

_log = logging.getLogger(__name__)


class Bounces(Protocol):
    """The interface to the order batcher, as far as disabled payees need it."""

    async def end(
        self,
        id_: UUID,
        ending: Literal["paid", "bounced"],
        channel_ref: str | None,
        reason: str | None,
        module: str,
        *,
        unsent: bool = False,
    ) -> Answer: ...


class Unusable(msgspec.Struct, frozen=True):
    """The reason why a payee cannot be used. `tampered`: its row is missing, does not match its MAC, or belongs to
    another merchant. Otherwise the payee is disabled.
    """

    detail: str
    tampered: bool


class PayoutPayees:
    """The payees of the fund database, for payouts. Methods raise what asyncpg raises."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", macs: OrderMacs) -> None:
        self._pool = pool
        self._macs = macs
        self._reported = Reported()

    async def usable(self, id_: UUID | None) -> Payee | None:
        """Return a payee that matches its MAC and is active, otherwise None."""
        if id_ is None:
            return None
        payee = (await read_payees(self._pool, self._macs, [id_]))[0].get(id_)
        return payee if payee is not None and payee.state == "active" else None

    async def why_unusable(self, order: Order) -> Unusable | None:
        """Return why the payee of an order cannot be used, or None if it can be, or if the order has none."""
        if order.payee is None:
            return None
        found, bad = await read_payees(self._pool, self._macs, [order.payee])
        return why_not(order, found.get(order.payee), is_tampered=order.payee in bad)

    async def give_up(self, batcher: Bounces, order: Order, detail: str, by: str) -> None:
        """Return a withdrawal whose payee is disabled to its merchant, if its payout was not sent. Otherwise an
        operator has to end it, which is logged once.
        """
        if order.state is State.POSTED:
            answer = await batcher.end(order.id, "bounced", None, detail, by, unsent=True)
            if isinstance(answer, Taken):
                return
        if self._reported.is_new(order.id):
            _log.error(
                "the payout of withdrawal %s is not sent again: %s",
                *(order.id, detail),
                extra={"event": "payout_payee_disabled", "order": str(order.id)},
            )


def why_not(order: Order, payee: Payee | None, *, is_tampered: bool) -> Unusable | None:
    """Return why a payee that was read for an order cannot be used, or None if it can be."""
    if is_tampered:
        return Unusable(f"payee {order.payee} does not match its MAC", tampered=True)
    detail = unusable(order, payee)
    return None if detail is None else Unusable(detail, tampered=payee is None or payee.state == "active")
