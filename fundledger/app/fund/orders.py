"""Fund service HTTP handlers for orders of every kind: post, read, list, history; and batches of payments."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from fundledger.app.fund import render
from fundledger.app.fund.bodies import PaymentsBody
from fundledger.app.fund.charged_account import charged_account
from fundledger.app.fund.lookup import found, verified, verifies
from fundledger.app.fund.problems import gone, refusal_members, refused, unverified_items
from fundledger.app.fund.service import FundService
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.bodies.batch_decoding import Turn, decoder_of_many, item_decoder
from fundledger.app.http.bodies.decoding import decoder, known_currency, quotes_of_flat
from fundledger.app.http.problems import (
    PROBLEM_TYPE,
    BadRequest,
    crashed,
    faulted,
    malformed,
    not_found,
    unverified,
)
from fundledger.app.http.query import number
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.protocol import FastPath
from fundledger.app.http.wire.reply import JSON, Reply, encode
from fundledger.faults import OutcomeUnknown, Unavailable
from fundledger.fund.model.answer import Answer, Away, Taken
from fundledger.fund.model.flows import RULES
from fundledger.fund.model.order import PLATFORM, Kind, State
from fundledger.fund.model.requests import BATCH_MAX, REQUESTS, Payment, Request
from fundledger.fund.store.orders import history as read_history
from fundledger.fund.store.orders import list_orders, read_orders
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.matched import Pending

Handler = Callable[[FundService, Call], Awaitable[Reply]]
UNCERTAIN: Final = frozenset({State.POSTING, State.STUCK})
"""States in which the outcome of the next step is not known; the response is 202."""
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 500
SEQ_MAX: Final = (1 << 63) - 1
_REPLAY: Final = {"Idempotent-Replay": "true"}
_is_merchant = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z").match
_is_order_no = re.compile(r"[A-Za-z0-9:_./-]{1,64}\Z").match
_decode_payment = decoder(Payment, quotes_of_flat)
_decode_payments = decoder_of_many(PaymentsBody, "payments", BATCH_MAX, item_decoder(Payment, quotes_of_flat))


def post_payment(service: FundService, passage: Admission, body: bytes, answer: Callable[[Reply], None]) -> None:
    """`POST /v1/payments`: decode, admit, pass to the order batcher.

    Calls `answer` exactly once, either before returning or when the outcome is known. Never raises: every error becomes
    a reply.
    """
    gate = service.gate
    reply = None
    try:
        request = _decode_payment(body)
        known_currency(request.currency)
        merchant = service.merchants.remembered(request.merchant)
        if merchant is None:
            reply = gate.at_the_door(passage)
            if reply is None:
                service.spawn(_post_after_lookup(service, passage, request, answer))
        else:
            no = gate.enter(passage, (charged_account(merchant.id),))
            if no is None:
                service.desk.post(request, passage.module, _answering(service, passage, Kind.PAYMENT, answer))
            elif isinstance(no, Reply) and not _may_be_repeat(service, no):
                reply = no
            else:
                service.spawn(_post_if_admitted(service, passage, request, no, answer))
    except BadRequest as bad:
        reply = bad.reply
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


FAST_PATH: Final = FastPath("/v1/payments", post_payment)


def _answering(
    service: FundService, passage: Admission, kind: Kind, answer: Callable[[Reply], None]
) -> Callable[[Answer], None]:
    """Return the callback for the order batcher. It always replies: an exception becomes a 500 reply."""

    def answered(found: Answer) -> None:
        try:
            reply = told(service, passage, kind, found)
        except Exception as error:
            reply = crashed(error)
        answer(reply)

    return answered


def _may_be_repeat(service: FundService, no: Reply) -> bool:
    return no.status == 429 and service.repeats.has_room()


async def _post_after_lookup(
    service: FundService, passage: Admission, request: Payment, answer: Callable[[Reply], None]
) -> None:
    """Load a merchant that is not cached, then admit and post the payment."""
    try:
        no: Reply | Pending | None = await service.gate.charge_caller(passage)
        if no is None:
            merchant = await service.reading(lambda: service.merchants.get(request.merchant))
            no = service.gate.enter(passage, () if merchant is None else (charged_account(merchant.id),))
    except Unavailable as fault:
        answer(faulted(fault))
    except BadRequest as bad:
        answer(bad.reply)
    except Exception as error:
        answer(crashed(error))
    else:
        await _post_if_admitted(service, passage, request, no, answer)


async def _post_if_admitted(
    service: FundService,
    passage: Admission,
    request: Request,
    no: Reply | Pending | None,
    answer: Callable[[Reply], None],
) -> None:
    """Post an order if the slow path of admission admits it: the rate-limit store, or a check for a replay."""
    try:
        reply = await _admit(service, passage, request, no)
        if reply is None:
            service.desk.post(request, passage.module, _answering(service, passage, request.kind, answer))
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


async def _admit(
    service: FundService, passage: Admission, request: Request, no: Reply | Pending | None
) -> Reply | None:
    """Return None if the request is admitted, otherwise the rejection. A replay is admitted even without quota."""
    reply = await service.gate.ask(passage) if isinstance(no, Pending) else no
    if reply is not None and _may_be_repeat(service, reply):
        ids = service.ids.all_of(request.kind, request.whose, request.order_no)
        if any(await asyncio.gather(*(service.repeats.known(id_) for id_ in ids))):
            passage.refused = None
            return service.gate.enter_uncharged(passage, time.monotonic())
    return reply


async def post_one_payment(service: FundService, call: Call) -> Reply:
    """`POST /v1/payments` for a request that did not take the fast path."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answer(reply: Reply) -> None:
        if not future.done():
            future.set_result(reply)

    post_payment(service, call.passage, call.body, answer)
    return await future


def posting(kind: Kind) -> Handler:
    """Return the handler of `POST /v1/{kind}` for a kind other than payments."""
    decode = decoder(REQUESTS[kind], quotes_of_flat)

    async def post(service: FundService, call: Call) -> Reply:
        request = decode(call.body)
        currency = getattr(request, "currency", None)
        if currency is not None:
            known_currency(currency)
        no: Reply | Pending | None = None
        merchant = None if request.whose == PLATFORM else service.merchants.remembered(request.whose)
        if request.whose != PLATFORM and merchant is None:
            no = await service.gate.charge_caller(call.passage)
            if no is None:
                merchant = await service.reading(lambda: service.merchants.get(request.whose))
        if no is None:
            no = service.gate.enter(call.passage, () if merchant is None else (charged_account(merchant.id),))
        reply = await _admit(service, call.passage, request, no)
        if reply is not None:
            return reply
        return told(service, call.passage, kind, await service.desk.ask(request, call.module))

    return post


def told(service: FundService, passage: Admission, kind: Kind, answer: Answer, status: int = 201) -> Reply:
    """Return the reply for one order. A replay gets its quota back. `status`: status of a new, certain outcome."""
    if isinstance(answer, Taken):
        order = answer.order
        service.metrics.answer(kind, "replayed" if answer.replay else order.state)
        if answer.replay:
            service.gate.refund(passage)
            return Reply(202 if order.state in UNCERTAIN else 200, render.order(order), JSON, _REPLAY)
        if order.state is State.REFUSED:
            return Reply(422, render.refused_order(order), PROBLEM_TYPE, {})
        return Reply(202 if order.state in UNCERTAIN else status, render.order(order))
    if isinstance(answer, Away):
        service.metrics.answer(kind, "fault")
        return gone(answer)
    service.metrics.answer(kind, answer.code)
    return refused(answer)


async def post_payments(service: FundService, call: Call) -> Reply:
    """`POST /v1/payments/batch`: `results[i]` answers `payments[i]`.

    Each payment is posted independently. The second of two payments with the same number is a replay, or is refused if
    its content differs.
    """
    _, payments = await _decode_payments(call.body)
    for i, payment in enumerate(payments):
        known_currency(payment.currency, f"payments[{i}].currency")
    known = service.merchants.remembered
    # The order batcher loads merchants that are not cached, after admission.
    items = [
        (ApiClass.PAYMENT, (charged_account(p.merchant),) if known(p.merchant) is not None else ()) for p in payments
    ]
    no = await service.gate.ask_many(call.passage, items, len(items))
    if no is not None:
        return no
    answers = await _post_each(service, payments, call.module)
    if all(isinstance(each, Away) and each.undone for each in answers):
        return faulted(Unavailable("the fund database does not answer"))
    results: list[dict[str, Any]] = []
    for payment, item, each in zip(payments, items, answers, strict=True):
        if isinstance(each, Away) and not each.tampered:
            # Part of the batch may have committed: answer 503 for all. A retry reports the true outcomes.
            return faulted(OutcomeUnknown())
        if isinstance(each, Taken) and each.replay:
            service.gate.refund_one(call.passage, *item)
        results.append(_result(service, payment, each))
    return Reply(200, encode({"results": results}))


async def _post_each(service: FundService, payments: Sequence[Payment], module: str) -> list[Answer]:
    answers: list[Answer] = [Away("no result was returned", undone=False)] * len(payments)
    left = len(payments)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answering(i: int) -> Callable[[Answer], None]:
        def answered(answer: Answer) -> None:
            nonlocal left
            answers[i] = answer
            left -= 1
            if left == 0 and not done.done():
                done.set_result(None)

        return answered

    turn = Turn()
    for i, payment in enumerate(payments):
        if turn.is_over():
            await turn.next()
        service.desk.post(payment, module, answering(i))
    await done
    return answers


def _result(service: FundService, payment: Payment, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Away):
        problem = msgspec.Raw(unverified(answer.detail).body)
        return {"order_no": payment.order_no, "state": State.UNKNOWN, "problem": problem}
    if not isinstance(answer, Taken):
        service.metrics.answer(Kind.PAYMENT, answer.code)
        return {"order_no": payment.order_no, "state": "refused", "problem": refusal_members(answer)}
    order = answer.order
    service.metrics.answer(Kind.PAYMENT, "replayed" if answer.replay else order.state)
    result: dict[str, Any] = {"order_no": payment.order_no, "state": order.state, "id": str(order.id)}
    if order.problem is not None:
        result["problem"] = render.raw(order.problem)
    if answer.replay:
        result["replay"] = True
    return result


def getting(kind: Kind) -> Handler:
    """Return the handler of `GET /v1/{kind}/{id}`."""

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
        query, passage = call.query, call.passage
        one = "order_no" in query
        passage.api_class = ApiClass.QUERY if one else ApiClass.LIST
        merchant = query.get("merchant", PLATFORM if RULES[kind].of_platform else "")
        if not _is_merchant(merchant):
            raise malformed("merchant must be 1 to 64 characters of [A-Za-z0-9_.-]", field="merchant")
        remembered = service.merchants.remembered(merchant)
        no = await service.gate.let(passage, () if remembered is None else (charged_account(merchant),))
        if no is not None:
            return no
        if not one:
            return await _page(service, kind, merchant, call)
        # `limit` is accepted: it has a default, so a generated client may send it with each request.
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
    limit = number(query.get("limit"), "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    after = number(query.get("cursor"), "cursor", 0, 0, SEQ_MAX)
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
