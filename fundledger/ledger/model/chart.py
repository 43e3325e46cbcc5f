"""Model of the chart of accounts in the ledger: the account types, and which of them may have a negative balance."""

from dataclasses import dataclass
from typing import Literal

Side = Literal["debit", "credit"]


@dataclass(frozen=True, slots=True)
class AccountType:
    """A type of account in the chart of accounts.

    `normal` is 1 if credits increase the balance, -1 if debits increase it. The available amount of a `bounded` account
    is never negative. A `platform` account takes no holds, and has sub-accounts in every shard from its creation.
    """

    name: str
    normal: int
    bounded: bool
    platform: bool
    meaning: str


# The accounting identity holds for these types, each in its normal direction: bank + receivable + own_transit =
# merchant_pending + merchant_available + merchant_reserve + payout_transit + suspense + channel_payable + tax_payable +
# equity + (fee_income + other_income - channel_expense).
CHART: dict[str, AccountType] = {
    type_.name: type_
    for type_ in (
        AccountType("bank", -1, False, True, "asset: mirror of a real bank account; may go negative"),
        AccountType("merchant_pending", 1, True, False, "liability: paid, not yet settled"),
        AccountType("merchant_available", 1, True, False, "liability: what the merchant may withdraw"),
        AccountType("fee_income", 1, False, True, "income: our fees"),
        AccountType("channel_expense", -1, False, True, "expense: what channels and losses cost us"),
        AccountType("payout_transit", 1, False, True, "liability: withdrawals that the bank has not confirmed"),
        AccountType("suspense", 1, False, True, "differences not yet explained; either sign"),
        AccountType("receivable", -1, True, False, "asset: what a merchant owes us"),
        AccountType("merchant_reserve", 1, True, False, "liability: money of a merchant in reserve or in dispute"),
        AccountType("equity", 1, False, True, "equity: the platform's own funds"),
        AccountType("other_income", 1, False, True, "income: overages of the bank that were explained"),
        AccountType("own_transit", -1, False, True, "asset: own money that has left one bank for another"),
        AccountType("channel_payable", 1, False, True, "liability: costs that a channel has not collected yet"),
        AccountType("tax_payable", 1, False, True, "liability: tax on fees that we owe the tax authority"),
    )
}
