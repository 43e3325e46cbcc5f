"""Orders over HTTP: each kind is posted, found and listed in the same way; payments also many at once."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from fundledger.app.body import decoder, known_currency, quotes_of_flat
from fundledger.app.fund import render
from fundledger.app.fund.bodies import PaymentsBody
from fundledger.app.fund.lookup import found, verified, verifies
from fundledger.app.fund.parts import Whose
from fundledger.app.fund.problems import gone, refusal_members, refused, unverified_items
from fundledger.app.fund.service import FundService
from fundledger.app.many import Turn, decoder_of_many, item_decoder
from fundledger.app.passage import Passage
from fundledger.app.problems import (
    PROBLEM_TYPE,
    BadRequest,
    crashed,
    faulted,
    malformed,
    not_found,
    unverified,
)
from fundledger.app.protocol import ShortPath
from fundledger.app.render import encode
from fundledger.app.reply import JSON, Reply
from fundledger.app.routing import Call
from fundledger.fund import accounts
from fundledger.fund.answer import Answer, Away, Taken
from fundledger.fund.order import PLATFORM, Kind, State
from fundledger.fund.orders import history as read_history
from fundledger.fund.orders import list_orders, read_orders
from fundledger.fund.requests import BATCH_MAX, REQUESTS, BankDifference, ChannelCost, Payment, Request
from fundledger.ledger.fault import OutcomeUnknown, Unavailable
from fundledger.ratelimit.chain import Pending
from fundledger.ratelimit.classes import ApiClass

Handler = Callable[[FundService, Call], Awaitable[Reply]]
NAMES: Final[dict[Kind, str]] = {kind: f"{kind.value.replace('_', '-')}s" for kind in Kind} | {
    Kind.RECOVERY: "recoveries"
}
"""Of the collection of each kind, as paths name it."""
CLASSES: Final[dict[Kind, ApiClass]] = {
    Kind.PAYMENT: ApiClass.PAYMENT,
    Kind.REFUND: ApiClass.REFUND,
    Kind.SETTLEMENT: ApiClass.PAYMENT,
    Kind.WITHDRAWAL: ApiClass.WITHDRAW,
    # What has happened already is only told here.
    Kind.CHARGEBACK: ApiClass.CONFIRM,
    Kind.RECOVERY: ApiClass.PAYMENT,
    Kind.WRITE_OFF: ApiClass.ADMIN,
    Kind.ADJUSTMENT: ApiClass.ADMIN,
    Kind.CHANNEL_COST: ApiClass.CONFIRM,
    Kind.BANK_DIFFERENCE: ApiClass.ADMIN,
    Kind.REVERSAL: ApiClass.REFUND,
}
OF_THE_PLATFORM: Final = frozenset({Kind.CHANNEL_COST, Kind.BANK_DIFFERENCE, Kind.REVERSAL})
"""Lists of these may leave the merchant out."""
UNCERTAIN: Final = frozenset({State.POSTING, State.STUCK})
"""States of an order whose next step is not known to be done: answered 202."""
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 500
SEQ_MAX: Final = (1 << 63) - 1
_REPLAY: Final = {"Idempotent-Replay": "true"}
_is_merchant = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z").match
_is_order_no = re.compile(r"[A-Za-z0-9:_./-]{1,64}\Z").match
_decode_payment = decoder(Payment, quotes_of_flat)
_decode_payments = decoder_of_many(PaymentsBody, "payments", BATCH_MAX, item_decoder(Payment, quotes_of_flat))


def whose(merchant: str) -> Whose:
    """A merchant as limits know him, by the names that the account service has for him."""
    return Whose(accounts.available(merchant), f"merchant:{merchant}")


def post_payment(service: FundService, passage: Passage, body: bytes, answer: Callable[[Reply], None]) -> None:
    """`POST /v1/payments`: decode, let in, hand to the desk; `answer` is called once, at once or when it is known.

    Never raises: whatever is wrong is the answer.
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
            no = gate.enter(passage, (whose(merchant.id),))
            if no is None:
                service.desk.post(request, passage.module, _answering(service, passage, Kind.PAYMENT, answer))
            elif isinstance(no, Reply) and not _may_be_repeat(service, no):
                reply = no
            else:
                service.spawn(_post_if_let(service, passage, request, no, answer))
    except BadRequest as bad:
        reply = bad.reply
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


SHORT_PATH: Final = ShortPath("/v1/payments", post_payment)


def _answering(
    service: FundService, passage: Passage, kind: Kind, answer: Callable[[Reply], None]
) -> Callable[[Answer], None]:
    """What the desk calls: whatever its answer is, and whatever is wrong with it, the sender gets one."""

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
    service: FundService, passage: Passage, request: Payment, answer: Callable[[Reply], None]
) -> None:
    """A payment to a merchant that this worker does not remember."""
    try:
        no: Reply | Pending | None = await service.gate.charge_caller(passage)
        if no is None:
            merchant = await service.reading(lambda: service.merchants.get(request.merchant))
            no = service.gate.enter(passage, () if merchant is None else (whose(merchant.id),))
    except Unavailable as fault:
        answer(faulted(fault))
    except BadRequest as bad:
        answer(bad.reply)
    except Exception as error:
        answer(crashed(error))
    else:
        await _post_if_let(service, passage, request, no, answer)


async def _post_if_let(
    service: FundService,
    passage: Passage,
    request: Request,
    no: Reply | Pending | None,
    answer: Callable[[Reply], None],
) -> None:
    """An order that is let in, or not, only after somebody was asked: the store, or the record of an earlier one."""
    try:
        reply = await _let(service, passage, request, no)
        if reply is None:
            service.desk.post(request, passage.module, _answering(service, passage, request.kind, answer))
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


async def _let(service: FundService, passage: Passage, request: Request, no: Reply | Pending | None) -> Reply | None:
    """None: it is in. A repeat is let in whatever its sender has used up."""
    reply = await service.gate.ask(passage) if isinstance(no, Pending) else no
    if reply is not None and _may_be_repeat(service, reply):
        ids = service.ids.all_of(request.kind, request.whose, request.order_no)
        if any(await asyncio.gather(*(service.repeats.known(id_) for id_ in ids))):
            passage.refused = None
            return service.gate.enter_uncharged(passage, time.monotonic())
    return reply


async def post_one_payment(service: FundService, call: Call) -> Reply:
    """`POST /v1/payments` of a request that did not take the short path."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answer(reply: Reply) -> None:
        if not future.done():
            future.set_result(reply)

    post_payment(service, call.passage, call.body, answer)
    return await future


def posting(kind: Kind) -> Handler:
    """`POST /v1/{kind}` of all but payments."""
    decode = decoder(REQUESTS[kind], quotes_of_flat)

    async def post(service: FundService, call: Call) -> Reply:
        request = decode(call.body)
        if isinstance(request, ChannelCost | BankDifference):
            known_currency(request.currency)
        no: Reply | Pending | None = None
        merchant = None if request.whose == PLATFORM else service.merchants.remembered(request.whose)
        if request.whose != PLATFORM and merchant is None:
            no = await service.gate.charge_caller(call.passage)
            if no is None:
                merchant = await service.reading(lambda: service.merchants.get(request.whose))
        if no is None:
            no = service.gate.enter(call.passage, () if merchant is None else (whose(merchant.id),))
        reply = await _let(service, call.passage, request, no)
        if reply is not None:
            return reply
        return told(service, call.passage, kind, await service.desk.ask(request, call.module))

    return post


def told(service: FundService, passage: Passage, kind: Kind, answer: Answer, status: int = 201) -> Reply:
    """What the sender of one order is answered; of a repeat, for nothing. `status`: of one that was done now."""
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
    """`POST /v1/payments/batch`: `results[i]` answers `payments[i]`. Of two with one number the second one is a repeat
    of the first, or refused as any other use of a number that has one.
    """
    _, payments = await _decode_payments(call.body)
    for i, payment in enumerate(payments):
        known_currency(payment.currency, f"payments[{i}].currency")
    known = service.merchants.remembered
    # Whom this worker does not remember the desk looks up, once it is let in; then he is remembered.
    items = [(ApiClass.PAYMENT, (whose(p.merchant),) if known(p.merchant) is not None else ()) for p in payments]
    no = await service.gate.ask_many(call.passage, items, len(items))
    if no is not None:
        return no
    answers = await _post_each(service, payments, call.module)
    if all(isinstance(each, Away) and each.undone for each in answers):
        return faulted(Unavailable("the fund database does not answer"))
    results: list[dict[str, Any]] = []
    for payment, item, each in zip(payments, items, answers, strict=True):
        if isinstance(each, Away) and not each.tampered:
            # What stands is told when the batch is sent again: nobody may hear "refused" who was posted.
            return faulted(OutcomeUnknown())
        if isinstance(each, Taken) and each.replay:
            service.gate.refund_one(call.passage, *item)
        results.append(_result(service, payment, each))
    return Reply(200, encode({"results": results}))


async def _post_each(service: FundService, payments: Sequence[Payment], module: str) -> list[Answer]:
    answers: list[Answer] = [Away("nobody answered", undone=False)] * len(payments)
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
    """`GET /v1/{kind}/{id}`."""

    async def get(service: FundService, call: Call) -> Reply:
        return Reply(200, render.order(await found(service, kind, call.parameters["id"])))

    return get


def history(kind: Kind) -> Handler:
    """`GET /v1/{kind}/{id}/history`: the states that it went into, oldest first."""

    async def get(service: FundService, call: Call) -> Reply:
        order = await found(service, kind, call.parameters["id"])
        return Reply(200, render.history(order, await service.reading(lambda: read_history(service.pool, order))))

    return get


def listing(kind: Kind) -> Handler:
    """`GET /v1/{kind}`: the one that has a number, or a page of a merchant's, oldest first."""

    async def get(service: FundService, call: Call) -> Reply:
        query, passage = call.query, call.passage
        one = "order_no" in query
        passage.api_class = ApiClass.QUERY if one else ApiClass.LIST
        merchant = query.get("merchant", PLATFORM if kind in OF_THE_PLATFORM else "")
        if not _is_merchant(merchant):
            raise malformed("merchant has 1 to 64 of [A-Za-z0-9_.-]", field="merchant")
        remembered = service.merchants.remembered(merchant)
        no = await service.gate.let(passage, () if remembered is None else (whose(merchant),))
        if no is not None:
            return no
        if not one:
            return await _page(service, kind, merchant, call)
        # A generated client may send `limit` with each request, since it has a default.
        for name in ("state", "cursor"):
            if name in query:
                raise malformed(f"{name} makes no sense with order_no", field=name)
        order_no = query["order_no"]
        if not _is_order_no(order_no):
            raise malformed("order_no has 1 to 64 of [A-Za-z0-9:_./-]", field="order_no")
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
        raise malformed(f"state is one of {', '.join(State)}", field="state") from None
    orders = await service.reading(lambda: list_orders(service.pool, kind, merchant, state, after, limit + 1))
    page = orders[:limit]
    bad = [order.id for order in page if not verifies(service, order)]
    shown = [order for order in page if order.id not in bad]
    following = str(page[-1].seq) if len(orders) > limit else None
    return Reply(200, render.page(shown, following, unverified_items("order", bad)))


def number(text: str | None, name: str, default: int, least: int, most: int) -> int:
    """Of a query parameter. Raises BadRequest (400)."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not least <= int(text) <= most:
        raise malformed(f"{name} is a whole number from {least} to {most}", field=name)
    return int(text)
