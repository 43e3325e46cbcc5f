"""Cells of CSV files: a spreadsheet shows a cell as text, and runs no cell as a formula."""

from typing import Final

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: object) -> object:
    """Return the content of a cell for a value. If the value is a text that looks like a formula, prefix an apostrophe.

    Source: OWASP, "CSV Injection".
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value
