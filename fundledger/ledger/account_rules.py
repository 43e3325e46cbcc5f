"""What an account's own state refuses."""

from typing import Final

from fundledger.ledger.account import Status, SubAccount
from fundledger.ledger.refusal import Code, Refusal

NOT_READ: Final = Refusal(Code.ACCOUNT_NOT_FOUND, "not all slots were read: decided again with all of them")
"""Never an answer: see `Batch.narrow`."""


def status_refusal(sub_account: SubAccount, amount: int) -> Refusal | None:
    """What a line of `amount` (a debit is negative) may not do to a sub-account that is not open."""
    account_id = sub_account.account.id
    if sub_account.status == Status.CLOSED:
        return Refusal(Code.ACCOUNT_CLOSED, f"account {account_id} is closed", account=account_id)
    if sub_account.status == Status.FROZEN_DEBITS and amount > 0:
        return None
    what = "debits" if sub_account.status == Status.FROZEN_DEBITS else "entries"
    return Refusal(Code.ACCOUNT_FROZEN, f"account {account_id} is frozen and takes no {what}", account=account_id)


def not_enough(short: SubAccount) -> Refusal:
    account_id = short.account.id
    return Refusal(Code.INSUFFICIENT_FUNDS, f"account {account_id} has not enough available", account=account_id)
