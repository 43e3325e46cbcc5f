"""HTTP handlers of the fund service for orders under dual control: approve, reject, approve many.

`routes/approvals.py` declares the routes that call them.
"""

from uuid import UUID

import msgspec
from msgspec import UNSET

from fundledger.app.fund.answers import render
from fundledger.app.fund.answers.problems import gone, refused
from fundledger.app.fund.answers.structs import ApprovalResult
from fundledger.app.fund.handlers.orders import Handler
from fundledger.app.fund.handlers.withdrawals import done
from fundledger.app.fund.requests.bodies import ApprovalsBody, ApproveBody, RejectBody
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.decoding import decoder, quotes_of_flat
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.drafts import who
from fundledger.fund.model.order import Kind
from fundledger.ratelimit.classes import ApiClass

_decode_approve = decoder(ApproveBody, quotes_of_flat)
_decode_reject = decoder(RejectBody, quotes_of_flat)
_decode_approvals = decoder(ApprovalsBody)


def approving(kind: Kind) -> Handler:
    """Return the handler of `POST /v1/{kind}/{id}/approve`, which approves and posts an order. Idempotent."""

    async def approve(service: FundService, call: Call) -> Reply:
        approver = who(call.module, _decode_approve(call.body).person)
        return await done(service, call, kind, lambda order: service.batcher.approve(order.id, approver))

    return approve


def rejecting(kind: Kind) -> Handler:
    """Return the handler of `POST /v1/{kind}/{id}/reject`, which rejects an order. Idempotent."""

    async def reject(service: FundService, call: Call) -> Reply:
        reason = _decode_reject(call.body).reason
        return await done(service, call, kind, lambda order: service.batcher.reject(order.id, reason, call.module))

    return reject


async def approve_many(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/approvals`: `results[i]` answers `orders[i]`. Each order is approved independently."""
    ids = _decode_approvals(call.body).orders
    no = await service.controller.ask_many(call.admission, ((ApiClass.ADMIN, ()) for _ in ids), len(ids))
    if no is not None:
        return no
    answers = await service.batcher.approve_many(ids, call.module)
    return Reply(200, encode({"results": [_result(id_, answer) for id_, answer in zip(ids, answers, strict=True)]}))


def _result(id_: UUID, answer: Answer) -> ApprovalResult:
    if isinstance(answer, OrderFault):
        return ApprovalResult(id_, problem=msgspec.Raw(gone(answer).body))
    if not isinstance(answer, Taken):
        return ApprovalResult(id_, problem=msgspec.Raw(refused(answer).body))
    order = answer.order
    problem = UNSET if order.problem is None else render.raw(order.problem)
    return ApprovalResult(id_, order.state, problem, answer.replay or UNSET)
