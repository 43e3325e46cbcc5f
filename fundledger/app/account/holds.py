"""Account-service handlers for holds (place, capture, release, read), and the job that ends expired holds."""

import asyncio
import logging
from typing import Final, Protocol

import asyncpg

from fundledger.app.account import render
from fundledger.app.account.bodies import CaptureBody, HoldBody, ReasonBody, account_id
from fundledger.app.account.moved import moved
from fundledger.app.account.problems import refused
from fundledger.app.account.service import Service
from fundledger.app.account.voucher_bodies import accounts_of, prepare
from fundledger.app.account.vouchers import to_reply
from fundledger.app.http.bodies.decoding import decoder, instant
from fundledger.app.http.problems import faulted, not_found
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import JSON, Reply, encode
from fundledger.faults import Fault
from fundledger.jobs.job import Job, Lease, Ran
from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import Command, Outcome
from fundledger.ledger.model.hold import EndHold, Hold, PlaceHold
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ledger.store.directory import AccountTampered, Directory
from fundledger.ledger.store.queries import SQL
from fundledger.ledger.store.records import HoldTampered, read_holds
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.pacer import Pacer
from fundledger.security.keys import KeyFault

_log = logging.getLogger(__name__)
_REPLAY = {"Idempotent-Replay": "true"}
_decode_hold = decoder(HoldBody)
_decode_capture = decoder(CaptureBody)
_decode_reason = decoder(ReasonBody)
HOLD_EXPIRY: Final = "hold_expiry"
EXPIRY_EVERY_S = 1.0
EXPIRY_AT_ONCE = 1000
EXPIRY_ALARM_S = 30.0
EXPIRY_ROUNDS_PER_S = 10
"""Limits the load, so that many holds with the same expiry leave capacity for payments."""
STUCK_ROUNDS = 60
"""Number of rounds after which accounts whose holds could not be ended are retried."""


async def place_hold(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/holds`: set an amount aside."""
    body = _decode_hold(call.body)
    expires_at_us = 0 if body.expires_at is None else clock.us(instant(body.expires_at, "expires_at"))
    if body.expires_at is not None and expires_at_us <= 0:
        expires_at_us = 1  # in the past; 0 would mean "never"
    account = service.directory.get(body.account)
    if account is None:
        no = await service.gate.charge_caller(call.passage)
        if no is not None:
            return no
        found = await service.reading(lambda: service.directory.resolve(service.pool, [body.account]))
        account = found.get(body.account)
    no = await service.gate.let(call.passage, () if account is None else (account,))
    if no is not None:
        return no
    if account is None:
        return refused(Refusal(Code.ACCOUNT_NOT_FOUND, f"there is no account {body.account}", account=body.account))
    outcome = await service.ask(account.shard, PlaceHold(body.id, account, body.amount, expires_at_us, call.module))
    if isinstance(outcome, Fault):
        return faulted(outcome)
    if outcome.replay:
        service.gate.refund(call.passage)
    if outcome.refusal is not None:
        return refused(outcome.refusal, outcome.replay)
    assert outcome.hold is not None
    headers = _REPLAY if outcome.replay else {}
    return Reply(200 if outcome.replay else 201, encode(render.placed_hold(outcome.hold)), JSON, headers)


async def _find(service: Service, call: Call, id_: str) -> Hold | None:
    """Return the caller's own hold in its current state. Holds of other modules are invisible."""
    return await service.reading_durable(lambda: _read(service, call, id_))


async def _read(service: Service, call: Call, id_: str) -> Hold | None:
    key = call.module, id_
    return (await read_holds(service.pool, service.directory, {key})).get(key)


async def get_hold(service: Service, call: Call) -> Reply:
    """Handle `GET /v1/holds/{id}`."""
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
    no = await service.gate.charge_caller(call.passage)
    if no is not None:
        return no
    hold = await _find(service, call, id_)
    if hold is None:
        return await service.gate.let(call.passage, ()) or not_found(f"hold {id_}").reply
    place = (hold.account.number << 16) + hold.slot
    held = {"hold": hold.id, "hold_shard": hold.account.shard, "hold_place": place}
    voucher = (await prepare(service, call.module, [body.voucher], ids, **held))[0]
    api_class, accounts = moved(voucher.lines)
    if api_class is ApiClass.WITHDRAW or any(account.number != hold.account.number for account in accounts):
        # The voucher does more than the hold was admitted for.
        call.passage.api_class = api_class
    no = await service.gate.let(call.passage, accounts or (hold.account,))
    if no is not None:
        return no
    return to_reply(service, call.passage, await service.ask(voucher.shard, voucher))


async def release_hold(service: Service, call: Call) -> Reply:
    """Handle `POST /v1/holds/{id}/release`: make the held amount available again."""
    _decode_reason(call.body)
    id_ = account_id(call.parameters["id"], "id")
    no = await service.gate.charge_caller(call.passage)
    if no is not None:
        return no
    hold = await _find(service, call, id_)
    no = await service.gate.let(call.passage, () if hold is None else (hold.account,))
    if no is not None:
        return no
    if hold is None:
        return not_found(f"hold {id_}").reply
    outcome = await service.ask(hold.account.shard, EndHold(hold.id, hold.account, hold.slot, hold.module))
    if isinstance(outcome, Fault):
        return faulted(outcome)
    if outcome.replay:
        service.gate.refund(call.passage)
    if outcome.refusal is not None:
        return refused(outcome.refusal)
    assert outcome.hold is not None
    headers = _REPLAY if outcome.replay else {}
    return Reply(200, encode(render.hold(outcome.hold, outcome.hold.ended_at_us)), JSON, headers)


class Ending(Protocol):
    """The part of a worker that ending holds needs."""

    @property
    def pool(self) -> "asyncpg.Pool[asyncpg.Record]": ...

    @property
    def directory(self) -> Directory: ...

    async def ask(self, shard: int, command: Command) -> Outcome | Fault: ...


class Expiry:
    """Background job that ends expired holds. Safe to run concurrently: a hold ends once."""

    def __init__(self, service: Ending) -> None:
        self._service = service
        self._stuck: set[int] = set()
        self._rounds = 0
        self._pacer = Pacer(EXPIRY_ROUNDS_PER_S)

    def job(self) -> Job:
        return Job(HOLD_EXPIRY, self.run, EXPIRY_EVERY_S, alarm_after_s=EXPIRY_ALARM_S)

    async def run(self, lease: Lease) -> Ran:
        """Run one round. Raises asyncpg errors, Fault, TooMuch. Retrying is always safe."""
        lease.check()
        self._rounds += 1
        if self._rounds % STUCK_ROUNDS == 0:
            self._stuck.clear()
        await self._pacer.turn()
        ended, lag_s = await _expire_some(self._service, self._stuck)
        more = ended == EXPIRY_AT_ONCE
        return Ran(ended, lag_s if more else 0.0, more)


async def _expire_some(service: Ending, stuck: set[int]) -> tuple[int, float]:
    """Return the number of holds ended, and the time (s) since the earliest expiry that was due.

    An account whose holds cannot be ended is added to `stuck`, and does not block other accounts.
    """
    now = clock.moment(clock.now_us())
    rows = await service.pool.fetch(SQL["expired_holds"], now, EXPIRY_AT_ONCE, sorted(stuck))
    accounts: dict[int, Account] = {}
    for number in {row["account_number"] for row in rows}:
        try:
            accounts |= await service.directory.by_number(service.pool, [number])
        except (AccountTampered, KeyFault) as error:
            _log.critical("holds cannot be expired: %s", error, extra={"event": "hold_expiry_blocked"})
            stuck.add(number)
    commands = [
        EndHold(row["id"], accounts[row["account_number"]], row["slot"], row["module"], expire=True)
        for row in rows
        if row["account_number"] in accounts
    ]
    outcomes = await asyncio.gather(*(service.ask(command.account.shard, command) for command in commands))
    ended = 0
    for command, outcome in zip(commands, outcomes, strict=True):
        if isinstance(outcome, Fault) or outcome.refusal is not None:
            stuck.add(command.account.number)
        else:
            ended += 1
    lag_s = max(((now - row["expires_at"]).total_seconds() for row in rows), default=0.0)
    return ended, lag_s
