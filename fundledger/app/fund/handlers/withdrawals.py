"""HTTP handlers of the fund service for steps of existing orders: end an order, retry.

`routes/orders.py` declares the routes that call them.
"""

from collections.abc import Awaitable, Callable

from fundledger.app.fund.handlers.orders import Handler, to_reply
from fundledger.app.fund.requests.bodies import BouncedBody, EmptyBody, LostBody, PaidBody, RetryBody
from fundledger.app.fund.requests.charged_account import charged_account
from fundledger.app.fund.requests.lookup import find, no_order, uuid_of
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.decoding import decoder, quotes_of_flat
from fundledger.app.http.problems import not_found
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply
from fundledger.fund.model.answer import Answer
from fundledger.fund.model.order import Kind, Order
from fundledger.fund.model.refusal import Code, Refusal

_decode_paid = decoder(PaidBody, quotes_of_flat)
_decode_bounced = decoder(BouncedBody, quotes_of_flat)
_decode_won = decoder(EmptyBody, quotes_of_flat)
_decode_lost = decoder(LostBody, quotes_of_flat)
_decode_retry = decoder(RetryBody, quotes_of_flat)


def paid(kind: Kind) -> Handler:
    """Return the handler of `POST /v1/{kind}/{id}/paid`: record that the money has arrived. Idempotent."""

    async def end(service: FundService, call: Call) -> Reply:
        ref = _decode_paid(call.body).channel_ref
        return await done(
            service, call, kind, lambda order: service.batcher.end(order.id, "paid", ref, None, call.module)
        )

    return end


def bounced(kind: Kind) -> Handler:
    """Return the handler of `POST /v1/{kind}/{id}/bounced`: record that the money has come back. Idempotent."""

    async def end(service: FundService, call: Call) -> Reply:
        reason = _decode_bounced(call.body).reason
        return await done(
            service, call, kind, lambda order: service.batcher.end(order.id, "bounced", None, reason, call.module)
        )

    return end


async def won(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/disputes/{id}/won`: return the amount of an open dispute to the merchant. Idempotent."""
    _decode_won(call.body)
    return await done(
        service, call, Kind.DISPUTE, lambda order: service.batcher.end(order.id, "won", None, None, call.module)
    )


async def lost(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/disputes/{id}/lost`: record that the bank has taken the amount of a dispute. Idempotent."""
    ref = _decode_lost(call.body).channel_ref
    return await done(
        service, call, Kind.DISPUTE, lambda order: service.batcher.end(order.id, "lost", ref, None, call.module)
    )


def retrying(kind: Kind) -> Handler:
    """Return the handler of `POST /v1/{kind}/{id}/retry`, which repeats a stuck order's failed step. Idempotent."""

    async def retry(service: FundService, call: Call) -> Reply:
        body = _decode_retry(call.body)
        return await done(service, call, kind, lambda order: service.batcher.retry(order.id, call.module, body.reason))

    return retry


async def done(service: FundService, call: Call, kind: Kind, do: Callable[[Order], Awaitable[Answer]]) -> Reply:
    """Admit a request for a step of the order in the path, do the step, and return the reply. Raises BadRequest (400,
    404), Unavailable.
    """
    id_ = uuid_of(call.parameters["id"])
    no = await service.controller.charge_caller(call.admission)
    if no is not None:
        return no
    order = await find(service, kind, id_)
    no = await service.controller.admit(call.admission, () if order is None else (charged_account(order.merchant),))
    if no is not None:
        return no
    if order is None:
        raise no_order(kind, id_)
    answer = await do(order)
    if isinstance(answer, Refusal) and answer.code is Code.ORDER_NOT_FOUND:
        raise not_found(f"{kind} {order.id}")
    return to_reply(service, call.admission, answer, kind, status=200)
