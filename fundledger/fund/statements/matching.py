"""Bank statements of the fund service: the matching of lines with orders, and the difference of each line. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from enum import StrEnum
from uuid import UUID

import msgspec


class Outcome(StrEnum):
    """The outcome of a line. `matched`: an order has the reference and the amount. `awaited`: the same, but the order
    has not ended yet. `different`: an order has the reference, but another amount. `duplicate`: all orders with the
    reference are already matched by other lines. `unknown`: no order with the reference moved money in the direction of
    the line. `repeated`: another statement has the same line, with one of the other outcomes.
    """

    MATCHED = "matched"
    AWAITED = "awaited"
    DIFFERENT = "different"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"
    REPEATED = "repeated"


class Line(msgspec.Struct, frozen=True):
    """A line of a statement. `amount` is never 0; it is positive for money that the bank received. `ref`: the channel's
    reference, or an order id. `entry_ref`: the bank's own reference of this entry.
    """

    ref: str
    amount: int
    entry_ref: str | None = None
    value_date: date | None = None


class Earlier(msgspec.Struct, frozen=True):
    """Equal lines of one other statement. `count`: the number of these lines. `unknown`: the number of these lines for
    which no order was found.
    """

    ref: str
    amount: int
    entry_ref: str | None
    value_date: date | None
    count: int
    unknown: int


class Expected(msgspec.Struct, frozen=True):
    """A movement of an order with which lines can be matched. `amount`: the change of the bank account by the order
    when it has ended. `taken`: a line of another statement matched the movement. An order has at most one movement in
    each direction.
    """

    order: UUID
    refs: frozenset[str]
    amount: int
    ended: bool = True
    taken: bool = False

    @property
    def key(self) -> tuple[UUID, bool]:
        """The order, and whether the bank received the money."""
        return self.order, self.amount > 0


class Matched(msgspec.Struct, frozen=True):
    """The result of a line. `difference`: the amount at the bank minus the amount in the ledger when the order has
    ended.
    """

    outcome: Outcome
    order: UUID | None
    difference: int


class Matching(msgspec.Struct, frozen=True):
    """The result of a statement. `lines[i]` is the result of line i. `in_transit`: orders that have ended, but that no
    line matches.
    """

    lines: list[Matched]
    in_transit: list[UUID]


def match(lines: Sequence[Line], expected: Sequence[Expected], earlier: Sequence[Earlier] = ()) -> Matching:
    """Match lines with orders that have the same reference. An order matches at most one line. Lines and orders with
    equal amounts are matched first, the remaining lines and orders second. `earlier`: lines of other statements with
    the same references.

    The sum of the differences is the sum of the lines that are not `repeated`, minus the sum of the matched orders.
    """
    again = _repeated(lines, earlier)
    by_ref: dict[str, list[Expected]] = {}
    for each in expected:
        for ref in each.refs:
            by_ref.setdefault(ref, []).append(each)
    taken = {each.key for each in expected if each.taken}
    found = {i: Matched(Outcome.REPEATED, None, 0) for i in again}
    for exactly in (True, False):
        for i, line in enumerate(lines):
            if i in found:
                continue
            fitting = _free(line, by_ref, taken, exactly=exactly)
            if fitting is not None:
                taken.add(fitting.key)
                found[i] = _matched(line, fitting)
    unmatched = [i for i in range(len(lines)) if i not in found]
    found |= {i: _unmatched(lines[i], by_ref) for i in unmatched}
    found |= {i: Matched(Outcome.REPEATED, None, 0) for i in _repeated_unknown(lines, found, earlier)}
    rest = [found[i] for i in range(len(lines))]
    return Matching(rest, [each.order for each in expected if each.ended and each.key not in taken])


def _repeated(lines: Sequence[Line], earlier: Sequence[Earlier]) -> set[int]:
    """Return the indexes of the lines that another statement has, too. A line is identified by the bank's reference of
    the entry. Without this reference, a line is identified by its value date, amount and reference, and by its position
    among the equal lines of the statement.
    """
    entries = {each.entry_ref for each in earlier if each.entry_ref is not None}
    counts: Counter[tuple[object, ...]] = Counter()
    for each in earlier:
        if each.entry_ref is None and each.value_date is not None:
            key = each.ref, each.amount, each.value_date
            counts[key] = max(counts[key], each.count)
    again = set()
    for i, line in enumerate(lines):
        name = line.ref, line.amount, line.value_date
        if line.entry_ref is not None:
            if line.entry_ref in entries:
                again.add(i)
            entries.add(line.entry_ref)
        elif counts[name] > 0:
            counts[name] -= 1
            again.add(i)
    return again


def _repeated_unknown(lines: Sequence[Line], found: Mapping[int, Matched], earlier: Sequence[Earlier]) -> list[int]:
    """Return the indexes of further lines that another statement has, too: lines without an order, entry reference and
    value date. A line with an order never counts as repeated here, because the bank may have moved the money twice.
    """
    counts: Counter[tuple[str, int]] = Counter()
    for each in earlier:
        if each.entry_ref is None:
            counts[each.ref, each.amount] = max(counts[each.ref, each.amount], each.unknown)
    again = []
    for i, line in enumerate(lines):
        unnamed = line.entry_ref is None and line.value_date is None
        if unnamed and found[i].outcome is Outcome.UNKNOWN and counts[line.ref, line.amount] > 0:
            counts[line.ref, line.amount] -= 1
            again.append(i)
    return again


def _free(
    line: Line, by_ref: Mapping[str, Sequence[Expected]], taken: set[tuple[UUID, bool]], *, exactly: bool
) -> Expected | None:
    for each in by_ref.get(line.ref, ()):
        fits = each.amount == line.amount if exactly else each.amount * line.amount > 0
        if fits and each.key not in taken:
            return each
    return None


def _matched(line: Line, each: Expected) -> Matched:
    if line.amount != each.amount:
        return Matched(Outcome.DIFFERENT, each.order, line.amount - each.amount)
    return Matched(Outcome.MATCHED if each.ended else Outcome.AWAITED, each.order, 0)


def _unmatched(line: Line, by_ref: Mapping[str, Sequence[Expected]]) -> Matched:
    for each in by_ref.get(line.ref, ()):
        if each.amount * line.amount > 0:
            return Matched(Outcome.DUPLICATE, each.order, line.amount)
    return Matched(Outcome.UNKNOWN, None, line.amount)
