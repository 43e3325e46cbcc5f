"""Isolation of commands: values that the database rejects and broken connections affect no other command."""

import asyncpg
import pytest

from fundledger.faults import GuardHit, Unavailable
from fundledger.ledger import optimistic as unlocked
from fundledger.ledger import posting
from tests.support.ledger import (
    Ledger,
    codes,
    posted,
    transfer,
)


@pytest.mark.parametrize("at", [[0], [4], [8], [2, 6], [0, 1, 2]])
async def test_an_item_that_the_database_refuses_stands_alone(ledger: Ledger, at: list[int]) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.connection.execute("ALTER TABLE ledger.vouchers ADD CONSTRAINT poison CHECK (type <> 'poison')")
    batch = [transfer(a, b, 1, type_="poison" if i in at else "pay") for i in range(9)]
    outcomes = await ledger.post(*batch)
    assert [isinstance(outcome, GuardHit) for outcome in outcomes] == [i in at for i in range(9)]
    assert codes([outcome for i, outcome in enumerate(outcomes) if i not in at]) == ["posted"] * (9 - len(at))
    assert await ledger.posted(b) == 9 - len(at)
    for i in at:
        assert await ledger.record(batch[i].id) is None
    await ledger.connection.execute("ALTER TABLE ledger.vouchers DROP CONSTRAINT poison")
    await ledger.prove()


async def test_an_item_that_is_refused_at_the_commit_stands_alone(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.connection.execute(
        """
        CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF NEW.type = 'poison' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER poison AFTER INSERT ON ledger.vouchers DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION poison();
        """
    )
    outcomes = await ledger.post(transfer(a, b, 1), transfer(a, b, 1, type_="poison"), transfer(a, b, 1))
    assert codes(outcomes) == ["posted", "GuardHit", "posted"]
    assert await ledger.posted(b) == 2
    await ledger.connection.execute("DROP TRIGGER poison ON ledger.vouchers")
    await ledger.prove()


async def test_a_guard_of_the_database_stops_what_the_rules_let_through(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    c = await ledger.account("m:3", balance=10)
    monkeypatch.setattr("fundledger.ledger.rules.decide._funds_refusal", lambda *_: None)
    outcomes = await ledger.post(transfer(c, b, 1), transfer(a, b, 11), transfer(c, b, 1))
    assert codes(outcomes) == ["posted", "GuardHit", "posted"]
    await ledger.prove()


async def test_what_a_client_may_send_never_breaks_the_batch_of_others(ledger: Ledger) -> None:
    """A voucher with text that only Postgres rejects is refused alone, and the rest of the batch is posted."""
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    bad = [transfer(a, b, 1, reference="a\0b"), transfer(a, b, 1, metadata="{")]
    outcomes = await ledger.post(transfer(a, b, 1), *bad, transfer(a, b, 1))
    assert codes(outcomes) == ["posted", "GuardHit", "GuardHit", "posted"]
    assert await ledger.posted(b) == 2
    await ledger.prove()


# --- Connections that break --------------------------------------------------------------------------------------------


async def cut(ledger: Ledger) -> None:
    """Let the server end the connection of the lane."""
    name = ledger.session._name
    await ledger.connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", name
    )


async def test_a_connection_that_broke_between_batches_is_replaced(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await cut(ledger)
    outcome = await ledger.post_one(transfer(a, b, 1))
    assert posted(outcome) and not outcome.replay
    await ledger.prove()


async def test_a_connection_that_broke_before_the_commit_posts_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    ledger.lock_always()
    real, cuts = posting._write, []

    async def write(*arguments):
        await real(*arguments)
        if not cuts:
            cuts.append(1)
            await cut(ledger)

    monkeypatch.setattr(posting, "_write", write)
    outcome = await ledger.post_one(transfer(a, b, 1))
    assert cuts
    assert posted(outcome) and not outcome.replay
    assert await ledger.posted(b) == 1
    await ledger.prove()


async def test_a_connection_that_broke_after_the_commit_posts_once_and_is_no_replay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit succeeds but its result is lost. The caller still gets a new voucher instead of a replay."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    ledger.lock_always()
    real, cuts = asyncpg.Connection.execute, []

    async def execute(self, query, *arguments, **more):
        done = await real(self, query, *arguments, **more)
        if query == posting.COMMIT and not cuts:
            cuts.append(1)
            self.terminate()
            raise ConnectionResetError("cut after the commit")
        return done

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    outcomes = await ledger.post(transfer(a, b, 1), transfer(a, b, 1000))
    assert cuts
    assert codes(outcomes) == ["posted", "insufficient-funds"]
    assert [outcome.replay for outcome in outcomes] == [False, False]
    assert await ledger.posted(b) == 1
    await ledger.prove()


async def test_a_database_that_does_not_come_back_is_an_unknown_outcome_only_after_the_commit_was_sent(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    ledger.lock_always()
    monkeypatch.setattr(posting, "RETRY_FOR_S", 0.0)

    async def unreachable() -> None:
        raise ConnectionRefusedError("gone")

    ledger.session.drop()
    monkeypatch.setattr(ledger.session, "open", unreachable)
    assert codes(await ledger.post(transfer(a, b, 1), transfer(a, b, 1))) == ["Unavailable", "Unavailable"]
    monkeypatch.undo()
    monkeypatch.setattr(posting, "RETRY_FOR_S", 0.0)
    real = asyncpg.Connection.execute

    async def execute(self, query, *arguments, **more):
        if query == posting.COMMIT:
            self.terminate()
            monkeypatch.setattr(ledger.session, "open", unreachable)
            raise ConnectionResetError("cut before the commit")
        return await real(self, query, *arguments, **more)

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    assert codes(await ledger.post(transfer(a, b, 1))) == ["OutcomeUnknown"]
    monkeypatch.undo()
    assert await ledger.posted(b) == 0
    await ledger.prove()


async def test_a_missing_key_is_a_fault_and_freezes_no_account(ledger: Ledger, tmp_path) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await ledger.tamper("UPDATE ledger.sub_accounts SET key_version = 9 WHERE account_number = $1", a.number)
    before = await ledger.state()
    assert [type(o) for o in await ledger.post(transfer(a, b, 1))] == [Unavailable]
    assert await ledger.state() == before


async def test_unavailable_is_never_returned_when_an_earlier_attempt_may_have_been_committed(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt is cut at its commit. Each later attempt has a conflict, until the lane gives up."""
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    ledger.lock_always()
    real, real_write, cuts = asyncpg.Connection.execute, posting._write, []

    async def execute(self, query, *arguments, **more):
        if query == posting.COMMIT and not cuts:
            cuts.append(1)
            self.terminate()
            raise ConnectionResetError("cut at the commit")
        return await real(self, query, *arguments, **more)

    async def write(*arguments):
        if cuts:
            raise asyncpg.SerializationError("again")
        await real_write(*arguments)

    monkeypatch.setattr(asyncpg.Connection, "execute", execute)
    monkeypatch.setattr(posting, "_write", write)
    assert codes(await ledger.post(transfer(a, b, 1), transfer(a, b, 1))) == ["OutcomeUnknown"] * 2
    monkeypatch.undo()
    await ledger.prove()


async def test_a_bug_in_one_item_stands_alone(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    real = posting.decide

    def decide(batch, commands):
        if any(command.type == "poison" for command in commands):
            raise ZeroDivisionError
        return real(batch, commands)

    monkeypatch.setattr(posting, "decide", decide)
    monkeypatch.setattr(unlocked, "decide", decide)
    batch = [transfer(a, b, 1, type_="poison" if i == 3 else "pay") for i in range(7)]
    assert codes(await ledger.post(*batch)) == ["posted"] * 3 + ["GuardHit"] + ["posted"] * 3
    assert await ledger.posted(b) == 6
    await ledger.prove()
