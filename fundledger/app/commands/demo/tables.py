"""Demo: amounts in major units, in tables whose columns add up."""

from collections.abc import Sequence
from typing import Final

from fundledger.client import AccountService
from fundledger.client.types import TrialBalanceRow
from fundledger.currencies import EXPONENTS

PARTS: Final = ("available", "pending", "receivable")
MERCHANTS_OWN: Final = {
    "merchant_available": "merchants, available",
    "merchant_pending": "merchants, pending",
    "receivable": "merchants, debts",
    "merchant_reserve": "merchants, reserved",
}
"""The account types of merchants, each with its line in the trial balance. Other accounts have a line each."""


def money(amount: int, currency: str = "CNY") -> str:
    """Return an amount in major units, without its currency: `1,234.50`."""
    exponent = EXPONENTS[currency]
    sign, digits = "-" if amount < 0 else "", f"{abs(amount):0{exponent + 1}d}"
    whole, part = (digits[:-exponent], f".{digits[-exponent:]}") if exponent else (digits, "")
    return f"{sign}{int(whole):,}{part}"


async def show_merchants(accounts: AccountService, merchants: Sequence[str], when: str, currency: str) -> None:
    """Print the balances of merchants, with the sum of each column."""
    print(f"\n{when}, in {currency}:")
    lines: list[Sequence[str]] = [("", "available", "pending", "owes")]
    sums = [0, 0, 0]
    for merchant in merchants:
        found = [await accounts.account(f"merchant:{merchant}:{part}") for part in PARTS]
        posted = [0 if account is None else account.balance.posted for account in found]
        sums = [total + amount for total, amount in zip(sums, posted, strict=True)]
        lines.append((merchant, *(money(amount, currency) for amount in posted)))
    lines.append(("all merchants", *(money(total, currency) for total in sums)))
    _print(lines)


async def show_trial_balance(accounts: AccountService, currency: str) -> None:
    """Print the trial balance of one currency. The two totals are those of the account service."""
    rows: list[TrialBalanceRow] = []
    totals = (0, 0)
    async for page in accounts.trial_balance():
        rows += [row for row in page.accounts if row.currency == currency]
        for total in page.totals:
            if total.currency == currency:
                totals = total.debit, total.credit
    columns: dict[str, tuple[int, int]] = {}
    for row in sorted(rows, key=lambda row: (row.type in MERCHANTS_OWN, row.account)):
        name = MERCHANTS_OWN.get(row.type, row.account)
        debit, credit = columns.get(name, (0, 0))
        columns[name] = debit + row.debit, credit + row.credit
    lines: list[Sequence[str]] = [("", "debit", "credit")]
    for name, (debit, credit) in columns.items():
        lines.append((name, *(money(amount, currency) if amount else "" for amount in (debit, credit))))
    lines.append(("total", money(totals[0], currency), money(totals[1], currency)))
    print(f"\nTrial balance, in {currency}:")
    _print(lines)


def _print(lines: Sequence[Sequence[str]]) -> None:
    """Print lines whose first column is text and whose others are numbers. The last line is a sum."""
    for number, line in enumerate(lines):
        if number == len(lines) - 1:
            print("  " + "-" * (24 + 16 * (len(line) - 1)))
        print(f"  {line[0]:24}" + "".join(f"{part:>16}" for part in line[1:]), flush=True)
    print(flush=True)
