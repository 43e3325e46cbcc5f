"""Payout files of the fund service in CSV: the file for the bank, and the results that a person or a bank returns.

Amounts are in major units, with the decimal places of the currency, as in bank files. A wrong unit cannot end a
withdrawal, because each amount is compared with its payout.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast
from uuid import UUID

from fundledger.csv_cells import cell
from fundledger.fund.model.payout_file import (
    LINES_MAX,
    PayoutFile,
    PayoutLine,
    Result,
    ResultState,
    amount_of,
    amount_text,
)

COLUMNS: Final = (
    *("file_no", "line", "ref", "amount", "currency", "holder", "iban", "account", "bank_code"),
    *("merchant", "order_no"),
)
REQUIRED: Final = frozenset({"ref", "state", "amount"})
OPTIONAL: Final = frozenset({"currency", "channel_ref", "reason"})
REF_MAX: Final = 128
REASON_MAX: Final = 1000


class BadResults(Exception):
    """The content of a results file cannot be read. The message names the place."""


def write_csv(file: PayoutFile, lines: Sequence[PayoutLine]) -> bytes:
    """Return the content of a payout file: a line with the names of the columns, and one line for each payout."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    writer.writerows([cell(value) for value in row] for row in _rows(file, lines))
    return text.getvalue().encode()


def _rows(file: PayoutFile, lines: Sequence[PayoutLine]) -> Iterable[list[object]]:
    for number, line in enumerate(lines, 1):
        payee = line.payee
        money = amount_text(line.amount, file.currency), file.currency
        account = payee.holder, payee.iban, payee.account, payee.bank_code
        yield [file.file_no, number, line.ref, *money, *account, line.merchant, line.order_no]


def read_csv(content: str, currency: str) -> list[Result]:
    """Return the results in a CSV file. Its first line has the names of the columns: `ref`, `state` and `amount`, and
    perhaps `currency`, `channel_ref` and `reason`. `currency`: that of the payout file. Raises BadResults.
    """
    rows = csv.reader(io.StringIO(content.removeprefix("\ufeff"), newline=""), strict=True)
    try:
        names = [name.strip() for name in next(rows, [])]
        given = set(names)
        if not given >= REQUIRED or given - REQUIRED - OPTIONAL or len(given) != len(names):
            columns = ", ".join([*sorted(REQUIRED), *sorted(OPTIONAL)])
            raise BadResults(f"line 1 must name the columns ref, state, amount; known columns: {columns}")
        found: list[Result] = []
        for row in rows:
            if not row:
                continue
            if len(found) == LINES_MAX:
                raise BadResults(f"there are more than {LINES_MAX} results")
            if len(row) != len(names):
                raise BadResults(f"line {rows.line_num} has {len(row)} cells instead of {len(names)}")
            found.append(_result(len(found) + 1, dict(zip(names, row, strict=True)), currency, rows.line_num))
    except csv.Error as error:
        raise BadResults(f"line {rows.line_num} is no CSV: {error}") from None
    if not found:
        raise BadResults("there is no result")
    return found


def _result(number: int, row: dict[str, str], currency: str, place: int) -> Result:
    """Return a row as a result. An apostrophe at the beginning of a cell is removed: it protects from formulas."""
    cells: dict[str, Any] = {name: value.strip().removeprefix("'") for name, value in row.items()}
    if cells["state"] not in ("paid", "bounced"):
        raise BadResults(f"line {place}: state must be paid or bounced")
    if not 0 < len(cells["ref"]) <= REF_MAX or len(cells.get("channel_ref", "")) > REF_MAX:
        raise BadResults(f"line {place}: ref and channel_ref have at most {REF_MAX} characters")
    of = cells.get("currency") or currency
    if of != currency:
        # Another currency is a finding. Its amount is not compared.
        amount = None
    else:
        try:
            amount = amount_of(cells["amount"], currency)
        except ValueError as error:
            raise BadResults(f"line {place}: {error}") from None
    return Result(
        number,
        *(cells["ref"], order_of(cells["ref"]), cast("ResultState", cells["state"]), amount, of),
        plain(cells.get("channel_ref")),
        plain(cells.get("reason")),
    )


def order_of(ref: str) -> UUID | None:
    """Return the order that a reference names, or None if it is no id."""
    try:
        return UUID(ref) if len(ref) in (32, 36) else None
    except ValueError:
        return None


def plain(text: str | None) -> str | None:
    """Return a text without characters that a database cannot store, of bounded length. An empty text is None."""
    return (text or "").replace("\x00", "").strip()[:REASON_MAX] or None
