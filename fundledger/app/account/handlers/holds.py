"""HTTP handlers of the account service for holds. `routes/holds.py` declares the routes that call them."""

from fundledger.app.account.answers import render
from fundledger.app.account.answers.problems import refused
from fundledger.app.account.handlers.vouchers import to_reply
from fundledger.app.account.requests.bodies import CaptureBody, HoldBody, ReasonBody, account_id
from fundledger.app.account.requests.charged_accounts import class_and_accounts
from fundledger.app.account.requests.vouchers import accounts_of, prepare
from fundledger.app.account.service import Service
from fundledger.app.http.bodies.decoding import decoder, instant
from fundledger.app.http.problems import faulted, not_found
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import JSON, Reply, encode
from fundledger.faults import Fault
from fundledger.ledger.model import clock
from fundledger.ledger.model.hold import EndHold, Hold, PlaceHold
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ledger.store.records import HoldTampered, read_holds
from fundledger.ratelimit.classes import ApiClass

_REPLAY = {"Idempotent-Replay": "true"}
_decode_hold = decoder(HoldBody)
_decode_capture = decoder(CaptureBody)
_decode_reason = decoder(ReasonBody)


async def place_hold(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/holds`: set an amount aside."""
    body = _decode_hold(call.body)
    expires_at_us = 0 if body.expires_at is None else clock.us(instant(body.expires_at, "expires_at"))
    if body.expires_at is not None and expires_at_us <= 0:
        expires_at_us = 1  # a time in the past, because 0 would mean "never"
    account = service.directory.get(body.account)
    if account is None:
        no = await service.controller.charge_caller(call.admission)
        if no is not None:
            return no
        found = await service.reading(lambda: service.directory.resolve(service.pool, [body.account]))
        account = found.get(body.account)
    no = await service.controller.admit(call.admission, () if account is None else (account,))
    if no is not None:
        return no
    if account is None:
        return refused(Refusal(Code.ACCOUNT_NOT_FOUND, f"there is no account {body.account}", account=body.account))
    outcome = await service.ask(account.shard, PlaceHold(body.id, account, body.amount, expires_at_us, call.module))
    if isinstance(outcome, Fault):
        return faulted(outcome)
    if outcome.replay:
        service.controller.refund(call.admission)
    if outcome.refusal is not None:
        return refused(outcome.refusal, outcome.replay)
    assert outcome.hold is not None
    headers = _REPLAY if outcome.replay else {}
    return Reply(200 if outcome.replay else 201, encode(render.placed_hold(outcome.hold)), JSON, headers)


async def _find(service: Service, call: Call, id_: str) -> Hold | None:
    """Return a hold of the calling module in its current state, None if that module has no such hold."""
    return await service.reading_durable(lambda: _read(service, call, id_))


async def _read(service: Service, call: Call, id_: str) -> Hold | None:
    key = call.module, id_
    return (await read_holds(service.pool, service.directory, {key})).get(key)


async def get_hold(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/holds/{id}`: one hold in its current state."""
    id_ = account_id(call.parameters["id"], "id")
    try:
        hold = await service.reading_verified(lambda: _read(service, call, id_))
    except HoldTampered as wrong:
        return await service.unverified("hold", f"{call.module} {id_}", wrong)
    if hold is None:
        raise not_found(f"hold {id_}")
    return Reply(200, encode(render.hold(hold, clock.now_us())))


async def capture_hold(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/holds/{id}/capture`: post a voucher for at most the held amount; the rest is released."""
    body = _decode_capture(call.body)
    id_ = account_id(call.parameters["id"], "id")
    ids = await accounts_of([body.voucher])
    no = await service.controller.charge_caller(call.admission)
    if no is not None:
        return no
    hold = await _find(service, call, id_)
    if hold is None:
        return await service.controller.admit(call.admission, ()) or not_found(f"hold {id_}").reply
    place = (hold.account.number << 16) + hold.slot
    held = {"hold": hold.id, "hold_shard": hold.account.shard, "hold_place": place}
    voucher = (await prepare(service, call.module, [body.voucher], ids, **held))[0]
    api_class, accounts = class_and_accounts(voucher.lines)
    if api_class is ApiClass.WITHDRAW or any(account.number != hold.account.number for account in accounts):
        # The class of the route is that of a payment from the held account. The class is replaced, because this voucher
        # is a withdrawal or charges other accounts, too.
        call.admission.api_class = api_class
    no = await service.controller.admit(call.admission, accounts or (hold.account,))
    if no is not None:
        return no
    return to_reply(service, call.admission, await service.ask(voucher.shard, voucher))


async def release_hold(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/holds/{id}/release`: make the held amount available again."""
    _decode_reason(call.body)
    id_ = account_id(call.parameters["id"], "id")
    no = await service.controller.charge_caller(call.admission)
    if no is not None:
        return no
    hold = await _find(service, call, id_)
    no = await service.controller.admit(call.admission, () if hold is None else (hold.account,))
    if no is not None:
        return no
    if hold is None:
        return not_found(f"hold {id_}").reply
    outcome = await service.ask(hold.account.shard, EndHold(hold.id, hold.account, hold.slot, hold.module))
    if isinstance(outcome, Fault):
        return faulted(outcome)
    if outcome.replay:
        service.controller.refund(call.admission)
    if outcome.refusal is not None:
        return refused(outcome.refusal)
    assert outcome.hold is not None
    headers = _REPLAY if outcome.replay else {}
    return Reply(200, encode(render.hold(outcome.hold, outcome.hold.ended_at_us)), JSON, headers)
