"""Broken twins of the guards of order states, and the tests of transitions that detect them."""

from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import pytest

from fundledger.fund.model.order import Kind, State
from fundledger.fund.store.queries import SQL
from tests.fund import test_transitions as transitions
from tests.support.database import Databases

Connection = asyncpg.Connection
Check = Callable[[Connection], Awaitable[None]]
compared = transitions.test_the_database_has_the_same_table_row_by_row
NEVER = "DROP TRIGGER {0} ON fund.orders; CREATE TRIGGER {0} AFTER {1} ON fund.orders FOR EACH ROW WHEN (false) EXECUTE FUNCTION fund.refuse_transition()"
ANY_STATE = """
CREATE OR REPLACE FUNCTION fund.may_become(kind text, before text, after text) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS 'SELECT true'
"""
EDITED = "DO $do$ BEGIN EXECUTE replace(pg_get_functiondef('fund.{}'::regproc), $${}$$, $${}$$); END $do$"
"""A function with one text of it replaced by another."""
AFTER_POSTING = "'posted', 'refused', 'stuck'"


@pytest.fixture
async def fund(postgres: Databases) -> AsyncIterator[Connection]:
    async with transitions.rolled_back(postgres) as connection:
        yield connection


async def updates(fund: Connection) -> None:
    await transitions.test_an_update_to_any_other_state_is_refused(fund, Kind.PAYMENT, State.POSTED)


async def returns(fund: Connection) -> None:
    await transitions.test_a_stuck_order_returns_only_to_the_state_that_it_came_from(
        fund, Kind.WITHDRAWAL, State.POSTING
    )


async def becomes_stuck(fund: Connection) -> None:
    await transitions.test_a_stuck_order_keeps_the_state_that_it_came_from(fund, State.POSTED, State.POSTING)


async def stays_stuck(fund: Connection) -> None:
    await transitions.test_a_stuck_order_keeps_the_state_that_it_came_from(fund, State.STUCK, State.POSTING)


async def inserts(fund: Connection) -> None:
    await transitions.test_an_insert_in_any_state_but_the_first_is_refused(fund, Kind.PAYMENT)


BROKEN: dict[str, tuple[str, Check]] = {
    # what is broken: (how, the check that notices)
    "no update is looked at": (NEVER.format("orders_transition", "UPDATE"), updates),
    "no insert is looked at": (NEVER.format("orders_first_state", "INSERT"), inserts),
    "a table with every transition": (ANY_STATE, updates),
    "a table with one transition more": (
        EDITED.format("may_become", AFTER_POSTING, f"{AFTER_POSTING}, 'paid'"),
        compared,
    ),
    "a table with one transition less": (EDITED.format("may_become", AFTER_POSTING, "'posted', 'stuck'"), compared),
    "a stuck order goes to any of its next states": (
        EDITED.format("refuse_transition", "NEW.state = OLD.stuck_from OR (NEW.state = 'stuck'", "(true"),
        returns,
    ),
    "an order becomes stuck from any state": (
        EDITED.format("refuse_transition", "OR NEW.stuck_from = OLD.state", "OR true"),
        becomes_stuck,
    ),
    "a stuck order comes from another state": (
        EDITED.format("refuse_transition", "AND NEW.stuck_from = OLD.stuck_from", ""),
        stays_stuck,
    ),
    "the kind changes": (
        EDITED.format("refuse_transition", "AND NEW.kind = OLD.kind", ""),
        transitions.test_an_order_keeps_its_kind,
    ),
    "an update of the kind alone is not looked at": (
        """
        DROP TRIGGER orders_transition ON fund.orders;
        CREATE TRIGGER orders_transition AFTER UPDATE OF state ON fund.orders FOR EACH ROW
            EXECUTE FUNCTION fund.refuse_transition();
        """,
        transitions.test_an_order_keeps_its_kind,
    ),
    "a trigger that refuses nothing": (
        "CREATE OR REPLACE FUNCTION fund.refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        updates,
    ),
}
CARELESS = {
    # a statement: the condition on the state, left out of it
    "approve_order": "AND o.state = 'created'",
    "mark_ended": "AND o.state IN ('posted', 'sent', 'unknown')",
    "mark_orders": "AND o.state = 'posting'",
    "mark_stuck": "AND o.state IN ('posted', 'sent', 'unknown')",
    "payouts_claim": "AND o.state = 'posted'",
    "payouts_unknown": "AND o.state = 'sent'",
}


@pytest.mark.parametrize("what", BROKEN)
async def test_a_twin_of_the_guard_is_caught(fund: Connection, what: str) -> None:
    how, check = BROKEN[what]
    await check(fund)
    await fund.execute(how)
    with pytest.raises(AssertionError):
        await check(fund)


async def test_a_transition_that_only_python_has_is_caught(fund: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    await compared(fund)
    more = transitions.TRANSITIONS | {(Kind.PAYMENT, State.POSTED, State.SENT)}
    monkeypatch.setattr(transitions, "TRANSITIONS", more)
    with pytest.raises(AssertionError):
        await compared(fund)


@pytest.mark.parametrize("name", CARELESS)
async def test_a_statement_without_its_condition_is_caught(
    fund: Connection, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    careless = SQL[name].replace(CARELESS[name], "")
    assert careless != SQL[name]
    monkeypatch.setitem(SQL, name, careless)
    with pytest.raises((AssertionError, asyncpg.CheckViolationError)):
        await transitions.test_a_statement_makes_only_transitions_of_the_table(fund, name)
