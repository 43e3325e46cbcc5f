"""Python client of the fund service, part: what all requests of orders share."""

from typing import Literal

import msgspec

from fundledger.client.connection import Answer, converted, decoder
from fundledger.client.faults import Refused
from fundledger.client.fund_types import PATHS, Kind, Order, OrderRefused
from fundledger.client.service import Service

Reversible = Literal[
    "payment",
    "payout_return",
    "channel_cost",
    "adjustment",
    "bank_difference",
    "settlement",
    "recovery",
    "write_off",
    "top_up",
    "dispute_fee",
    "own_funds",
    "fee_sweep",
    "payable_payment",
    "suspense_clearing",
    "parked_clearing",
    "split_payment",
    "split_chargeback",
    "channel_invoice",
]
"""The kinds of orders that have a reversal. The other kinds have another way back."""
_encode = msgspec.json.Encoder().encode
_order = decoder(Order)


class FundOrders(Service):
    """The base class of the parts of the client that request orders."""

    async def _order(self, kind: Kind, **members: object) -> Order:
        return order_of(await self._post(PATHS[kind], **members))

    async def _post(self, path: str, **members: object) -> Answer:
        given = {name: value for name, value in members.items() if value is not None}
        return await self._to.ask("POST", path, _encode(given))


def order_of(answer: Answer) -> Order:
    """Return the order of an answer. Raises OrderRefused if the order is refused, and Refused."""
    try:
        order = _order(answer)
    except Refused as refused:
        kept = refused.problem.members.get("order")
        if kept is None:
            raise
        raise OrderRefused(refused.problem, converted(kept, Order)) from None
    if order.state == "refused" and order.problem is not None:
        # The service answers a replay with the refused order. Raise the same exception as after the first request.
        raise OrderRefused(order.problem, msgspec.structs.replace(order, replay=True))
    return msgspec.structs.replace(order, replay=True) if answer.is_replay else order
