"""CSV bodies of HTTP answers: a spreadsheet shows the cells as text, and runs no cell as a formula."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply
from fundledger.csv_cells import cell

CSV: Final = "text/csv; charset=utf-8"
HEADERS: Final = {"X-Next-Cursor": False, "X-Unverified": False}
"""The headers of a page in CSV, for the OpenAPI file. No page has to have them."""


def wants_csv(call: Call) -> bool:
    return "text/csv" in call.headers.get("Accept", "")


def csv_page(
    columns: Sequence[str], rows: Iterable[Iterable[object]], cursor: str | None, unverified: Sequence[object] = ()
) -> Reply:
    """Return a page as CSV: a line with the names of the columns, and one line for each row.

    The header `X-Next-Cursor` has the cursor of the next page. It is absent on the last page. The header `X-Unverified`
    has the number of records that do not match their MAC: the page has no row for them. It is absent if there is none.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    headers = {"X-Next-Cursor": cursor} if cursor else {}
    if unverified:
        headers["X-Unverified"] = str(len(unverified))
    return Reply(200, text.getvalue().encode(), CSV, headers)
