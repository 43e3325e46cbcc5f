"""Which line of a bank statement is which order, and by how much the bank has more, or less, than the books."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from uuid import UUID

import msgspec


class Outcome(StrEnum):
    """Of a line. `awaited`: as `matched`, but the order has not ended yet. `duplicate`: the orders that it names are
    explained by other lines. `unknown`: no order moved money this way under this reference.
    """

    MATCHED = "matched"
    AWAITED = "awaited"
    DIFFERENT = "different"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"


class Line(msgspec.Struct, frozen=True):
    """Of a statement. `amount`, never 0: positive came in. `ref` is the channel's reference, or an order's id."""

    ref: str
    amount: int


class Expected(msgspec.Struct, frozen=True):
    """An order, and what it does to the bank's account when it has ended. `taken`: a line explained it before."""

    order: UUID
    refs: frozenset[str]
    amount: int
    ended: bool = True
    taken: bool = False


class Matched(msgspec.Struct, frozen=True):
    """What came of a line. `difference`: by how much the bank has more than the books will have, negative if less."""

    outcome: Outcome
    order: UUID | None
    difference: int


class Matching(msgspec.Struct, frozen=True):
    """`lines[i]` is what came of line i. `in_transit`: orders that a line could have named, and none did."""

    lines: list[Matched]
    in_transit: list[UUID]


def match(lines: Sequence[Line], expected: Sequence[Expected]) -> Matching:
    """Each order explains one line at most. Same amounts find each other first, then what is left under a reference.

    The sum of the differences is that of the lines, less that of the orders which explain one.
    """
    by_ref: dict[str, list[Expected]] = {}
    for each in expected:
        for ref in each.refs:
            by_ref.setdefault(ref, []).append(each)
    taken = {each.order for each in expected if each.taken}
    found: dict[int, Matched] = {}
    for exactly in (True, False):
        for i, line in enumerate(lines):
            if i in found:
                continue
            fitting = _free(line, by_ref, taken, exactly=exactly)
            if fitting is not None:
                taken.add(fitting.order)
                found[i] = _matched(line, fitting)
    rest = [found.get(i) or _unmatched(line, by_ref) for i, line in enumerate(lines)]
    return Matching(rest, [each.order for each in expected if each.ended and each.order not in taken])


def _free(line: Line, by_ref: Mapping[str, Sequence[Expected]], taken: set[UUID], *, exactly: bool) -> Expected | None:
    for each in by_ref.get(line.ref, ()):
        fits = each.amount == line.amount if exactly else each.amount * line.amount > 0
        if fits and each.order not in taken:
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
