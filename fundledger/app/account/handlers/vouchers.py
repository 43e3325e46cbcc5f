"""HTTP handlers of the account service for vouchers. `routes/vouchers.py` declares the routes that call them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from asyncpg.pgproto.pgproto import UUID
from msgspec import UNSET

from fundledger.app.account.answers import render
from fundledger.app.account.answers.problems import refusal_members, refused
from fundledger.app.account.answers.structs import BatchResult
from fundledger.app.account.requests.bodies import (
    ATOMIC_ENTRIES_MAX,
    BATCH_MAX,
    BatchBody,
    ReverseBody,
    VoucherBody,
    decode_voucher,
    quotes_of_voucher,
    voucher_id,
)
from fundledger.app.account.requests.charged_accounts import class_and_accounts
from fundledger.app.account.requests.vouchers import accounts_of, prepare, to_voucher
from fundledger.app.account.service import Service
from fundledger.app.http.admission.admission import Admission
from fundledger.app.http.admission.payment_path import Outcomes, PaymentPath, reply_to_batch
from fundledger.app.http.bodies.batch_decoding import decoder_of_many, item_decoder
from fundledger.app.http.bodies.decoding import decoder, metadata
from fundledger.app.http.problems import fault_members, faulted, malformed, not_found
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.protocol import FastPath
from fundledger.app.http.wire.reply import JSON, Reply, encode
from fundledger.faults import Fault
from fundledger.hotspot.lane import LaneFull
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import AtomicGroup, Outcome
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ledger.model.voucher import Record, Voucher, digest_of
from fundledger.ledger.store.records import VoucherTampered, read_records
from fundledger.ratelimit.classes import ApiClass

_REPLAY = {"Idempotent-Replay": "true"}
_decode_batch = decoder_of_many(BatchBody, "vouchers", BATCH_MAX, item_decoder(VoucherBody, quotes_of_voucher))
_decode_reverse = decoder(ReverseBody)


def to_reply(service: Service, admission: Admission, outcome: Outcome | Fault) -> Reply:
    """Return the reply for the outcome of one voucher, and count the outcome. Refund the tokens of a replay."""
    if isinstance(outcome, Fault):
        service.metrics.outcome("fault")
        return faulted(outcome)
    if outcome.replay:
        service.controller.refund(admission)
    if outcome.refusal is not None:
        service.metrics.outcome("replayed" if outcome.replay else outcome.refusal.code)
        return refused(outcome.refusal, outcome.replay)
    assert outcome.record is not None
    if outcome.replay:
        service.metrics.outcome("replayed")
        return Reply(200, render.voucher(outcome.record), JSON, _REPLAY)
    service.metrics.outcome("posted")
    return Reply(201, render.voucher(outcome.record))


class VoucherPath(PaymentPath[Service, VoucherBody, Outcome | Fault]):
    """Handling of `POST /v1/vouchers`: the voucher is queued in the lane of its shard."""

    decode: Callable[[bytes], VoucherBody] = decode_voucher
    to_reply: Callable[[Service, Admission, Outcome | Fault], Reply] = to_reply
    voucher: Voucher | None = None

    def resolve(self, content: VoucherBody) -> Sequence[Account] | None:
        admission, service = self.admission, self.service
        voucher = self.voucher = self.voucher or to_voucher(content, admission.module, service.directory.get)
        if voucher is None:
            return None
        api_class, accounts = class_and_accounts(voucher.lines)
        if not service.controller.recognise(admission):
            admission.api_class = api_class
        return accounts

    async def look_up(self, content: VoucherBody) -> None:
        ids = await accounts_of([content])
        (self.voucher,) = await prepare(self.service, self.admission.module, [content], ids)

    async def is_recorded(self, content: VoucherBody) -> bool:
        return await self.service.replays.known(voucher_id(content.id), self.admission.module)

    def queue(self) -> None:
        voucher = self.voucher
        assert voucher is not None
        self.service.lanes[voucher.shard].post(voucher, self.answered)


FAST_PATH: Final = FastPath("/v1/vouchers", VoucherPath)
post_one: Final = VoucherPath.handle


async def post_batch(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/vouchers/batch`: `results[i]` answers `vouchers[i]`; `atomic` posts all or none."""
    batch, bodies = await _decode_batch(call.body)
    if batch.atomic is True and sum(len(body.entries) for body in bodies) > ATOMIC_ENTRIES_MAX:
        raise malformed(f"an atomic batch has at most {ATOMIC_ENTRIES_MAX} entries in all", field="vouchers")
    ids = await accounts_of(bodies)
    if any(service.directory.get(id_) is None for id_ in ids):
        no = await service.controller.charge_caller(call.admission, len(bodies))
        if no is not None:
            return no
    vouchers = await prepare(service, call.module, bodies, ids)
    no = await service.controller.ask_many(
        call.admission, (class_and_accounts(voucher.lines) for voucher in vouchers), len(vouchers)
    )
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
    return await reply_to_batch(vouchers, outcomes, _fault_of, partial(_result, service, call.admission))


async def _post_each(service: Service, vouchers: Sequence[Voucher]) -> list[Outcome | Fault]:
    wanted: dict[int, int] = {}
    for voucher in vouchers:
        wanted[voucher.shard] = wanted.get(voucher.shard, 0) + 1
    if any(service.lanes[shard].free() < count for shard, count in wanted.items()):
        raise LaneFull("too many vouchers are waiting")
    outcomes: Outcomes[Outcome | Fault] = Outcomes(len(vouchers))
    for i, voucher in enumerate(vouchers):
        service.lanes[voucher.shard].post(voucher, outcomes.answer, i)
    return await outcomes.wait()


def _fault_of(outcome: Outcome | Fault) -> Fault | None:
    return outcome if isinstance(outcome, Fault) and outcome.retry_is_safe else None


def _result(service: Service, admission: Admission, voucher: Voucher, outcome: Outcome | Fault) -> BatchResult:
    if isinstance(outcome, Fault):
        service.metrics.outcome("fault")
        return BatchResult(voucher.id, "refused", problem=fault_members(outcome))
    if outcome.replay:
        service.controller.refund_one(admission, *class_and_accounts(voucher.lines))
    if outcome.refusal is not None:
        service.metrics.outcome("replayed" if outcome.replay else outcome.refusal.code)
        return BatchResult(voucher.id, "refused", problem=refusal_members(outcome.refusal))
    service.metrics.outcome("replayed" if outcome.replay else "posted")
    posted_at = UNSET if outcome.record is None else render.instant(outcome.record.posted_at_us)
    return BatchResult(voucher.id, "posted", posted_at, replay=outcome.replay or UNSET)


async def _record(service: Service, call: Call, id_: UUID) -> tuple[Record, UUID | None] | None:
    """Return a voucher of the calling module and the id of its reversal, None if that module has no such voucher."""
    return await service.reading_durable(lambda: _read(service, call, id_))


async def _read(service: Service, call: Call, id_: UUID) -> tuple[Record, UUID | None] | None:
    records = await read_records(service.pool, service.directory, {(call.module, id_)})
    return records[0] if records else None


async def get_voucher(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/vouchers/{id}`: one voucher, and the id of its reversal if there is one."""
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
    no = await service.controller.charge_caller(call.admission)
    if no is not None:
        return no
    found = await _record(service, call, original_id)
    original = None if found is None else found[0]
    lines = [] if original is None else [(account, -amount) for account, amount in original.lines]
    api_class, accounts = class_and_accounts(lines)
    # A reversal is charged as a refund. If it moves money out of the platform, it is charged as a withdrawal, too.
    no = await service.controller.admit(
        call.admission, accounts, also=api_class if api_class is ApiClass.WITHDRAW else None
    )
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
    return to_reply(service, call.admission, await service.ask(voucher.shard, voucher))
