"""Broken variants of splitting and of early release, and the tests of slots and of flushes that catch them."""

from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from fundledger.hotspot.flusher import Flusher, Then
from fundledger.ledger.model.account import Account, SubAccount
from fundledger.ledger.model.batch import Batch
from fundledger.ledger.rules import decide as rules
from fundledger.ledger.rules import slots
from fundledger.ledger.rules import status as standing
from fundledger.ledger.store.queries import SQL
from tests.hotspot import test_flusher
from tests.ledger import test_slots
from tests.support.ledger import Ledger
from tests.twins.test_twins import CAUGHT

Check = Callable[[Ledger], Awaitable[None]]


def one_slot_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse a debit when the preferred slot has insufficient funds, without reading other slots."""
    monkeypatch.setattr(rules, "spread", lambda *_: None)


def slots_that_were_not_read_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(batch: Batch, account: Account) -> list[SubAccount]:
        read = [s for s in batch.sub_accounts.values() if s.account.number == account.number]
        return sorted(read, key=lambda s: s.slot)

    monkeypatch.setattr(slots, "all_slots", found)
    monkeypatch.setattr(standing, "all_slots", found)


def one_slot_is_taken_from_beyond_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "_funds_refusal", lambda *_: None)


def moved_without_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move money between slots without writing entries, as a plain UPDATE would."""

    def bare(batch: Batch, account: Account, moves: list[tuple[SubAccount, SubAccount, int]]) -> None:
        for giver, taker, amount in moves:
            for slot, signed in ((giver, -amount), (taker, amount)):
                slot.posted += signed * account.type.normal
                slot.written = True

    monkeypatch.setattr(slots, "_move", bare)


def first_slot_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = SQL["write_batch"].replace("coalesce(($44::integer[])[k], s.slots)", "least(($44::integer[])[k], s.slots)")
    assert silent != SQL["write_batch"]
    monkeypatch.setitem(SQL, "write_batch", silent)


def answered_before_the_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(self: Flusher, then: Then) -> None:
        then(True)

    monkeypatch.setattr(Flusher, "after", at_once)


TWINS = [
    (one_slot_refuses, lambda ledger: test_slots.test_a_debit_takes_what_its_slot_lacks_from_the_others(ledger, 6)),
    (one_slot_refuses, test_slots.test_a_worker_that_does_not_know_of_the_split_refuses_no_voucher),
    (
        slots_that_were_not_read_are_forgotten,
        test_slots.test_a_worker_that_does_not_know_of_the_split_refuses_no_voucher,
    ),
    (slots_that_were_not_read_are_forgotten, test_slots.test_a_hold_gathers_on_its_slot_what_it_needs),
    (
        one_slot_is_taken_from_beyond_what_it_has,
        test_slots.test_a_debit_beyond_all_slots_is_refused_and_writes_no_entry,
    ),
    (moved_without_entries, test_slots.test_rebalancing_levels_the_slots_by_a_voucher),
    (moved_without_entries, test_slots.test_a_worker_that_does_not_know_of_the_merge_posts_to_the_first_slot),
    (first_slot_does_not_tell, test_slots.test_a_worker_that_does_not_know_of_the_split_refuses_no_voucher),
]


@pytest.mark.parametrize(("broken", "check"), TWINS, ids=lambda twin: getattr(twin, "__name__", "a debit"))
async def test_a_twin_of_splitting_is_caught(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], check: Check
) -> None:
    broken(monkeypatch)
    with pytest.raises((*CAUGHT, AttributeError, IndexError)):
        await check(ledger)


async def test_a_twin_that_answers_before_the_flush_is_caught(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = test_flusher.Counter(ledger)
    answered_before_the_flush(monkeypatch)
    with pytest.raises((*CAUGHT, asyncpg.InterfaceError)):
        await test_flusher.test_a_batch_frees_its_locks_and_is_answered_after_the_flush(ledger, counter)
    monkeypatch.undo()
    await counter.close()
