"""The background job that ends expired holds: a hold that cannot be ended does not delay the others."""

from collections.abc import AsyncIterator

import pytest

from fundledger.app.account.jobs import expiry as expiry_module
from fundledger.app.account.jobs.expiry import Expiry
from fundledger.jobs import runner as runner_module
from fundledger.jobs.job import Lease, Ran
from fundledger.jobs.runner import JobRunner
from fundledger.ledger.model import clock
from fundledger.ledger.model.hold import HoldStatus
from fundledger.ratelimit.pacer import Pacer, TooMuch
from tests.support.leases import running, take_lease
from tests.support.ledger import Ledger
from tests.support.waiting import eventually


@pytest.fixture
async def expiry(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Expiry]:
    monkeypatch.setattr(expiry_module, "ROUNDS_PER_S", 1000)
    async with ledger.pool() as pool:
        made = Expiry(ledger.dsn, pool, ledger.books)
        yield made
        made._session.drop()


@pytest.fixture
async def lease(expiry: Expiry) -> Lease:
    return await take_lease(expiry._pool, "hold_expiry")


async def statuses(ledger: Ledger) -> dict[str, HoldStatus]:
    rows = await ledger.connection.fetch("SELECT id, status FROM ledger.holds")
    return {row["id"]: HoldStatus(row["status"]) for row in rows}


async def test_only_holds_whose_time_is_up_are_ended(
    ledger: Ledger, expiry: Expiry, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await ledger.account("m:1", balance=100)
    now = clock.now_us()
    for id_, seconds in (("h:1", 1), ("h:2", 2), ("h:3", 60)):
        await ledger.hold(id_, a, 10, expires_at_us=now + seconds * 1_000_000)
    await ledger.hold("h:never", a, 10)
    monkeypatch.setattr(clock, "now_us", lambda: now + 2_000_000)
    monkeypatch.setattr(expiry_module, "AT_ONCE", 2)
    assert await expiry.run(lease) == Ran(2, 1.0, more=True)
    assert await expiry.run(lease) == Ran(0, 0.0)
    ended = {id_ for id_, status in (await statuses(ledger)).items() if status == HoldStatus.EXPIRED}
    assert ended == {"h:1", "h:2"}
    assert (await ledger.view(a)).held == 20
    await ledger.prove()


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE ledger.sub_accounts SET posted = posted + 1 WHERE account_number = $1",
        "UPDATE ledger.sub_accounts SET key_version = 9 WHERE account_number = $1",
        "UPDATE ledger.accounts SET owner = 'thief' WHERE number = $1",
        "UPDATE ledger.accounts SET key_version = 9 WHERE number = $1",
        "UPDATE ledger.holds SET amount = 1 WHERE account_number = $1",
        "DELETE FROM ledger.sub_accounts WHERE account_number = $1",
    ],
)
async def test_a_hold_that_cannot_be_ended_holds_up_no_other(
    ledger: Ledger, expiry: Expiry, lease: Lease, monkeypatch: pytest.MonkeyPatch, tampering: str
) -> None:
    bad, good = await ledger.account("m:bad", balance=100), await ledger.account("m:good", balance=100)
    now = clock.now_us()
    for account in (bad, good):
        for i in range(3):
            expires_at_us = now + (1 if account is bad else 2) * 1_000_000
            await ledger.hold(f"{account.id}:{i}", account, 10, expires_at_us=expires_at_us)
    await ledger.tamper(tampering, bad.number)
    monkeypatch.setattr(clock, "now_us", lambda: now + 5_000_000)
    monkeypatch.setattr(expiry_module, "AT_ONCE", 3)
    assert [(await expiry.run(lease)).done for _ in range(3)] == [0, 3, 0]
    assert expiry.stuck == {bad.number}
    found = await statuses(ledger)
    assert {id_ for id_, status in found.items() if status == HoldStatus.EXPIRED} == {f"m:good:{i}" for i in range(3)}


async def test_a_round_that_gets_no_turn_is_not_the_last_one(
    ledger: Ledger, expiry: Expiry, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await ledger.account("m:1", balance=100)
    now = clock.now_us()
    await ledger.hold("h:1", a, 10, expires_at_us=now + 1_000_000)
    monkeypatch.setattr(clock, "now_us", lambda: now + 2_000_000)
    monkeypatch.setattr(expiry_module, "EVERY_S", 0.01)
    monkeypatch.setattr(runner_module, "BEAT_S", 0.02)
    turns = 0

    async def turn(self: Pacer) -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise TooMuch("no turn")

    monkeypatch.setattr(Pacer, "turn", turn)

    async def is_ended() -> bool:
        return turns > 1 and (await statuses(ledger))["h:1"] == HoldStatus.EXPIRED

    async with running(JobRunner(expiry._pool, [expiry.job()], "test")):
        await eventually(is_ended, "the hold is ended by a later round")
