"""CSV bodies of HTTP answers: a spreadsheet shows the cells as text, and runs no cell as a formula."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply

CSV: Final = "text/csv; charset=utf-8"
_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: object) -> object:
    """Return the content of a cell for a value. If the value is a text that looks like a formula, prefix an apostrophe.

    Source: OWASP, "CSV Injection".
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def wants_csv(call: Call) -> bool:
    return "text/csv" in call.headers.get("Accept", "")


def csv_page(columns: Sequence[str], rows: Iterable[Iterable[object]], cursor: str | None) -> Reply:
    """Return a page as CSV: a line with the names of the columns, and one line for each row.

    The header `X-Next-Cursor` has the cursor of the next page. It is absent on the last page.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    return Reply(200, text.getvalue().encode(), CSV, {"X-Next-Cursor": cursor} if cursor else {})
