"""Steps of an order that is there: a withdrawal ends, an adjustment is approved, a stuck order is retried."""

from collections.abc import Awaitable, Callable

from fundledger.app.body import decoder, quotes_of_flat
from fundledger.app.fund.bodies import ApproveBody, BouncedBody, PaidBody, RetryBody
from fundledger.app.fund.lookup import find, no_order, uuid_of
from fundledger.app.fund.orders import Handler, told, whose
from fundledger.app.fund.service import FundService
from fundledger.app.problems import not_found
from fundledger.app.reply import Reply
from fundledger.app.routing import Call
from fundledger.fund.answer import Answer
from fundledger.fund.order import Kind, Order
from fundledger.fund.refusal import Code, Refusal

_decode_paid = decoder(PaidBody, quotes_of_flat)
_decode_bounced = decoder(BouncedBody, quotes_of_flat)
_decode_approve = decoder(ApproveBody, quotes_of_flat)
_decode_retry = decoder(RetryBody, quotes_of_flat)


async def paid(service: FundService, call: Call) -> Reply:
    """`POST /v1/withdrawals/{id}/paid`: the channel has paid it out. Idempotent."""
    body = _decode_paid(call.body)
    return await _done(
        service,
        call,
        Kind.WITHDRAWAL,
        lambda order: service.desk.end(order.id, "paid", body.channel_ref, None, call.module),
    )


async def bounced(service: FundService, call: Call) -> Reply:
    """`POST /v1/withdrawals/{id}/bounced`: it came back, and the merchant has it again. Idempotent."""
    body = _decode_bounced(call.body)
    return await _done(
        service,
        call,
        Kind.WITHDRAWAL,
        lambda order: service.desk.end(order.id, "bounced", None, body.reason, call.module),
    )


async def approve(service: FundService, call: Call) -> Reply:
    """`POST /v1/adjustments/{id}/approve`: by another module, or another person, than who asked for it."""
    body = _decode_approve(call.body)
    approver = call.module if body.person is None else f"{call.module}/{body.person}"
    return await _done(service, call, Kind.ADJUSTMENT, lambda order: service.desk.approve(order.id, approver))


def retrying(kind: Kind) -> Handler:
    """`POST /v1/{kind}/{id}/retry`: take a stuck order a step further, its cause being removed. Idempotent."""

    async def retry(service: FundService, call: Call) -> Reply:
        body = _decode_retry(call.body)
        return await _done(service, call, kind, lambda order: service.desk.retry(order.id, call.module, body.reason))

    return retry


async def _done(service: FundService, call: Call, kind: Kind, do: Callable[[Order], Awaitable[Answer]]) -> Reply:
    id_ = uuid_of(call.parameters["id"])
    no = await service.gate.charge_caller(call.passage)
    if no is not None:
        return no
    order = await find(service, kind, id_)
    no = await service.gate.let(call.passage, () if order is None else (whose(order.merchant),))
    if no is not None:
        return no
    if order is None:
        raise no_order(kind, id_)
    answer = await do(order)
    if isinstance(answer, Refusal) and answer.code is Code.ORDER_NOT_FOUND:
        raise not_found(f"{kind} {order.id}")
    return told(service, call.passage, kind, answer, status=200)
