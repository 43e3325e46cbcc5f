"""Posting from the write cache: one query for each batch, and no committed decision upon a row that has changed."""

from collections.abc import Awaitable, Callable

import pytest

from fundledger.ledger.model.account import Status
from fundledger.ledger.model.batch import Command
from fundledger.ledger.store.queries import SQL
from tests.support.ledger import Ledger, code, new_id, posted, release, transfer


class Counted:
    """A counter of a lane's locked reads."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads = 0
        compare = ledger.session.memory.compare

        def counted(*arguments: object) -> None:
            self.reads += 1
            compare(*arguments)

        monkeypatch.setattr(ledger.session.memory, "compare", counted)


async def _believed(ledger: Ledger, make: Callable[[], Command]) -> None:
    """Post until the lane decides from the write cache without reading."""
    for _ in range(3):
        assert posted(await ledger.post_one(make()))


async def test_a_lane_alone_stops_reading(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await _believed(ledger, lambda: transfer(a, b, 1))
    counted = Counted(ledger, monkeypatch)
    for _ in range(20):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
    assert counted.reads == 0
    assert await ledger.posted(b) == 23
    assert (await ledger.prove()).ok


async def test_what_another_worker_wrote_is_seen(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    other = await ledger.worker(1)
    for _ in range(10):
        await _believed(ledger, lambda: transfer(a, b, 1))
        assert posted(await other.post_one(transfer(b, a, 1)))
    assert await ledger.posted(b) == 20
    assert (await ledger.prove()).ok


async def test_money_that_another_worker_brought_is_not_refused(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=3), await ledger.account("m:2", balance=100)
    other = await ledger.worker(1)
    await _believed(ledger, lambda: transfer(a, b, 1))
    assert posted(await other.post_one(transfer(b, a, 50)))
    assert code(await ledger.post_one(transfer(a, b, 50))) == "posted"
    assert code(await ledger.post_one(transfer(a, b, 1))) == "insufficient-funds"
    assert (await ledger.prove()).ok


async def test_money_that_another_worker_took_is_not_spent_twice(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    other = await ledger.worker(1)
    await _believed(ledger, lambda: transfer(a, b, 1))
    assert posted(await other.post_one(transfer(a, b, 7)))
    assert code(await ledger.post_one(transfer(a, b, 7))) == "insufficient-funds"
    assert await ledger.posted(a) == 0
    assert (await ledger.prove()).ok


async def test_a_freeze_by_another_worker_applies_immediately(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    other = await ledger.worker(1)
    await _believed(ledger, lambda: transfer(a, b, 1))
    await other.freeze(a)
    assert code(await ledger.post_one(transfer(a, b, 1))) == "account-frozen"


async def test_a_hold_by_another_worker_applies_immediately(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=10), await ledger.account("m:2")
    other = await ledger.worker(1)
    await _believed(ledger, lambda: transfer(a, b, 1))
    hold = await other.hold("h", a, 7)
    assert code(await ledger.post_one(transfer(a, b, 1))) == "insufficient-funds"
    assert posted(await ledger.post_one(transfer(b, a, 1)))
    assert code(await other.post_one(release(hold))) == "posted"
    assert (await ledger.view(a)).held == 0
    assert (await ledger.prove()).ok


@pytest.mark.parametrize(
    "change",
    ["posted = posted + 1000", "held = held + 1", "version = version + 1", "status = 2", "mac = sha256('x')"],
)
async def test_a_row_that_was_edited_is_refused_and_frozen(ledger: Ledger, change: str) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await _believed(ledger, lambda: transfer(a, b, 1))
    await ledger.tamper(f"UPDATE ledger.sub_accounts SET {change} WHERE account_number = $1", a.number)
    assert code(await ledger.post_one(transfer(a, b, 1))) == "account-frozen"
    assert await ledger.status(a) == Status.FROZEN_INTEGRITY
    assert await ledger.posted(b) == 3


async def test_a_repeat_is_answered_from_the_record(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await _believed(ledger, lambda: transfer(a, b, 1))
    id_ = new_id()
    first = await ledger.post_one(transfer(a, b, 5, id_=id_))
    again = await ledger.post_one(transfer(a, b, 5, id_=id_))
    assert (first.replay, again.replay) == (False, True)
    assert first.record is not None and again.record is not None and again.record.batch == first.record.batch
    assert code(await ledger.post_one(transfer(a, b, 6, id_=id_))) == "voucher-id-reused"
    assert await ledger.posted(b) == 8
    assert (await ledger.prove()).ok


async def test_a_repeat_within_a_batch_is_posted_once(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await _believed(ledger, lambda: transfer(a, b, 1))
    id_ = new_id()
    outcomes = await ledger.post(transfer(a, b, 5, id_=id_), transfer(a, b, 5, id_=id_))
    assert [outcome.replay for outcome in outcomes] == [False, True]
    assert await ledger.posted(b) == 8


async def test_one_refused_item_of_a_remembered_batch_stands_alone(ledger: Ledger) -> None:
    a, b = await ledger.account("m:1", balance=100), await ledger.account("m:2")
    await _believed(ledger, lambda: transfer(a, b, 1))
    outcomes = await ledger.post(transfer(a, b, 5), transfer(a, b, 500), transfer(a, b, 5))
    assert [code(outcome) for outcome in outcomes] == ["posted", "insufficient-funds", "posted"]
    assert await ledger.posted(b) == 13
    assert (await ledger.prove()).ok


async def test_an_account_that_others_write_is_tried_less_and_less(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await ledger.account("m:1", balance=1000), await ledger.account("m:2", balance=1000)
    other = await ledger.worker(1)
    disappointments = 0
    disappoint = ledger.session.memory.disappoint

    def counted(*arguments: object, **named: object) -> None:
        nonlocal disappointments
        disappointments += 1
        disappoint(*arguments, **named)

    monkeypatch.setattr(ledger.session.memory, "disappoint", counted)
    for i in range(300):
        assert posted(await ledger.post_one(transfer(a, b, 1)))
        if i % 3 == 2:
            assert posted(await other.post_one(transfer(b, a, 1)))
    assert disappointments <= 10
    assert (await ledger.prove()).ok


async def test_a_memory_without_room_forgets_and_stays_right(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger.session.memory, "_generation", 4)
    accounts = [await ledger.account(f"m:{i}", balance=100) for i in range(12)]
    for i in range(120):
        assert posted(await ledger.post_one(transfer(accounts[i % 12], accounts[(i * 5 + 1) % 12], 1)))
        assert len(ledger.session.memory._young) + len(ledger.session.memory._old) <= 10
    assert (await ledger.prove()).ok


_COMPARED = """
      AND s.posted = ($38::bigint[])[k] AND s.held = ($39::bigint[])[k] AND s.version = ($40::bigint[])[k]
      AND s.status = ($41::smallint[])[k] AND s.mac = substring($42::bytea FROM 32 * k - 31 FOR 32)"""


@pytest.mark.parametrize(
    "check",
    [test_a_freeze_by_another_worker_applies_immediately, test_a_hold_by_another_worker_applies_immediately],
    ids=["freeze", "hold"],
)
async def test_twin_without_the_comparison_is_caught(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, check: Callable[[Ledger], Awaitable[None]]
) -> None:
    """Without the comparison, the primary key of the journal detects another payment, but no freeze and no hold."""
    careless = SQL["write_batch"].replace(
        _COMPARED,
        "\n      AND $38::bigint[] || $39::bigint[] || $40::bigint[] IS NOT NULL"
        " AND $41::smallint[] IS NOT NULL AND $42::bytea IS NOT NULL",
    )
    assert careless != SQL["write_batch"]
    monkeypatch.setitem(SQL, "write_batch", careless)
    with pytest.raises(AssertionError):
        await check(ledger)
