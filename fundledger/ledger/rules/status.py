"""Rules of the ledger for accounts: changes of status and of the buffering policy."""

from fundledger.ledger.model.account import Status
from fundledger.ledger.model.batch import Batch, Outcome, SetPolicy, SetStatus
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ledger.rules.account import NOT_READ, status_refusal
from fundledger.ledger.rules.slots import all_slots


def set_status(batch: Batch, request: SetStatus) -> Outcome:
    """Change an account's status. The caller has locked all sub-accounts of the account, in every shard."""
    account = request.account
    # For an integrity freeze the caller has read all existing slots, because the number in slot 0 may be tampered with.
    believed = request.status != Status.FROZEN_INTEGRITY and not account.type.platform
    if believed and all_slots(batch, account) is None:
        return Outcome(refusal=NOT_READ)
    mine = [s for s in batch.sub_accounts.values() if s.account.number == account.number]
    touched = [s for s in mine if s.status != Status.MERGED]
    if request.status == Status.FROZEN_INTEGRITY:
        # A row that does not match its MAC is only marked: a new MAC would certify amounts that were tampered with.
        change = [s for s in touched if not s.suspect]
        if not change and batch.tampered:
            batch.events.append(request)
    elif any(s.status == Status.CLOSED for s in touched):
        if request.status == Status.CLOSED:
            return Outcome(replay=True)
        return Outcome(refusal=Refusal(Code.ACCOUNT_CLOSED, f"account {account.id} is closed", account=account.id))
    elif any(s.status == Status.FROZEN_INTEGRITY for s in touched):
        detail = f"account {account.id} is frozen because its books do not verify: see the runbook"
        return Outcome(refusal=Refusal(Code.ACCOUNT_FROZEN, detail, account=account.id))
    elif request.status == Status.CLOSED and any(s.posted or s.held for s in touched):
        detail = f"account {account.id} is not empty: a closed account has a balance of 0 and no holds"
        return Outcome(refusal=Refusal(Code.ACCOUNT_NOT_EMPTY, detail, account=account.id))
    else:
        change = [s for s in touched if s.status != request.status]
    for sub_account in change:
        sub_account.status = request.status
        sub_account.written = True
    if change:
        batch.events.append(request)
    return Outcome(replay=not change)


def set_policy(batch: Batch, request: SetPolicy) -> Outcome:
    """Change an account's buffering policy. The caller has locked slot 0 FOR UPDATE and drained the buffer."""
    first = batch.sub_accounts[request.account.number << 16]
    if first.status in (Status.CLOSED, Status.FROZEN_INTEGRITY):
        return Outcome(refusal=status_refusal(first, 0))
    if first.buffered == request.buffered:
        return Outcome(replay=True)
    first.buffered = request.buffered
    first.written = True
    batch.policies.append(request)
    return Outcome()
