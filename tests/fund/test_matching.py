"""Lines of a statement that another one has already: a model of the rule, written a second time and more plainly."""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundledger.fund.matching import Earlier, Expected, Line, Matched, Outcome, match

D1, D2 = date(2026, 3, 1), date(2026, 3, 2)
UNKNOWN, REPEATED, DUPLICATE = Outcome.UNKNOWN, Outcome.REPEATED, Outcome.DUPLICATE
MATCHED, DIFFERENT, AWAITED = Outcome.MATCHED, Outcome.DIFFERENT, Outcome.AWAITED
A, B = UUID(int=1), UUID(int=2)


def earlier(
    ref: str, amount: int, count: int = 1, unknown: int = 0, *, entry: str | None = None, day: date | None = None
) -> Earlier:
    return Earlier(ref, amount, entry, day, count, unknown)


CASES: dict[str, tuple[list[Line], list[Earlier], list[Outcome]]] = {
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


@pytest.mark.parametrize("case", CASES)
def test_a_line_is_known_from_another_statement_as_the_table_says(case: str) -> None:
    lines, others, outcomes = CASES[case]
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
    """The bank may have moved the money twice."""
    orders = [
        Expected(A, frozenset("a"), 5),
        Expected(B, frozenset("b"), 7, ended=False),
        Expected(A, frozenset("c"), 1),
    ]
    others = [earlier("a", 5, 9, 9), earlier("b", 7, 9, 9), earlier("c", 4, 9, 9)]
    found = match([Line("a", 5), Line("a", 5), Line("b", 7)], orders[:2], others).lines
    assert [row.outcome for row in found] == [MATCHED, DUPLICATE, AWAITED]
    assert match([Line("c", 4)], orders[2:], others).lines == [Matched(DIFFERENT, A, 3)]


REFS, AMOUNTS = st.sampled_from("ab"), st.sampled_from((-2, 1, 2))
ENTRIES, DAYS = st.sampled_from((None, None, "E1", "E2")), st.sampled_from((None, D1, D2))
LINES = st.lists(st.builds(Line, REFS, AMOUNTS, ENTRIES, DAYS), max_size=8)
ORDERS = st.lists(st.tuples(st.frozensets(REFS, max_size=2), AMOUNTS, st.booleans(), st.booleans()), max_size=4).map(
    lambda rows: [Expected(UUID(int=i), *row) for i, row in enumerate(rows)]
)
OTHERS = st.lists(
    st.tuples(st.builds(Earlier, REFS, AMOUNTS, ENTRIES, DAYS, st.integers(1, 3), st.just(0)), st.integers(0, 3)).map(
        lambda pair: Earlier(*(*_fields(pair[0])[:-1], min(pair[1], pair[0].count)))
    ),
    max_size=5,
)


def _fields(of: Earlier) -> tuple[object, ...]:
    return of.ref, of.amount, of.entry_ref, of.value_date, of.count, of.unknown


def repeated(lines: Sequence[Line], others: Sequence[Earlier]) -> set[int]:
    """What names an entry decides, and the k-th of a name is a repeat when another statement has k of them."""
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
@given(LINES, ORDERS, OTHERS)
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
