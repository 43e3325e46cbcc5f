"""Vouchers over HTTP: post one, post many, reverse, read."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncpg.pgproto.pgproto import UUID

from fundledger.app import render
from fundledger.app.body import (
    BATCH_MAX,
    BatchBody,
    ReverseBody,
    VoucherBody,
    account_id,
    decode_voucher,
    decoder,
    metadata,
    quotes_of_voucher,
    voucher_id,
    voucher_type,
)
from fundledger.app.gate import Passage, account_of
from fundledger.app.many import Turn, at, decoder_of_many, item_decoder
from fundledger.app.problems import (
    BadRequest,
    crashed,
    fault_members,
    faulted,
    not_found,
    refusal_members,
    refused,
)
from fundledger.app.protocol import ShortPath
from fundledger.app.reply import JSON, Reply
from fundledger.app.routing import Call
from fundledger.app.service import Service
from fundledger.hotspot.lane import LaneFull
from fundledger.ledger.account import Account
from fundledger.ledger.batch import AtomicGroup, Outcome
from fundledger.ledger.fault import Fault, GuardHit, OutcomeUnknown, Unavailable
from fundledger.ledger.records import read_records
from fundledger.ledger.refusal import Code, Refusal
from fundledger.ledger.voucher import Record, Voucher, digest_of
from fundledger.ratelimit.chain import Pending

_REPLAY = {"Idempotent-Replay": "true"}
_decode_batch = decoder_of_many(BatchBody, "vouchers", BATCH_MAX, item_decoder(VoucherBody, quotes_of_voucher))
_decode_reverse = decoder(ReverseBody)


def post_voucher(service: Service, passage: Passage, body: bytes, answer: Callable[[Reply], None]) -> None:
    """`POST /v1/vouchers`: decode, let in, put into its lane; `answer` is called once, at once or after the commit.

    Never raises: whatever is wrong is the answer.
    """
    gate = service.gate
    reply = None
    try:
        parsed = decode_voucher(body)
        voucher = to_voucher(parsed, passage.module, service.directory.get)
        if type(voucher) is Voucher:
            if not gate.recognise(passage):
                passage.api_class = gate.class_of(voucher.type)
            no = gate.enter(passage, account_of(voucher.lines, passage.api_class))
            if no is None:
                service.lanes[voucher.shard].post(voucher, _answering(service, passage, answer))
            elif isinstance(no, Reply) and not _may_be_repeat(service, no):
                reply = no
            else:
                service.spawn(_post_if_let(service, passage, voucher, no, answer))
        else:
            if not gate.recognise(passage):
                passage.api_class = gate.class_of(parsed.type)
            reply = gate.at_the_door(passage)
            if reply is None or _may_be_repeat(service, reply):
                service.spawn(_post_after_lookup(service, passage, parsed, reply, answer))
                reply = None
    except BadRequest as bad:
        reply = bad.reply
    except LaneFull as full:
        reply = faulted(full)
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


def _answering(
    service: Service, passage: Passage, answer: Callable[[Reply], None]
) -> Callable[[int, Outcome | Fault], None]:
    """What a lane calls: whatever its outcome is, and whatever is wrong with it, the poster gets an answer."""

    def outcome_is(_: int, outcome: Outcome | Fault) -> None:
        try:
            reply = told(service, passage, outcome)
        except Exception as error:
            reply = crashed(error)
        answer(reply)

    return outcome_is


def told(service: Service, passage: Passage, outcome: Outcome | Fault) -> Reply:
    """What the poster of one voucher is answered; of a repeat, for nothing."""
    if type(outcome) is Outcome and outcome.replay:
        service.gate.refund(passage)
    return to_reply(service, outcome)


def _may_be_repeat(service: Service, no: Reply) -> bool:
    return no.status == 429 and service.repeats.has_room()


async def _post_if_let(
    service: Service, passage: Passage, voucher: Voucher, no: Reply | Pending, answer: Callable[[Reply], None]
) -> None:
    """A payment that is let in, or not, only after somebody was asked: the store, or the record of an earlier one."""
    try:
        reply = await service.gate.ask(passage) if isinstance(no, Pending) else no
        if (
            reply is not None
            and _may_be_repeat(service, reply)
            and await service.repeats.known(voucher.id, voucher.module)
        ):
            reply = _let_repeat(service, passage)
        if reply is None:
            service.lanes[voucher.shard].post(voucher, _answering(service, passage, answer))
    except Unavailable as fault:
        reply = faulted(fault)
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


def _let_repeat(service: Service, passage: Passage) -> Reply | None:
    passage.refused = None
    return service.gate.enter_uncharged(passage, time.monotonic())


SHORT_PATH: Final = ShortPath("/v1/vouchers", post_voucher)


async def post_one(service: Service, call: Call) -> Reply:
    """`POST /v1/vouchers` of a request that did not take the short path."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answer(reply: Reply) -> None:
        if not future.done():
            future.set_result(reply)

    post_voucher(service, call.passage, call.body, answer)
    return await future


async def _post_after_lookup(
    service: Service, passage: Passage, parsed: VoucherBody, denied: Reply | None, answer: Callable[[Reply], None]
) -> None:
    """A payment with an account that this worker does not remember. `denied`: only if it is a repeat."""
    reply: Reply | None
    try:
        if denied is not None and not await service.repeats.known(voucher_id(parsed.id), passage.module):
            reply = denied
        else:
            voucher = (await prepare(service, passage.module, [parsed]))[0]
            if denied is not None:
                no: Reply | Pending | None = _let_repeat(service, passage)
            else:
                no = service.gate.enter(passage, account_of(voucher.lines, passage.api_class))
            reply = no if isinstance(no, Reply) and not _may_be_repeat(service, no) else None
            if no is None:
                service.lanes[voucher.shard].post(voucher, _answering(service, passage, answer))
            elif reply is None:
                service.spawn(_post_if_let(service, passage, voucher, no, answer))
    except BadRequest as bad:
        reply = bad.reply
    except Unavailable as fault:
        reply = faulted(fault)
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


def to_voucher(
    parsed: VoucherBody,
    module: str,
    find: Callable[[str], Account | None],
    *,
    looked_up: bool = False,
    hold: str | None = None,
    hold_shard: int = 0,
    hold_place: int = 0,
) -> Voucher | None:
    """The voucher that a body asks for, or None when an account has to be looked up first. Raises BadRequest."""
    lines: list[tuple[Account, int]] = []
    asked: list[tuple[str, int]] = []
    imbalance = 0
    unknown: str | None = None
    for entry in parsed.entries:
        amount = entry.amount if entry.side == "credit" else -entry.amount
        imbalance += amount
        account = find(entry.account)
        if account is None:
            if not looked_up:
                return None
            unknown = unknown or entry.account
        else:
            lines.append((account, amount))
        asked.append((entry.account, amount))
    meta = metadata(parsed.metadata)
    type_ = voucher_type(parsed.type)
    return Voucher(
        voucher_id(parsed.id),
        module,
        type_,
        lines if unknown is None else [],
        imbalance,
        digest_of(type_, asked, parsed.reference, meta, hold, None),
        parsed.reference,
        meta,
        hold,
        hold_shard,
        hold_place,
        unknown=unknown,
    )


async def prepare(service: Service, module: str, bodies: Sequence[VoucherBody], **hold: Any) -> list[Voucher]:
    """The vouchers of several bodies, their accounts looked up together. Raises BadRequest, Unavailable."""
    turn = Turn()
    ids: set[str] = set()
    for i, body in enumerate(bodies):
        for j, entry in enumerate(body.entries):
            if entry.account not in ids:
                try:
                    ids.add(account_id(entry.account, f"entries[{j}].account"))
                except BadRequest as bad:
                    raise _at(bad, i, len(bodies)) from None
        if turn.is_over():
            await turn.next()
    if any(service.directory.get(id_) is None for id_ in ids):
        # What is malformed must not cost the database anything.
        for i, body in enumerate(bodies):
            try:
                metadata(body.metadata)
                voucher_type(body.type)
                voucher_id(body.id)
            except BadRequest as bad:
                raise _at(bad, i, len(bodies)) from None
            if turn.is_over():
                await turn.next()
    found: dict[str, Account] = await service.reading(lambda: service.directory.resolve(service.pool, sorted(ids)))
    vouchers = []
    for i, body in enumerate(bodies):
        try:
            voucher = to_voucher(body, module, found.get, looked_up=True, **hold)
        except BadRequest as bad:
            raise _at(bad, i, len(bodies)) from None
        assert voucher is not None
        vouchers.append(voucher)
        if turn.is_over():
            await turn.next()
    return vouchers


def _at(bad: BadRequest, index: int, of: int) -> BadRequest:
    return bad if of == 1 else at(bad, f"vouchers[{index}]")


def to_reply(service: Service, outcome: Outcome | Fault) -> Reply:
    """An outcome as an answer."""
    if isinstance(outcome, Fault):
        service.metrics.outcome("fault")
        return faulted(outcome)
    if outcome.refusal is not None:
        service.metrics.outcome("replayed" if outcome.replay else outcome.refusal.code)
        return refused(outcome.refusal, outcome.replay)
    assert outcome.record is not None
    if outcome.replay:
        service.metrics.outcome("replayed")
        return Reply(200, render.voucher(outcome.record), JSON, _REPLAY)
    service.metrics.outcome("posted")
    return Reply(201, render.voucher(outcome.record))


async def post_batch(service: Service, call: Call) -> Reply:
    """`POST /v1/vouchers/batch`: `results[i]` answers `vouchers[i]`; `atomic` posts all or none."""
    batch, bodies = await _decode_batch(call.body)
    vouchers = await prepare(service, call.module, bodies)
    no = await service.gate.ask_batch(call.passage, vouchers)
    if no is not None:
        return no
    if batch.atomic is True:
        outcome = await service.ask(vouchers[0].shard, AtomicGroup(vouchers))
        if isinstance(outcome, Fault):
            return faulted(outcome)
        assert outcome.parts is not None
        outcomes: Sequence[Outcome | Fault] = outcome.parts
    else:
        outcomes = await _post_each(service, vouchers)
    results = []
    if all(isinstance(item, Unavailable) for item in outcomes):
        return faulted(Unavailable("the database does not answer"))
    for voucher, item in zip(vouchers, outcomes, strict=True):
        if isinstance(item, Fault) and not isinstance(item, GuardHit):
            # What stands is told when the batch is sent again: nobody may hear "refused" who was posted.
            return faulted(OutcomeUnknown())
        if isinstance(item, Outcome) and item.replay:
            service.gate.refund_voucher(call.passage, voucher)
        results.append(_result(service, voucher, item))
    return Reply(200, render.encode({"results": results}))


async def _post_each(service: Service, vouchers: Sequence[Voucher]) -> list[Outcome | Fault]:
    wanted: dict[int, int] = {}
    for voucher in vouchers:
        wanted[voucher.shard] = wanted.get(voucher.shard, 0) + 1
    if any(service.lanes[shard].free() < count for shard, count in wanted.items()):
        raise LaneFull("too many vouchers are waiting")
    answers: list[Outcome | Fault] = [Fault()] * len(vouchers)
    left = len(vouchers)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answer(i: int, outcome: Outcome | Fault) -> None:
        nonlocal left
        answers[i] = outcome
        left -= 1
        if left == 0 and not done.done():
            done.set_result(None)

    for i, voucher in enumerate(vouchers):
        service.lanes[voucher.shard].post(voucher, answer, i)
    await done
    return answers


def _result(service: Service, voucher: Voucher, outcome: Outcome | Fault) -> dict[str, Any]:
    if isinstance(outcome, Fault):
        service.metrics.outcome("fault")
        return {"id": str(voucher.id), "status": "refused", "problem": fault_members(outcome)}
    if outcome.refusal is not None:
        service.metrics.outcome("replayed" if outcome.replay else outcome.refusal.code)
        return {"id": str(voucher.id), "status": "refused", "problem": refusal_members(outcome.refusal)}
    posted: dict[str, Any] = {"id": str(voucher.id), "status": "posted"}
    if outcome.record is not None:
        posted["posted_at"] = render.instant(outcome.record.posted_at_us)
    if outcome.replay:
        service.metrics.outcome("replayed")
        posted["replay"] = True
        return posted
    service.metrics.outcome("posted")
    return posted


async def _record(service: Service, call: Call, id_: UUID) -> tuple[Record, UUID | None] | None:
    """The caller's own voucher, and what reversed it: whether another module has one of this id is not shown."""
    records = await service.reading_durable(lambda: read_records(service.pool, service.directory, {(call.module, id_)}))
    return records[0] if records else None


async def get_voucher(service: Service, call: Call) -> Reply:
    """`GET /v1/vouchers/{id}`."""
    id_ = voucher_id(call.parameters["id"])
    found = await _record(service, call, id_)
    if found is None:
        raise not_found(f"voucher {id_}")
    return Reply(200, render.encode(render.voucher_members(*found)))


async def reverse_voucher(service: Service, call: Call) -> Reply:
    """`POST /v1/vouchers/{id}/reverse`: post the opposite voucher, linked; once."""
    original_id = voucher_id(call.parameters["id"])
    id_ = voucher_id(_decode_reverse(call.body).id)
    found = await _record(service, call, original_id)
    if found is None:
        no = await service.gate.let(call.passage, None)
        return not_found(f"voucher {original_id}").reply if no is None else no
    original, _ = found
    no = await service.gate.let(call.passage, account_of(original.lines, service.gate.class_of(original.type)))
    if no is not None:
        return no
    if original.refusal is not None:
        return refused(Refusal(Code.VOUCHER_NOT_POSTED, f"voucher {original_id} was refused"))
    lines = [(account, -amount) for account, amount in original.lines]
    asked = [(account.id, amount) for account, amount in lines]
    digest = digest_of("reversal", asked, None, None, None, original_id)
    voucher = Voucher(id_, call.module, "reversal", lines, 0, digest, reverses=original_id)
    return told(service, call.passage, await service.ask(voucher.shard, voucher))
