"""HTTP handlers of the fund service that post, read and list orders. `routes/orders.py` declares their routes."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import msgspec
from msgspec import UNSET

from fundledger.app.fund.answers import render
from fundledger.app.fund.answers.problems import fault_of, gone, refused, unverified_items
from fundledger.app.fund.answers.structs import PaymentResult, WithdrawalResult
from fundledger.app.fund.requests.bodies import PaymentsBody, WithdrawalsBody
from fundledger.app.fund.requests.charged_account import ChargedAccount, charged_account
from fundledger.app.fund.requests.lookup import found, merchant_id, verified, verifies
from fundledger.app.fund.service import FundService
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.admission.payment_path import Outcomes, PaymentPath, reply_to_batch
from fundledger.app.http.bodies.batch_decoding import LoopTurn, decoder_of_many, item_decoder
from fundledger.app.http.bodies.decoding import decoder, known_currency, quotes_of_flat
from fundledger.app.http.problems import PROBLEM_TYPE, malformed, not_found, unverified
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call, role_missing
from fundledger.app.http.wire.protocol import FastPath
from fundledger.app.http.wire.reply import JSON, Reply
from fundledger.fund.model.answer import Answer, OrderFault, Taken
from fundledger.fund.model.flows import RULES
from fundledger.fund.model.order import PLATFORM, Kind, State
from fundledger.fund.model.person import Role
from fundledger.fund.model.request_types import REQUESTS
from fundledger.fund.model.requests import BATCH_MAX, Payment, Request, Withdrawal
from fundledger.fund.store.orders import history as read_history
from fundledger.fund.store.orders import list_orders, read_orders
from fundledger.ratelimit.classes import ApiClass

Handler = Callable[[FundService, Call], Awaitable[Reply]]
UNCERTAIN: Final = frozenset({State.POSTING, State.STUCK})
"""States in which the outcome of the next step is not known yet. An order in such a state is answered 202."""
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 500
SEQ_MAX: Final = (1 << 63) - 1
_REPLAY: Final = {"Idempotent-Replay": "true"}
_is_order_no = re.compile(r"[A-Za-z0-9:_./-]{1,64}\Z").match
_decode_payment = decoder(Payment, quotes_of_flat)
_decode_payments = decoder_of_many(PaymentsBody, "payments", BATCH_MAX, item_decoder(Payment, quotes_of_flat))
_decode_withdrawals = decoder_of_many(
    WithdrawalsBody, "withdrawals", BATCH_MAX, item_decoder(Withdrawal, quotes_of_flat)
)


def to_reply(
    service: FundService, admission: Admission, answer: Answer, kind: Kind = Kind.PAYMENT, status: int = 201
) -> Reply:
    """Return the reply for one order, and count the answer. Refund the tokens of a replay.

    `status`: the HTTP status of the reply if this request led to a known outcome.
    """
    if isinstance(answer, Taken):
        order = answer.order
        service.metrics.answer(kind, "replayed" if answer.replay else order.state)
        if answer.replay:
            service.controller.refund(admission)
            return Reply(202 if order.state in UNCERTAIN else 200, render.order(order), JSON, _REPLAY)
        if order.state is State.REFUSED:
            return Reply(422, render.refused_order(order), PROBLEM_TYPE, {})
        return Reply(202 if order.state in UNCERTAIN else status, render.order(order))
    if isinstance(answer, OrderFault):
        service.metrics.answer(kind, "fault")
        return gone(answer)
    service.metrics.answer(kind, answer.code)
    return refused(answer)


class OrderPath(PaymentPath[FundService, Request, Answer]):
    """Handling of a POST of an order: the order is queued in the order batcher. By default the order is a payment."""

    decode: Callable[[bytes], Request] = _decode_payment
    to_reply: Callable[[FundService, Admission, Answer], Reply] = to_reply
    request: Request | None = None

    def resolve(self, content: Request) -> Sequence[ChargedAccount] | None:
        self.request = content
        # Other requests get this check from their route. A payment on the fast path has no route.
        if not self.service.permits(self.admission.module, Role.MAKER):
            raise role_missing(Role.MAKER)
        currency = getattr(content, "currency", None)
        if currency is not None:
            known_currency(currency)
        merchant = getattr(content, "merchant", PLATFORM)
        if merchant == PLATFORM:
            return ()
        return None if self.service.merchants.remembered(merchant) is None else (charged_account(merchant),)

    async def look_up(self, content: Request) -> None:
        await self.service.reading(lambda: self.service.merchants.get(content.whose))

    async def is_recorded(self, content: Request) -> bool:
        ids = self.service.ids.all_of(content.kind, content.whose, content.order_no)
        return any(await asyncio.gather(*(self.service.replays.known(id_) for id_ in ids)))

    def queue(self) -> None:
        assert self.request is not None
        self.service.batcher.post(self.request, self.admission.module, partial(self.answered, 0))


FAST_PATH: Final = FastPath("/v1/payments", OrderPath)


def posting(kind: Kind) -> Handler:
    """Return the handler of `POST /v1/{kind}`, which posts an order."""
    reply = partial(to_reply, kind=kind)
    return partial(OrderPath.handle, decode=decoder(REQUESTS[kind], quotes_of_flat), to_reply=reply)


async def post_payments(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/payments/batch`: `results[i]` answers `payments[i]`.

    Each payment is posted independently. If two payments of the batch have the same order number and
    content, the second is a replay of the first. If only their order numbers are equal, the second is refused.
    """
    _, payments = await _decode_payments(call.body)
    for i, payment in enumerate(payments):
        known_currency(payment.currency, f"payments[{i}].currency")
    return await _post_batch(service, call, payments, ApiClass.PAYMENT, PaymentResult)


async def post_withdrawals(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/withdrawals/batch`: `results[i]` answers `withdrawals[i]`, as for a batch of payments."""
    _, withdrawals = await _decode_withdrawals(call.body)
    return await _post_batch(service, call, withdrawals, ApiClass.WITHDRAW, WithdrawalResult)


async def _post_batch(
    service: FundService,
    call: Call,
    requests: Sequence[Payment] | Sequence[Withdrawal],
    api_class: ApiClass,
    result: type[PaymentResult],
) -> Reply:
    known = service.merchants.remembered
    # An order is charged to the limits of its merchant only if the merchant is cached. The order batcher loads other
    # merchants after admission.
    items = [(r, (charged_account(r.merchant),) if known(r.merchant) is not None else ()) for r in requests]
    no = await service.controller.ask_many(call.admission, ((api_class, charged) for _, charged in items), len(items))
    if no is not None:
        return no
    answers = await _post_each(service, requests, call.module)
    return await reply_to_batch(items, answers, fault_of, partial(_result, service, call.admission, api_class, result))


async def _post_each(service: FundService, requests: Sequence[Request], module: str) -> list[Answer]:
    outcomes: Outcomes[Answer] = Outcomes(len(requests))
    turn = LoopTurn()
    for i, request in enumerate(requests):
        if turn.is_over():
            await turn.next()
        service.batcher.post(request, module, partial(outcomes.answer, i))
    return await outcomes.wait()


def _result(
    service: FundService,
    admission: Admission,
    api_class: ApiClass,
    result: type[PaymentResult],
    item: tuple[Request, Sequence[ChargedAccount]],
    answer: Answer,
) -> PaymentResult:
    request, charged = item
    if isinstance(answer, OrderFault):
        service.metrics.answer(request.kind, "fault")
        return result(request.order_no, State.UNKNOWN, problem=msgspec.Raw(unverified(answer.detail).body))
    if not isinstance(answer, Taken):
        service.metrics.answer(request.kind, answer.code)
        return result(request.order_no, State.REFUSED, problem=msgspec.Raw(refused(answer).body))
    order = answer.order
    service.metrics.answer(request.kind, "replayed" if answer.replay else order.state)
    if answer.replay:
        service.controller.refund_one(admission, api_class, charged)
    problem = UNSET if order.problem is None else render.raw(order.problem)
    return result(request.order_no, order.state, order.id, problem, answer.replay or UNSET)


def getting(kind: Kind) -> Handler:
    """Return the handler of `GET /v1/{kind}/{id}`, which returns one order."""

    async def get(service: FundService, call: Call) -> Reply:
        return Reply(200, render.order(await found(service, kind, call.parameters["id"])))

    return get


def history(kind: Kind) -> Handler:
    """Return the handler of `GET /v1/{kind}/{id}/history`: the states of an order, oldest first."""

    async def get(service: FundService, call: Call) -> Reply:
        order = await found(service, kind, call.parameters["id"])
        return Reply(200, render.history(order, await service.reading(lambda: read_history(service.pool, order))))

    return get


def listing(kind: Kind) -> Handler:
    """Return the handler of `GET /v1/{kind}`: the order with `order_no`, or a page of orders, oldest first."""

    async def get(service: FundService, call: Call) -> Reply:
        query, admission = call.query, call.admission
        one = "order_no" in query
        admission.api_class = ApiClass.QUERY if one else ApiClass.LIST
        merchant = merchant_id(query.get("merchant", PLATFORM if RULES[kind].of_platform else ""), "merchant")
        remembered = service.merchants.remembered(merchant)
        no = await service.controller.admit(admission, () if remembered is None else (charged_account(merchant),))
        if no is not None:
            return no
        if not one:
            return await _page(service, kind, merchant, call)
        # `limit` is accepted and ignored, because a generated client may send the default of `limit` with each request.
        for name in ("state", "cursor"):
            if name in query:
                raise malformed(f"{name} cannot be combined with order_no", field=name)
        order_no = query["order_no"]
        if not _is_order_no(order_no):
            raise malformed("order_no must be 1 to 64 characters of [A-Za-z0-9:_./-]", field="order_no")
        ids = service.ids.all_of(kind, merchant, order_no)
        order = next(iter((await service.reading(lambda: read_orders(service.pool, ids))).values()), None)
        if order is None:
            raise not_found(f"{kind.replace('_', ' ')} {order_no} of {merchant}")
        return Reply(200, render.order(verified(service, order)))

    return get


async def _page(service: FundService, kind: Kind, merchant: str, call: Call) -> Reply:
    query = call.query
    limit = number(query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    after = number(query, "cursor", 0, 0, SEQ_MAX)
    try:
        state = State(query["state"]) if "state" in query else None
    except ValueError:
        raise malformed(f"state must be one of {', '.join(State)}", field="state") from None
    orders = await service.reading(lambda: list_orders(service.pool, kind, merchant, state, after, limit + 1))
    page = orders[:limit]
    bad = [order.id for order in page if not verifies(service, order)]
    shown = [order for order in page if order.id not in bad]
    following = str(page[-1].seq) if len(orders) > limit else None
    return Reply(200, render.page(shown, following, unverified_items("order", bad)))
