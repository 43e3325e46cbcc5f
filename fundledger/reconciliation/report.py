"""Report of a reconciliation: for each check, whether it holds, and its findings."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec

FINDINGS_MAX: Final = 100
TEXT_MAX: Final = 500
READABLE: Final = "a row that can be read and checked"

Row = TypeVar("Row")
Difference = Iterator[tuple[object, object]]
"""Pairs of an expected and an actual value."""


class Finding(msgspec.Struct):
    """A difference: its subject, the expected and the actual value."""

    subject: str
    expected: str
    actual: str


class Check(msgspec.Struct):
    """Result of one check. `rows` counts the examined rows, `found` all findings, of which at most 100 are kept.

    `error` is set if the check ended before it had read all rows; such a check is not ok, even without findings.
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
        """Report a row that cannot be checked."""
        self.differs(subject, READABLE, described(error))

    def examine(
        self, row: Row, named: Callable[[Row], str], differences: Callable[..., Iterable[tuple[Any, Any]]], *more: Any
    ) -> None:
        """Report the pairs (expected, actual) of `differences(row, *more)` under the name of the row.

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
    """Orders of one kind and their vouchers in the ledger. `orders` includes `in_flight` and `refused`.

    `amount` is the sum of debits that posted orders require, `moved` the sum of debits of the `vouchers`, in minor
    units. They are equal unless orders were in flight or posted during the verification.
    """

    orders: int = 0
    amount: int = 0
    in_flight: int = 0
    refused: int = 0
    vouchers: int = 0
    moved: int = 0


class Fund(msgspec.Struct):
    """Orders of the fund service. A kind in a foreign currency has the currency in its name, as accounts have.

    The ends of withdrawals are counted by voucher type.
    """

    orders: int = 0
    by_kind: dict[str, Total] = {}


class Report(msgspec.Struct, omit_defaults=True):
    """All checks of one snapshot. Sums of the trial balance are signed, credit positive, in minor units.

    `fund` is omitted without a fund service. `error` is set if the verification could not be completed; in that case
    `ok` is false, and `checks` has the checks made before.
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
    """Return a printable, encodable text of at most 500 characters, whatever a row contains."""
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
