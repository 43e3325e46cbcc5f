"""Values as cells of CSV, so that a spreadsheet shows them and runs none of them."""

from typing import Final

_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula comes after an apostrophe; numbers are as they are.

    See OWASP, "CSV Injection".
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value
