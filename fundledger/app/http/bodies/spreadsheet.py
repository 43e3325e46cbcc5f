"""CSV bodies of HTTP answers. A spreadsheet shows the cells as text, and does not run them as formulas."""

from typing import Final

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: object) -> object:
    """Return the value of a cell. An apostrophe precedes text that a spreadsheet would take for a formula.

    Source: OWASP, "CSV Injection".
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value
