"""Matching of bank statement lines with orders, and with lines of other bank statements: tables, and a simple model."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundledger.fund.statements.matching import Earlier, Expected, Line, Matched, Outcome, match

D1, D2 = date(2026, 3, 1), date(2026, 3, 2)
UNKNOWN, REPEATED, DUPLICATE = Outcome.UNKNOWN, Outcome.REPEATED, Outcome.DUPLICATE
MATCHED, DIFFERENT, AWAITED = Outcome.MATCHED, Outcome.DIFFERENT, Outcome.AWAITED
A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)


def expected(order: UUID, amount: int, *refs: str, ended: bool = True, taken: bool = False) -> Expected:
    return Expected(order, frozenset(refs), amount, ended, taken)


# --- Matching -------------------------------------------------------------------------------------------------------

CASES = {
    "the same": ([("a", 5)], [expected(A, 5, "a")], [(MATCHED, A, 0)], []),
    "by either name": ([("b", -5)], [expected(A, -5, "a", "b")], [(MATCHED, A, 0)], []),
    "not ended yet": ([("a", -5)], [expected(A, -5, "a", ended=False)], [(AWAITED, A, 0)], []),
    "more": ([("a", 7)], [expected(A, 5, "a")], [(DIFFERENT, A, 2)], []),
    "less": ([("a", 4)], [expected(A, 5, "a")], [(DIFFERENT, A, -1)], []),
    "more went out": ([("a", -7)], [expected(A, -5, "a")], [(DIFFERENT, A, -2)], []),
    "nobody's": ([("x", 5)], [], [(UNKNOWN, None, 5)], []),
    "the other way": ([("a", -5)], [expected(A, 5, "a")], [(UNKNOWN, None, -5)], [A]),
    "twice": ([("a", 5), ("a", 5)], [expected(A, 5, "a")], [(MATCHED, A, 0), (DUPLICATE, A, 5)], []),
    "again, on another statement": ([("a", 5)], [expected(A, 5, "a", taken=True)], [(DUPLICATE, A, 5)], []),
    "twice, and it is two": (
        [("a", 5), ("a", 5)],
        [expected(A, 5, "a"), expected(B, 5, "a")],
        [(MATCHED, A, 0), (MATCHED, B, 0)],
        [],
    ),
    "the same amount goes before what is left": (
        [("a", 6), ("a", 5)],
        [expected(A, 5, "a"), expected(B, 9, "a")],
        [(DIFFERENT, B, -3), (MATCHED, A, 0)],
        [],
    ),
    "a payment and its chargeback": (
        [("a", -5), ("a", 5)],
        [expected(A, 5, "a"), expected(B, -5, "a")],
        [(MATCHED, B, 0), (MATCHED, A, 0)],
        [],
    ),
    "not on the statement": (
        [("a", 5)],
        [expected(A, 5, "a"), expected(B, 6, "a"), expected(C, 7, "a", ended=False)],
        [(MATCHED, A, 0)],
        [B],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_line_is_matched_as_the_table_says(case: str):
    lines, orders, wanted, in_transit = CASES[case]
    matching = match([Line(*line) for line in lines], orders)
    assert matching.lines == [Matched(*row) for row in wanted]
    assert matching.in_transit == in_transit


REFS = st.sampled_from("abcd")
AMOUNTS = st.integers(-4, 4).filter(bool)
LINES = st.lists(st.builds(Line, REFS, AMOUNTS), max_size=12)
ORDERS = st.lists(st.tuples(st.frozensets(REFS, max_size=2), AMOUNTS, st.booleans(), st.booleans()), max_size=12).map(
    lambda rows: [Expected(UUID(int=i), *row) for i, row in enumerate(rows)]
)


def holds(lines: list[Line], orders: list[Expected], found: list[Matched]) -> None:
    by_id = {each.order: each for each in orders}
    explaining = [row.order for row in found if row.outcome in {MATCHED, AWAITED, DIFFERENT}]
    assert len(explaining) == len(set(explaining))
    assert not any(by_id[order].taken for order in explaining)
    total = sum(line.amount for line in lines)
    assert sum(row.difference for row in found) == total - sum(by_id[order].amount for order in explaining)
    for line, row in zip(lines, found, strict=True):
        assert (row.difference == 0) == (row.outcome in {MATCHED, AWAITED})
        assert (row.order is None) == (row.outcome is UNKNOWN)
        if row.order is not None:
            assert line.ref in by_id[row.order].refs
            assert line.amount * by_id[row.order].amount > 0


@given(LINES, ORDERS)
def test_differences_are_the_statement_less_the_books_and_an_order_explains_one_line(lines, orders):
    matching = match(lines, orders)
    holds(lines, orders, matching.lines)
    explained = {row.order for row in matching.lines}
    assert not explained & set(matching.in_transit)


@given(LINES, ORDERS)
def test_no_order_that_would_explain_a_line_is_left_over(lines, orders):
    matching = match(lines, orders)
    used = {row.order for row in matching.lines if row.outcome in {MATCHED, AWAITED, DIFFERENT}}
    free = [each for each in orders if each.order not in used and not each.taken]
    for line, row in zip(lines, matching.lines, strict=True):
        if row.outcome in {DUPLICATE, UNKNOWN}:
            assert not any(line.ref in each.refs and line.amount * each.amount > 0 for each in free)


def test_an_order_that_explains_two_lines_is_noticed():
    lines, orders = [Line("a", 5), Line("a", 5)], [expected(A, 5, "a")]
    with pytest.raises(AssertionError):
        holds(lines, orders, [Matched(MATCHED, A, 0), Matched(MATCHED, A, 0)])


# --- Lines that another statement has ---------------------------------------------------------------------------------


def earlier(
    ref: str, amount: int, count: int = 1, unknown: int = 0, *, entry: str | None = None, day: date | None = None
) -> Earlier:
    return Earlier(ref, amount, entry, day, count, unknown)


KNOWN: dict[str, tuple[list[Line], list[Earlier], list[Outcome]]] = {
    "the same entry": ([Line("a", 5, "E1")], [earlier("x", 9, entry="E1")], [REPEATED]),
    "another entry": ([Line("a", 5, "E1")], [earlier("a", 5, entry="E2")], [UNKNOWN]),
    "the same entry twice on one statement": ([Line("a", 5, "E1"), Line("b", 6, "E1")], [], [UNKNOWN, REPEATED]),
    "a day and an entry: the entry counts": (
        [Line("a", 5, "E1", D1)],
        [earlier("a", 5, 2, 2, day=D1), earlier("a", 5, entry="E2", day=D1)],
        [UNKNOWN],
    ),
    "the same day": ([Line("a", 5, None, D1)], [earlier("a", 5, day=D1)], [REPEATED]),
    "another day": ([Line("a", 5, None, D1)], [earlier("a", 5, 1, 1, day=D2)], [UNKNOWN]),
    "another amount on the day": ([Line("a", 6, None, D1)], [earlier("a", 5, day=D1)], [UNKNOWN]),
    "another reference on the day": ([Line("b", 5, None, D1)], [earlier("a", 5, day=D1)], [UNKNOWN]),
    "once more than before on the day": (
        [Line("a", 5, None, D1)] * 3,
        [earlier("a", 5, 2, day=D1)],
        [REPEATED, REPEATED, UNKNOWN],
    ),
    "the statement that has the most counts": (
        [Line("a", 5, None, D1)] * 4,
        [earlier("a", 5, 1, day=D1), earlier("a", 5, 3, day=D1), earlier("a", 5, 2, day=D1)],
        [REPEATED, REPEATED, REPEATED, UNKNOWN],
    ),
    "an entry of the day is no unnamed line of the day": (
        [Line("a", 5, None, D1)],
        [earlier("a", 5, 1, 1, entry="E1", day=D1)],
        [UNKNOWN],
    ),
    "nothing but reference and amount, and without an order before": ([Line("a", 5)], [earlier("a", 5, 1, 1)], [REPEATED]),
    "nothing but reference and amount, of an order before": ([Line("a", 5)], [earlier("a", 5, 3, 0)], [UNKNOWN]),
    "unnamed now, of a day before": ([Line("a", 5)], [earlier("a", 5, 1, 1, day=D1)], [REPEATED]),
    "unnamed now, an entry before": ([Line("a", 5)], [earlier("a", 5, 1, 1, entry="E1")], [UNKNOWN]),
    "unnamed, as often as on the statement that has the most": (
        [Line("a", 5)] * 4,
        [earlier("a", 5, 1, 1), earlier("a", 5, 3, 3), earlier("a", 5, 2, 2)],
        [REPEATED, REPEATED, REPEATED, UNKNOWN],
    ),
    "unnamed, of another amount": ([Line("a", 5), Line("b", 5)], [earlier("a", 6, 1, 1)], [UNKNOWN, UNKNOWN]),
}  # fmt: skip


@pytest.mark.parametrize("case", KNOWN)
def test_a_line_is_known_from_another_statement_as_the_table_says(case: str) -> None:
    lines, others, outcomes = KNOWN[case]
    found = match(lines, [], others).lines
    assert [row.outcome for row in found] == outcomes
    assert [row.difference for row in found] == [
        0 if outcome is REPEATED else line.amount for line, outcome in zip(lines, outcomes, strict=True)
    ]
    assert {row.order for row in found} == {None}


def test_a_repeated_line_explains_no_order() -> None:
    orders = [Expected(A, frozenset("a"), 5)]
    matching = match([Line("a", 5, "E1"), Line("a", 5, "E2")], orders, [earlier("a", 5, entry="E1")])
    assert matching.lines == [Matched(REPEATED, None, 0), Matched(MATCHED, A, 0)]
    matching = match([Line("a", 5, "E1")], orders, [earlier("a", 5, entry="E1")])
    assert (matching.lines, matching.in_transit) == ([Matched(REPEATED, None, 0)], [A])


def test_a_line_that_names_an_order_is_not_taken_for_a_repeat_by_reference_and_amount() -> None:
    """Such a line is not ignored, because the bank may have moved the money twice."""
    orders = [
        Expected(A, frozenset("a"), 5),
        Expected(B, frozenset("b"), 7, ended=False),
        Expected(A, frozenset("c"), 1),
    ]
    others = [earlier("a", 5, 9, 9), earlier("b", 7, 9, 9), earlier("c", 4, 9, 9)]
    found = match([Line("a", 5), Line("a", 5), Line("b", 7)], orders[:2], others).lines
    assert [row.outcome for row in found] == [MATCHED, DUPLICATE, AWAITED]
    assert match([Line("c", 4)], orders[2:], others).lines == [Matched(DIFFERENT, A, 3)]


TWO_REFS, THREE_AMOUNTS = st.sampled_from("ab"), st.sampled_from((-2, 1, 2))
ENTRIES, DAYS = st.sampled_from((None, None, "E1", "E2")), st.sampled_from((None, D1, D2))
NAMED_LINES = st.lists(st.builds(Line, TWO_REFS, THREE_AMOUNTS, ENTRIES, DAYS), max_size=8)
FEW_ORDERS = st.lists(
    st.tuples(st.frozensets(TWO_REFS, max_size=2), THREE_AMOUNTS, st.booleans(), st.booleans()), max_size=4
).map(lambda rows: [Expected(UUID(int=i), *row) for i, row in enumerate(rows)])
OTHERS = st.lists(
    st.tuples(
        st.builds(Earlier, TWO_REFS, THREE_AMOUNTS, ENTRIES, DAYS, st.integers(1, 3), st.just(0)), st.integers(0, 3)
    ).map(lambda pair: Earlier(*(*_fields(pair[0])[:-1], min(pair[1], pair[0].count)))),
    max_size=5,
)


def _fields(of: Earlier) -> tuple[object, ...]:
    return of.ref, of.amount, of.entry_ref, of.value_date, of.count, of.unknown


def repeated(lines: Sequence[Line], others: Sequence[Earlier]) -> set[int]:
    """Return the indexes of lines that an earlier bank statement already has.

    A line with an entry reference is repeated if that reference occurred before. Otherwise the k-th of identical lines
    is repeated if another bank statement has at least k of them.
    """
    found = set()
    for i, line in enumerate(lines):
        before = lines[:i]
        if line.entry_ref is not None:
            known = {other.entry_ref for other in others} | {each.entry_ref for each in before}
            is_repeated = line.entry_ref in known
        elif line.value_date is not None:
            same = [
                o
                for o in others
                if (o.ref, o.amount, o.entry_ref, o.value_date) == (line.ref, line.amount, None, line.value_date)
            ]
            is_repeated = any(other.count > before.count(line) for other in same)
        else:
            is_repeated = False
        if is_repeated:
            found.add(i)
    return found


@settings(max_examples=200)
@given(NAMED_LINES, FEW_ORDERS, OTHERS)
def test_repeats_are_what_other_statements_have_and_the_rest_is_matched_without_them(lines, orders, others) -> None:
    matching = match(lines, orders, others)
    again = repeated(lines, others)
    rest = [line for i, line in enumerate(lines) if i not in again]
    alone = match(rest, orders)
    assert matching.in_transit == alone.in_transit
    assert all(matching.lines[i] == Matched(REPEATED, None, 0) for i in again)
    kept = [row for i, row in enumerate(matching.lines) if i not in again]
    unnamed: list[Line] = []
    for line, row, plain in zip(rest, kept, alone.lines, strict=True):
        if plain.outcome is UNKNOWN and line.entry_ref is None and line.value_date is None:
            same = [o for o in others if (o.ref, o.amount, o.entry_ref) == (line.ref, line.amount, None)]
            is_repeated = any(other.unknown > unnamed.count(line) for other in same)
            unnamed.append(line)
            assert row == (Matched(REPEATED, None, 0) if is_repeated else plain)
        else:
            assert row == plain
