"""Reconciliation: the report, with the result and the findings of each check."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec

FINDINGS_MAX: Final = 100
TEXT_MAX: Final = 500
READABLE: Final = "a row that can be read and checked"

Row = TypeVar("Row")
Difference = Iterator[tuple[object, object]]
"""Differences, as pairs of an expected and an actual value."""


class Finding(msgspec.Struct):
    """A difference that a check found: its subject, the expected value and the actual value."""

    subject: str
    expected: str
    actual: str


class Check(msgspec.Struct):
    """Result of one check. `rows`: the number of examined rows. `found`: the number of all findings. `findings`: at
    most 100 of them.

    `error` is set if the check ended before it had read all rows. Such a check is not ok, even if it has no findings.
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
        """Add a finding: the row `subject` cannot be checked because of `error`."""
        self.differs(subject, READABLE, described(error))

    def examine(
        self, row: Row, named: Callable[[Row], str], differences: Callable[..., Iterable[tuple[Any, Any]]], *more: Any
    ) -> None:
        """Check a row: add a finding for each pair (expected, actual) that `differences(row, *more)` yields, under the
        row's name.

        An exception is also reported as a finding, so that an unreadable row does not hide others.
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
    """Orders of one kind, and the vouchers of these orders in the ledger. `orders` includes `in_flight` and `refused`.

    `amount`: the sum of the debits that posted orders require. `moved`: the sum of the debits in the `vouchers`. Both
    are in minor units. The two sums are equal, unless orders were in flight or were posted during the verification.
    """

    orders: int = 0
    amount: int = 0
    in_flight: int = 0
    refused: int = 0
    vouchers: int = 0
    moved: int = 0


class Fund(msgspec.Struct):
    """Orders of the fund service, by kind. For orders in a foreign currency, the name of the kind ends with the
    currency.

    The ends of withdrawals are counted by voucher type.
    """

    orders: int = 0
    by_kind: dict[str, Total] = {}


class Report(msgspec.Struct, omit_defaults=True):
    """All checks of one proof. Sums of the trial balance are in minor units; credits are positive, debits are negative.

    If there is no fund service, `fund` is omitted. If the verification could not be completed, `error` is set, `ok` is
    false, and `checks` has the checks that were made before.
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
    """Return a value as a text of at most 500 characters that can be printed and encoded, whatever the
    value contains.
    """
    text = str(value)
    if len(text) > TEXT_MAX:
        text = f"{text[:TEXT_MAX]}... ({len(text):,} characters)"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def described(error: BaseException) -> str:
    """Return the description of an exception as one line of text."""
    text = str(error)
    return printable(f"{type(error).__name__}: {text}" if text else type(error).__name__)
