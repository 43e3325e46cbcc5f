"""Transitions of order states: the database refuses those that the table does not have, and no SQL file makes one."""

import contextlib
import itertools
import json
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import fundledger
from fundledger.fund.model.flows import END_VOUCHER_TYPES
from fundledger.fund.model.order import SPLITS, Kind, State
from fundledger.fund.model.transitions import (
    DUAL_CONTROL,
    ENDED,
    FIRST,
    POSTED,
    PROBLEMATIC,
    TRANSITIONS,
    may_become,
)
from fundledger.fund.store.queries import SQL
from tests.support.database import Databases
from tests.support.tampering import any_state

Connection = asyncpg.Connection
INSERT = """
INSERT INTO fund.orders (id, kind, merchant, order_no, state, problem, stuck_from, ending, amount, fee, currency, channel,
                         module, digest, voucher_id, created_at, layout, parking, parked_voucher_id, voucher_format, parts)
VALUES ($1, $2, 'm', 'n', $3, $4, $5, $6, 100, 0, 'CNY', 'c', 'front', '', $1, now(), 1, 'park', $1,
        CASE WHEN $2 LIKE '%refund' THEN 3 ELSE 2 END, CASE WHEN $2 LIKE 'split%' THEN '[]'::json END)
"""
UPDATE = "UPDATE fund.orders SET state = $2, problem = $3, stuck_from = $4, approved_by = 'back' WHERE id = $1"
HAVE_A_PROBLEM = PROBLEMATIC
STUCK_FROM = [state for state in State if may_become(Kind.WITHDRAWAL, state, State.STUCK)]


@contextlib.asynccontextmanager
async def rolled_back(postgres: Databases) -> AsyncIterator[Connection]:
    """Open a connection to an empty fund database, in a transaction that is rolled back."""
    connection = await asyncpg.connect(await postgres.standing(None))
    transaction = connection.transaction()
    await transaction.start()
    yield connection
    await transaction.rollback()
    await connection.close()


@pytest.fixture
async def fund(postgres: Databases) -> AsyncIterator[Connection]:
    async with rolled_back(postgres) as connection:
        yield connection


def of_state(state: State, stuck_from: State = State.POSTING) -> tuple[str, str | None, str | None]:
    """Return `(state, problem, stuck_from)` with values that the constraints require for the state."""
    problem = "{}" if state in HAVE_A_PROBLEM else None
    return state, problem, stuck_from if state is State.STUCK else None


def states_of(kind: Kind) -> set[str]:
    return {state for of, *pair in TRANSITIONS if of == kind for state in pair}


async def refusal(fund: Connection, statement: str, *arguments: Any) -> str | None:
    """Execute a statement and roll it back. Return the name of the trigger that refuses it, or None."""
    transaction = fund.transaction()
    await transaction.start()
    try:
        await fund.execute(statement, *arguments)
    except asyncpg.CheckViolationError as error:
        return error.constraint_name
    finally:
        await transaction.rollback()
    return None


async def refused_updates(fund: Connection, kind: Kind, before: State, stuck_from: State = State.POSTING) -> set[State]:
    """Return the states to which an order in this state cannot be updated."""
    id_ = uuid.uuid4()
    async with any_state(fund):
        await fund.execute(INSERT, id_, kind, *of_state(before, stuck_from), None)
    came_from = before if before in STUCK_FROM else stuck_from
    refusals = {after: await refusal(fund, UPDATE, id_, *of_state(after, came_from)) for after in State}
    assert set(refusals.values()) <= {None, "orders_transition"}
    return {after for after, name in refusals.items() if name}


async def refused_inserts(fund: Connection, kind: Kind) -> set[State]:
    """Return the states in which an order cannot be inserted."""
    refusals = {state: await refusal(fund, INSERT, uuid.uuid4(), kind, *of_state(state), None) for state in State}
    assert set(refusals.values()) <= {None, "orders_first_state"}
    return {state for state, name in refusals.items() if name}


# --- The table ------------------------------------------------------------------------------------------------------


def test_the_table_has_every_state_and_leaves_no_state_without_a_way_there() -> None:
    for kind in Kind:
        reached = {FIRST[kind]}
        while True:
            further = {State(after) for of, before, after in TRANSITIONS if of == kind and before in reached}
            if further <= reached:
                break
            reached |= further
        assert states_of(kind) == reached, kind
    assert {state for _, *pair in TRANSITIONS for state in pair} == set(State)


def test_only_final_states_and_posted_orders_have_no_next_state() -> None:
    def last_of(kind: Kind) -> set[str]:
        rows = {row for row in TRANSITIONS if row[0] == kind}
        return {after for _, _, after in rows} - {before for _, before, _ in rows}

    for kind in Kind:
        expected = {State.REFUSED, *(ending for of, ending in END_VOUCHER_TYPES if of is kind)}
        if len(expected) == 1:
            expected.add(State.POSTED)
        if kind in DUAL_CONTROL:
            expected |= {State.REJECTED, State.EXPIRED}
        assert last_of(kind) == expected, kind


def test_a_posted_order_stays_posted_unless_it_becomes_stuck() -> None:
    for kind, before, after in TRANSITIONS:
        assert before not in POSTED or after in {*POSTED, State.STUCK}, (kind, before, after)


def test_an_unknown_kind_or_state_has_no_transition() -> None:
    assert may_become("payment", "posting", "posted")
    assert not may_become("theft", "posting", "posted")
    assert not may_become("payment", "lost", "posted")
    assert not may_become("payment", "posting", "lost")


# --- The database ---------------------------------------------------------------------------------------------------


async def test_the_database_has_the_same_table_row_by_row(fund: Connection) -> None:
    rows = await fund.fetch(
        """SELECT kind, before, after FROM unnest($1::text[]) AS kind, unnest($2::text[]) AS before, unnest($2::text[]) AS after
           WHERE before <> after AND fund.may_become(kind, before, after)""",
        list(Kind),
        [*State, "lost"],
    )
    # The difference is compared, because pytest would need minutes to explain how two large sets differ.
    assert {tuple(row) for row in rows} ^ TRANSITIONS == set()


@pytest.mark.parametrize("before", [state for state in State if state is not State.STUCK])
@pytest.mark.parametrize("kind", Kind)
async def test_an_update_to_any_other_state_is_refused(fund: Connection, kind: Kind, before: State) -> None:
    permitted = {before} | {after for after in State if may_become(kind, before, after)}
    assert await refused_updates(fund, kind, before) == set(State) - permitted


@pytest.mark.parametrize("stuck_from", STUCK_FROM)
@pytest.mark.parametrize("kind", Kind)
async def test_a_stuck_order_returns_only_to_the_state_that_it_came_from(
    fund: Connection, kind: Kind, stuck_from: State
) -> None:
    permitted = {State.STUCK} | ({stuck_from} if may_become(kind, State.STUCK, stuck_from) else set())
    assert await refused_updates(fund, kind, State.STUCK, stuck_from) == set(State) - permitted


@pytest.mark.parametrize("stuck_from", STUCK_FROM)
@pytest.mark.parametrize("before", [*STUCK_FROM, State.STUCK])
async def test_a_stuck_order_keeps_the_state_that_it_came_from(
    fund: Connection, before: State, stuck_from: State
) -> None:
    """Otherwise an order could leave its table of transitions in two steps."""
    id_ = uuid.uuid4()
    async with any_state(fund):
        await fund.execute(INSERT, id_, Kind.WITHDRAWAL, *of_state(before, State.SENT), None)
    is_right = stuck_from is (State.SENT if before is State.STUCK else before)
    refused = await refusal(fund, UPDATE, id_, *of_state(State.STUCK, stuck_from))
    assert refused == (None if is_right else "orders_transition")
    if before is State.STUCK:
        alone = await refusal(fund, "UPDATE fund.orders SET stuck_from = $2 WHERE id = $1", id_, stuck_from)
        assert alone == (None if is_right else "orders_transition")


@pytest.mark.parametrize("kind", DUAL_CONTROL)
@pytest.mark.parametrize(
    ("module", "approver", "is_right"),
    [
        ("dev", "person:ann", True),
        ("person:ann", "dev", True),
        ("person:ann", "person:bob", True),
        ("dev/ann", "person:ann", True),
        ("dev", "dev", False),
        ("dev/ann", "dev/bob", False),
        ("person:ann", "person:ann/dev", False),
        ("dev", None, False),
    ],
)
async def test_an_approval_needs_another_identity(
    fund: Connection, kind: Kind, module: str, approver: str | None, *, is_right: bool
) -> None:
    id_ = uuid.uuid4()
    await fund.execute(INSERT.replace("'front'", f"'{module}'"), id_, kind, State.CREATED, None, None, None)
    approve = "UPDATE fund.orders SET state = 'posting', approved_by = $2 WHERE id = $1"
    refused = await refusal(fund, approve, id_, approver)
    # The older constraint refuses an approver that is equal to the requester, with its note.
    assert (refused is None) is is_right
    assert refused in (None, "orders_transition", "orders_approved_by_another")


async def test_an_order_keeps_its_kind(fund: Connection) -> None:
    id_ = uuid.uuid4()
    async with any_state(fund):
        await fund.execute(INSERT, id_, Kind.PAYMENT, *of_state(State.POSTED), None)
    for kind in Kind:
        refused = await refusal(fund, "UPDATE fund.orders SET kind = $2 WHERE id = $1", id_, kind)
        assert (refused is None) is (kind is Kind.PAYMENT), kind


@pytest.mark.parametrize("kind", Kind)
async def test_an_insert_in_any_state_but_the_first_is_refused(fund: Connection, kind: Kind) -> None:
    assert await refused_inserts(fund, kind) == set(State) - {FIRST[kind]}


async def test_a_refusal_names_the_order_and_the_transition(fund: Connection) -> None:
    id_ = uuid.uuid4()
    with pytest.raises(asyncpg.CheckViolationError, match=f"^payment {id_}: insert as posted is refused$"):
        async with fund.transaction():
            await fund.execute(INSERT, id_, Kind.PAYMENT, *of_state(State.POSTED), None)
    await fund.execute(INSERT, id_, Kind.PAYMENT, *of_state(State.POSTING), None)
    with pytest.raises(asyncpg.CheckViolationError, match=f"^payment {id_}: posting to paid is refused$") as caught:
        await fund.execute(UPDATE, id_, *of_state(State.PAID))
    assert (caught.value.schema_name, caught.value.table_name) == ("fund", "orders")


# --- Statements -----------------------------------------------------------------------------------------------------

KEY = b"new", 1, None
AT = datetime(2026, 1, 2, tzinfo=UTC)
ARGUMENTS: dict[str, Any] = {
    # of each statement that changes the state of an order: its arguments, by the order's row
    "approve_order": lambda row: [(row["id"], "back", 300.0, *KEY, 0)],
    "close_unapproved": lambda row: [
        ([row["id"]], state, "{}", [b"new"], 1, [None]) for state in (State.REJECTED, State.EXPIRED)
    ],
    "mark_cleared": lambda row: [
        ([row["id"]], state, [b"new"], 1, [row["id"]]) for state in (State.CLEARED, State.PARKED)
    ],
    "mark_ended": lambda row: [(row["id"], *KEY, AT.date(), AT, b"end")],
    "mark_orders": lambda row: [(outcome(row, state),) for state in (State.POSTED, State.REFUSED, State.STUCK)],
    "mark_parked": lambda row: [(row["id"], 0, row["id"], None, 5.0, *KEY, parts_of(row))],
    "begin_release": lambda row: [(row["id"], 1, row["id"], 0, 0, 300.0, *KEY, parts_of(row))],
    "mark_stuck": lambda row: [(row["id"], row["state"], "{}", *KEY)],
    "payouts_claim": lambda row: [
        ("c", [row["id"]], [100], ["CNY"], [None], [b"new"], [b"kept"], 1, timedelta(minutes=5))
    ],
    "payout_files_claim": lambda row: [("c", 1, "CNY", [row["id"]], [100], [b"new"], [b"kept"], 1)],
    "payouts_unknown": lambda row: [(row["id"], timedelta(minutes=5), "why", *KEY)],
    "retry_order": lambda row: [(row["id"], "back", 300.0, "reason", *KEY)],
}


def parts_of(row: asyncpg.Record) -> str | None:
    return "[]" if row["kind"] in SPLITS else None


def outcome(row: asyncpg.Record, state: State) -> str:
    _, problem, _ = of_state(state)
    told = {"id": str(row["id"]), "state": state, "problem": problem and {}, "attempt": 0, "layout": 1}
    return json.dumps([told | {"mac": "bmV3", "mac_key": 1}])


async def orders_in_every_state(fund: Connection) -> list[asyncpg.Record]:
    """Insert one order of each possible combination of kind, state, end, and state before it was stuck."""
    for kind, state in [(kind, state) for kind in Kind for state in State if state in states_of(kind)]:
        endings = [None, *(ending for of, ending in END_VOUCHER_TYPES if of is kind)]
        stuck_from = [before for before in State if may_become(kind, before, State.STUCK)]
        for ending, before in itertools.product(endings, stuck_from if state is State.STUCK else [None]):
            _, problem, _ = of_state(state)
            await fund.execute(INSERT, uuid.uuid4(), kind, state, problem, before, ending)
    return await fund.fetch("SELECT id, kind, state FROM fund.orders")


async def transitions_of(fund: Connection, name: str) -> set[tuple[str, str, str]]:
    """Return the transitions that an SQL file makes while the triggers that refuse transitions are disabled."""
    made = set()
    async with any_state(fund):
        for row in await orders_in_every_state(fund):
            for arguments in ARGUMENTS[name](row):
                transaction = fund.transaction()
                await transaction.start()
                await fund.fetch(SQL[name], *arguments)
                after = await fund.fetchval("SELECT state FROM fund.orders WHERE id = $1", row["id"])
                await transaction.rollback()
                if after != row["state"]:
                    made.add((row["kind"], row["state"], after))
    return made


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_a_statement_makes_only_transitions_of_the_table(fund: Connection, name: str) -> None:
    made = await transitions_of(fund, name)
    assert made
    assert made - TRANSITIONS == set()


async def test_each_transition_of_the_table_is_made_by_a_statement(fund: Connection) -> None:
    made = set().union(*[await transitions_of(fund, name) for name in ARGUMENTS])
    assert TRANSITIONS - made == set()


@pytest.mark.parametrize("ending", sorted(ENDED))
async def test_an_end_begins_in_the_states_that_it_may_come_after(fund: Connection, ending: State) -> None:
    begun = set()
    async with any_state(fund):
        rows = await orders_in_every_state(fund)
    for row in rows:
        parts = "[]" if row["kind"].startswith("split") else None
        if await fund.fetch(SQL["begin_end"], row["id"], ending, None, None, 300.0, None, *KEY, 0, parts):
            begun.add((row["kind"], row["state"]))
    assert begun == {(kind, state) for kind in Kind for state in State if may_become(kind, state, ending)}


def test_each_statement_that_changes_a_state_is_held_against_the_table() -> None:
    """All statements are in SQL files: tests/test_tidy.py finds others."""
    changing = set()
    for path in Path(fundledger.__file__).parent.rglob("*.sql"):
        text = re.sub(r"--.*", "", path.read_text())
        sets = re.findall(r"UPDATE\s+fund\.orders\s+(?:o\s+)?SET\s(.*?)\s(?:FROM|WHERE)\s", text, re.DOTALL)
        if path.parent.name != "migrations" and any(re.search(r"(?<!\.)\bstate =", columns) for columns in sets):
            changing.add(path.stem)
    assert changing == set(ARGUMENTS)
