"""Rules of the ledger: refusals that follow from an account's status or balance."""

from typing import Final

from fundledger.ledger.model.account import Status, SubAccount
from fundledger.ledger.model.refusal import Code, Refusal

NOT_READ: Final = Refusal(
    Code.ACCOUNT_NOT_FOUND, "not all slots were read; the batch is decided again with all of them"
)
"""Placeholder in a batch whose outcomes are void (see `Batch.narrow`). It is never returned to a caller."""


def status_refusal(sub_account: SubAccount, amount: int) -> Refusal | None:
    """Return the refusal of a line on a sub-account that is not open. Return None if the status allows the line.

    `amount` is the signed amount of the line; a debit is negative.
    """
    account_id = sub_account.account.id
    if sub_account.status == Status.CLOSED:
        return Refusal(Code.ACCOUNT_CLOSED, f"account {account_id} is closed", account=account_id)
    if sub_account.status == Status.FROZEN_DEBITS and amount > 0:
        return None
    what = "debits" if sub_account.status == Status.FROZEN_DEBITS else "entries"
    return Refusal(Code.ACCOUNT_FROZEN, f"account {account_id} is frozen and takes no {what}", account=account_id)


def not_enough(short: SubAccount) -> Refusal:
    account_id = short.account.id
    return Refusal(
        Code.INSUFFICIENT_FUNDS, f"account {account_id} has insufficient available funds", account=account_id
    )
