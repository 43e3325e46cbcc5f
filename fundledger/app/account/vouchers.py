"""Account-service handlers for vouchers: post one, post a batch, reverse, read."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from asyncpg.pgproto.pgproto import UUID

from fundledger.app.account import render
from fundledger.app.account.bodies import (
    ATOMIC_ENTRIES_MAX,
    BATCH_MAX,
    BatchBody,
    ReverseBody,
    VoucherBody,
    decode_voucher,
    quotes_of_voucher,
    voucher_id,
)
from fundledger.app.account.moved import moved
from fundledger.app.account.problems import refusal_members, refused
from fundledger.app.account.service import Service
from fundledger.app.account.voucher_bodies import accounts_of, prepare, to_voucher
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.bodies.batch_decoding import Turn, decoder_of_many, item_decoder
from fundledger.app.http.bodies.decoding import decoder, metadata
from fundledger.app.http.problems import BadRequest, crashed, fault_members, faulted, malformed, not_found
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.protocol import FastPath
from fundledger.app.http.wire.reply import JSON, Reply, encode
from fundledger.faults import Fault, GuardHit, OutcomeUnknown, Unavailable
from fundledger.hotspot.lane import LaneFull
from fundledger.ledger.model.batch import AtomicGroup, Outcome
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ledger.model.voucher import Record, Voucher, digest_of
from fundledger.ledger.store.records import VoucherTampered, read_records
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.matched import Pending

_REPLAY = {"Idempotent-Replay": "true"}
_decode_batch = decoder_of_many(BatchBody, "vouchers", BATCH_MAX, item_decoder(VoucherBody, quotes_of_voucher))
_decode_reverse = decoder(ReverseBody)


def post_voucher(service: Service, passage: Admission, body: bytes, answer: Callable[[Reply], None]) -> None:
    """Handle `POST /v1/vouchers`: decode the voucher, admit it, queue it in its lane.

    Calls `answer` exactly once: before it returns, or after the commit. Never raises: each error becomes the answer.
    """
    gate = service.gate
    reply = None
    try:
        parsed = decode_voucher(body)
        voucher = to_voucher(parsed, passage.module, service.directory.get)
        if type(voucher) is Voucher:
            api_class, accounts = moved(voucher.lines)
            if not gate.recognise(passage):
                passage.api_class = api_class
            no = gate.enter(passage, accounts)
            if no is None:
                service.lanes[voucher.shard].post(voucher, _answering(service, passage, answer))
            elif isinstance(no, Reply) and not _may_be_repeat(service, no):
                reply = no
            else:
                service.spawn(_post_if_admitted(service, passage, voucher, no, answer))
        else:
            gate.recognise(passage)
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
    service: Service, passage: Admission, answer: Callable[[Reply], None]
) -> Callable[[int, Outcome | Fault], None]:
    """Return the callback for a lane. It calls `answer` for every outcome, also when building the reply fails."""

    def outcome_is(_: int, outcome: Outcome | Fault) -> None:
        try:
            reply = told(service, passage, outcome)
        except Exception as error:
            reply = crashed(error)
        answer(reply)

    return outcome_is


def told(service: Service, passage: Admission, outcome: Outcome | Fault) -> Reply:
    """Return the reply for the outcome of one voucher. Refund the quota that a replay was charged."""
    if type(outcome) is Outcome and outcome.replay:
        service.gate.refund(passage)
    return to_reply(service, outcome)


def _may_be_repeat(service: Service, no: Reply) -> bool:
    return no.status == 429 and service.repeats.has_room()


async def _is_repeat(service: Service, no: Reply, id_: UUID, module: str) -> bool:
    return _may_be_repeat(service, no) and await service.repeats.known(id_, module)


async def _post_if_admitted(
    service: Service, passage: Admission, voucher: Voucher, no: Reply | Pending, answer: Callable[[Reply], None]
) -> None:
    """Slow path of admission: ask the rate-limit store, or look up whether the request is a replay."""
    try:
        reply = await service.gate.ask(passage) if isinstance(no, Pending) else no
        if reply is not None and await _is_repeat(service, reply, voucher.id, voucher.module):
            reply = _admit_replay(service, passage)
        if reply is None:
            service.lanes[voucher.shard].post(voucher, _answering(service, passage, answer))
    except Unavailable as fault:
        reply = faulted(fault)
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


def _admit_replay(service: Service, passage: Admission) -> Reply | None:
    passage.refused = None
    return service.gate.enter_uncharged(passage, time.monotonic())


FAST_PATH: Final = FastPath("/v1/vouchers", post_voucher)


async def post_one(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/vouchers` for a request that did not take the fast path."""
    future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answer(reply: Reply) -> None:
        if not future.done():
            future.set_result(reply)

    post_voucher(service, call.passage, call.body, answer)
    return await future


async def _post_after_lookup(
    service: Service, passage: Admission, parsed: VoucherBody, denied: Reply | None, answer: Callable[[Reply], None]
) -> None:
    """Post a voucher with an account that this worker has not cached. `denied`: the reply unless it is a replay."""
    reply: Reply | None
    try:
        if denied is None:
            denied = await service.gate.charge_caller(passage)
        if denied is not None and not await _is_repeat(service, denied, voucher_id(parsed.id), passage.module):
            reply = denied
        else:
            voucher = (await prepare(service, passage.module, [parsed], await accounts_of([parsed])))[0]
            if denied is not None:
                no: Reply | Pending | None = _admit_replay(service, passage)
            else:
                api_class, accounts = moved(voucher.lines)
                if not service.gate.recognise(passage):
                    passage.api_class = api_class
                no = service.gate.enter(passage, accounts)
            reply = no if isinstance(no, Reply) and not _may_be_repeat(service, no) else None
            if no is None:
                service.lanes[voucher.shard].post(voucher, _answering(service, passage, answer))
            elif reply is None:
                service.spawn(_post_if_admitted(service, passage, voucher, no, answer))
    except BadRequest as bad:
        reply = bad.reply
    except Unavailable as fault:
        reply = faulted(fault)
    except Exception as error:
        reply = crashed(error)
    if reply is not None:
        answer(reply)


def to_reply(service: Service, outcome: Outcome | Fault) -> Reply:
    """Return the reply for an outcome, and count the outcome."""
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
    """Handle `POST /v1/vouchers/batch`: `results[i]` answers `vouchers[i]`; `atomic` posts all or none."""
    batch, bodies = await _decode_batch(call.body)
    if batch.atomic is True and sum(len(body.entries) for body in bodies) > ATOMIC_ENTRIES_MAX:
        raise malformed(f"an atomic batch has at most {ATOMIC_ENTRIES_MAX} entries in all", field="vouchers")
    ids = await accounts_of(bodies)
    if any(service.directory.get(id_) is None for id_ in ids):
        no = await service.gate.charge_caller(call.passage, len(bodies))
        if no is not None:
            return no
    vouchers = await prepare(service, call.module, bodies, ids)
    no = await service.gate.ask_many(call.passage, (moved(voucher.lines) for voucher in vouchers), len(vouchers))
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
    turn = Turn()
    for voucher, item in zip(vouchers, outcomes, strict=True):
        if turn.is_over():
            await turn.next()
        if isinstance(item, Fault) and not isinstance(item, GuardHit):
            # Part of the batch may have committed: report no item as refused. A retry reports the true outcomes.
            return faulted(OutcomeUnknown())
        if isinstance(item, Outcome) and item.replay:
            service.gate.refund_one(call.passage, *moved(voucher.lines))
        results.append(_result(service, voucher, item))
    return Reply(200, encode({"results": results}))


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
    """Return the caller's own voucher and the id of its reversal. Vouchers of other modules are invisible."""
    return await service.reading_durable(lambda: _read(service, call, id_))


async def _read(service: Service, call: Call, id_: UUID) -> tuple[Record, UUID | None] | None:
    records = await read_records(service.pool, service.directory, {(call.module, id_)})
    return records[0] if records else None


async def get_voucher(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/vouchers/{id}`."""
    id_ = voucher_id(call.parameters["id"])
    try:
        found = await service.reading_verified(lambda: _read(service, call, id_))
    except VoucherTampered as wrong:
        return await service.unverified("voucher", f"{call.module} {id_}", wrong)
    if found is None:
        raise not_found(f"voucher {id_}")
    return Reply(200, encode(render.voucher_members(*found)))


async def reverse_voucher(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/vouchers/{id}/reverse`: post the opposite voucher, linked to the original, at most once."""
    original_id = voucher_id(call.parameters["id"])
    body = _decode_reverse(call.body)
    id_, reference, meta = voucher_id(body.id), body.reference, metadata(body.metadata)
    no = await service.gate.charge_caller(call.passage)
    if no is not None:
        return no
    found = await _record(service, call, original_id)
    original = None if found is None else found[0]
    lines = [] if original is None else [(account, -amount) for account, amount in original.lines]
    api_class, accounts = moved(lines)
    # The route is charged as a refund. A reversal that moves money out is charged as a withdrawal, too.
    no = await service.gate.let(call.passage, accounts, also=api_class if api_class is ApiClass.WITHDRAW else None)
    if no is not None:
        return no
    if original is None:
        return not_found(f"voucher {original_id}").reply
    if original.refusal is not None:
        return refused(Refusal(Code.VOUCHER_NOT_POSTED, f"voucher {original_id} was refused"))
    asked = [(account.id, amount) for account, amount in lines]
    digest = digest_of("reversal", asked, reference, meta, None, original_id)
    voucher = Voucher(
        id_, call.module, "reversal", lines, 0, digest, reference=reference, metadata=meta, reverses=original_id
    )
    return told(service, call.passage, await service.ask(voucher.shard, voucher))
