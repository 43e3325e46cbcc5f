"""What a verification reports: for each check, whether it holds and where it does not."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec

FINDINGS_MAX: Final = 100
TEXT_MAX: Final = 500
READABLE: Final = "a row that can be read and checked"

Row = TypeVar("Row")
Difference = Iterator[tuple[object, object]]
"""Pairs of expected and actual."""


class Finding(msgspec.Struct):
    """A difference: what it concerns, and what was expected and found there."""

    subject: str
    expected: str
    actual: str


class Check(msgspec.Struct):
    """One statement about the books. `rows` were looked at; at most 100 findings are kept, `found` counts all.

    `error` is set when the check ended before it had seen all rows: the check is then not ok, whatever it had found.
    """

    name: str
    ok: bool = True
    rows: int = 0
    found: int = 0
    findings: list[Finding] = []
    error: str | None = None

    def differs(self, subject: str, expected: object, actual: object) -> None:
        self.ok = False
        self.found += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(printable(subject), printable(expected), printable(actual)))

    def unreadable(self, subject: str, error: Exception) -> None:
        """Report a row that the check cannot be made on."""
        self.differs(subject, READABLE, described(error))

    def examine(
        self, row: Row, named: Callable[[Row], str], differences: Callable[..., Iterable[tuple[Any, Any]]], *more: Any
    ) -> None:
        """Report what `differences(row, *more)` yields, pairs of expected and actual, under the name of the row.

        Each exception that it raises is a finding, too: a row that cannot be checked hides no other row.
        """
        self.rows += 1
        try:
            for expected, actual in differences(row, *more):
                self.differs(named(row), expected, actual)
        except Exception as error:
            self.unreadable(named(row), error)

    def failed(self, error: Exception) -> None:
        """Record that the check could not be completed."""
        self.ok = False
        self.error = described(error) if self.error is None else f"{self.error}; {described(error)}"


class Total(msgspec.Struct):
    """Orders of one kind beside their vouchers in the ledger. `in_flight` and `refused` orders are among `orders`.

    `amount` is what the vouchers of those that are posted must move, `moved` what the `vouchers` move: minor units, the
    sum of debits. Without orders in flight, or posted while it was read, they are the same.
    """

    orders: int = 0
    amount: int = 0
    in_flight: int = 0
    refused: int = 0
    vouchers: int = 0
    moved: int = 0


class Fund(msgspec.Struct):
    """The orders of the fund service. Kinds of another currency than the home one have it in their name, as accounts
    have; the ends of withdrawals are counted by the types of their vouchers.
    """

    orders: int = 0
    by_kind: dict[str, Total] = {}


class Report(msgspec.Struct, omit_defaults=True):
    """All checks of one snapshot. Sums of a trial balance are signed, credit positive, in minor units. `fund` is left
    out where there is no fund service.

    `error` is set when the verification could not be finished; `ok` is then false, and `checks` are those made before.
    """

    ok: bool
    checks: list[Check]
    vouchers: int
    entries: int
    accounts: int
    trial_balance: dict[str, int]
    elapsed_s: float
    fund: Fund | None = None
    error: str | None = None


def printable(value: object) -> str:
    """Return a text of at most 500 characters that can be encoded and shown on a terminal, whatever a row contains."""
    text = str(value)
    if len(text) > TEXT_MAX:
        text = f"{text[:TEXT_MAX]}... ({len(text):,} characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def described(error: BaseException) -> str:
    """Return an exception as one line."""
    text = str(error)
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)
