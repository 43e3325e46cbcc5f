"""Rules of the ledger: decide commands by pure functions of the rows that were read for a batch.

The functions use no await, no connection and no clock. Each command is decided from the state that the previous
commands of the batch have left. The checks are in the order of `refusal.Code`: replay, shape, existence, status,
agreement, funds. A refused command moves no money. A final refusal is recorded.
"""

from collections.abc import Sequence

from fundledger.ledger.model.account import BALANCE_MAX, Status, SubAccount
from fundledger.ledger.model.batch import (
    AtomicGroup,
    Batch,
    Command,
    Drain,
    Outcome,
    Rebalance,
    Resplit,
    SetPolicy,
    SetStatus,
    place_of,
    places_of,
)
from fundledger.ledger.model.hold import EndHold, Hold, HoldStatus, PlaceHold
from fundledger.ledger.model.refusal import Code, Refusal
from fundledger.ledger.model.voucher import Record, Voucher
from fundledger.ledger.rules.account import NOT_READ, status_refusal
from fundledger.ledger.rules.buffer import defer, drain
from fundledger.ledger.rules.entries import lines_of_parts, write_entries, write_summaries
from fundledger.ledger.rules.slots import first_open, gather, rebalance, resplit, spread
from fundledger.ledger.rules.status import set_policy, set_status


def decide(batch: Batch, commands: Sequence[Command]) -> list[Outcome]:
    """Return a list in which element i is the outcome of `commands[i]`. The rows to write are added to the batch.

    The batch must contain the sub-accounts that the worker prefers for the commands. If more slots of an account are
    needed, the account is added to `batch.narrow`. If its buffered credits are needed, the account is added to
    `batch.to_drain`. In both cases all outcomes are void.
    """
    outcomes = []
    if batch.backlog:
        drain(batch)
    for command in commands:
        if type(command) is Voucher:
            outcomes.append(_post(batch, command))
        elif type(command) is AtomicGroup:
            outcomes.append(_post_all_or_none(batch, command))
        elif type(command) is PlaceHold:
            outcomes.append(_place_hold(batch, command))
        elif type(command) is EndHold:
            outcomes.append(_end_hold(batch, command))
        elif type(command) is SetStatus:
            outcomes.append(set_status(batch, command))
        elif type(command) is Resplit:
            outcomes.append(resplit(batch, command))
        elif type(command) is Rebalance:
            outcomes.append(rebalance(batch, command))
        elif type(command) is SetPolicy:
            outcomes.append(set_policy(batch, command))
        else:
            assert type(command) is Drain
            number = command.account.number
            outcomes.append(Outcome(drained=[row.posted_at_us for of, row in batch.drained if of == number]))
    write_summaries(batch)
    return outcomes


def _post(batch: Batch, voucher: Voucher) -> Outcome:
    key = voucher.key
    seen = batch.vouchers.get(key)
    if seen is not None:
        return _seen(batch, voucher, seen)
    if voucher.imbalance != 0:
        detail = f"debits and credits differ by {abs(voucher.imbalance)}"
        return Outcome(refusal=Refusal(Code.VOUCHER_UNBALANCED, detail, field="entries"))
    if voucher.unknown is not None:
        return Outcome(refusal=_unknown(voucher.unknown))
    hold = None
    if voucher.hold is not None:
        hold = batch.holds.get((voucher.module, voucher.hold))
        if hold is None:
            return Outcome(refusal=Refusal(Code.HOLD_NOT_FOUND, f"there is no hold {voucher.hold}"))
    lines = voucher.lines
    touched = _touched(batch, voucher, hold)
    refusal = _why_not(batch, voucher, touched, hold)
    while isinstance(refusal, SubAccount):
        shared = spread(batch, refusal, touched, lines, hold)
        if isinstance(shared, Refusal):
            refusal = shared
        else:
            touched, lines = shared
            refusal = _funds_refusal(touched, lines, hold)
    record = Record(
        voucher.id,
        voucher.type,
        voucher.digest,
        voucher.lines,
        voucher.reference,
        voucher.metadata,
        voucher.hold,
        voucher.reverses,
        refusal,
        batch.posted_at_us,
        batch.accounting_date,
        batch.number,
        voucher.module,
    )
    if refusal is not None:
        if refusal.final:
            batch.vouchers[key] = record
            batch.new_vouchers.append((voucher.shard, record))
        return Outcome(record=record, refusal=refusal)
    batch.vouchers[key] = record
    batch.new_vouchers.append((voucher.shard, record))
    is_spread = lines is not voucher.lines
    if batch.deferred:
        touched, lines = defer(batch, key, touched, lines)
    counts = lines_of_parts(touched, lines, voucher.lines) if is_spread else None
    write_entries(batch, key, touched, lines, counts)
    if hold is not None:
        _capture(batch, voucher, hold)
    if voucher.reverses is not None:
        batch.reversed_by[voucher.module, voucher.reverses] = voucher.id
    return Outcome(record=record)


def _touched(batch: Batch, voucher: Voucher, hold: Hold | None) -> list[SubAccount]:
    """Return the sub-account of each line.

    The sub-account is the slot that the worker prefers, or slot 0 if the preferred slot is merged or missing. A capture
    uses the slot of the hold. If slot 0 is needed but was not read, the result has fewer elements than the voucher has
    lines.
    """
    touched = []
    deferred = batch.deferred
    for place, (account, _) in zip(places_of(voucher, batch.ordinal), voucher.lines, strict=True):
        if deferred and account.number in deferred:
            touched.append(deferred[account.number])
            continue
        if hold is not None and hold.account.number == account.number:
            place = (account.number << 16) + hold.slot  # noqa: PLW2901 - the slot of the hold
        sub_account = batch.sub_accounts.get(place)
        if sub_account is None or sub_account.status == Status.MERGED:
            sub_account = first_open(batch, account)
        if sub_account is not None:
            touched.append(sub_account)
    return touched


def _seen(batch: Batch, voucher: Voucher, seen: Record) -> Outcome:
    if seen.digest != voucher.digest:
        detail = "this id was already used with different content"
        return Outcome(refusal=Refusal(Code.VOUCHER_ID_REUSED, detail, field="id"))
    replay = voucher.key not in batch.mine
    batch.mine.discard(voucher.key)
    return Outcome(record=seen, refusal=seen.refusal, replay=replay)


def _unknown(account_id: str) -> Refusal:
    return Refusal(Code.ACCOUNT_NOT_FOUND, f"there is no account {account_id}", account=account_id)


def _why_not(
    batch: Batch, voucher: Voucher, touched: list[SubAccount], hold: Hold | None
) -> Refusal | SubAccount | None:
    """Check status, agreement and funds. Return None if the voucher can be posted.

    Return a refusal if the voucher cannot be posted. Return a sub-account if its own funds are insufficient and other
    slots of the account may have enough.
    """
    lines = voucher.lines
    if len(touched) < len(lines):
        return NOT_READ
    for i, sub_account in enumerate(touched):
        if sub_account.status != Status.OPEN:
            refusal = status_refusal(sub_account, lines[i][1])
            if refusal is not None:
                return refusal
    if hold is not None:
        refusal = _integrity_refusal(batch, hold) or _hold_status_refusal(hold, batch.posted_at_us)
        if refusal is not None:
            return refusal
    if voucher.reverses is not None and (voucher.module, voucher.reverses) in batch.reversed_by:
        return Refusal(Code.VOUCHER_ALREADY_REVERSED, f"voucher {voucher.reverses} has already been reversed")
    currency = lines[0][0].currency
    for account, _ in lines:
        if account.currency != currency:
            detail = f"account {account.id} is in {account.currency}, account {lines[0][0].id} in {currency}"
            return Refusal(Code.CURRENCY_MISMATCH, detail, account=account.id, field="entries")
    if hold is not None:
        refusal = _capture_refusal(voucher, hold)
        if refusal is not None:
            return refusal
    return _funds_refusal(touched, lines, hold)


def _funds_refusal(
    touched: list[SubAccount], lines: Sequence[tuple[object, int]], hold: Hold | None
) -> Refusal | SubAccount | None:
    """Check the net effect of all lines on each sub-account. The amount of a captured hold counts as available.

    Return a refusal if a balance would leave the supported range. Return the first sub-account that would fall below
    its floor, because the funds of other slots may suffice. Otherwise return None.
    """
    if len(lines) == 2 and touched[0] is not touched[1]:
        net = {0: lines[0][1], 1: lines[1][1]}
    else:
        net = {}
        for i, (_, amount) in enumerate(lines):
            first = touched.index(touched[i])
            net[first] = net.get(first, 0) + amount
    for i, change in net.items():
        sub_account = touched[i]
        posted = sub_account.posted + change
        account = sub_account.account
        if not -BALANCE_MAX <= posted <= BALANCE_MAX:
            detail = f"the balance of account {account.id} would exceed the supported range"
            return Refusal(Code.BALANCE_OUT_OF_RANGE, detail, account=account.id)
        kind = account.type
        if kind.bounded and change * kind.normal < 0:
            available = posted * kind.normal - sub_account.held
            if hold is not None and hold.account.number == account.number and hold.slot == sub_account.slot:
                available += hold.amount
            if available < 0:
                return sub_account
    return None


def _post_all_or_none(batch: Batch, group: AtomicGroup) -> Outcome:
    assert not any(voucher.hold or voucher.reverses for voucher in group.vouchers), (
        "a group contains no captures and no reversals"
    )
    saved = [(s, s.posted, s.seq, s.written, s.last_entry_mac) for s in batch.sub_accounts.values()]
    vouchers, entries, mine = len(batch.new_vouchers), len(batch.entries), set(batch.mine)
    buffered, counts = len(batch.buffered), len(batch.counts)
    summed = {sub_account: len(lines) for sub_account, lines in batch.summaries.items()}
    outcomes: list[Outcome] = []
    for voucher in group.vouchers:
        outcome = _post(batch, voucher)
        outcomes.append(outcome)
        if outcome.refusal is not None:
            break
    else:
        return Outcome(parts=outcomes)
    for sub_account, posted, seq, written, mac in saved:
        sub_account.posted, sub_account.seq, sub_account.written, sub_account.last_entry_mac = posted, seq, written, mac
    culprit = outcomes[-1]
    for _, record in batch.new_vouchers[vouchers:]:
        if record is not culprit.record:
            del batch.vouchers[record.key]
    batch.new_vouchers[vouchers:] = [new for new in batch.new_vouchers[vouchers:] if new[1] is culprit.record]
    del batch.entries[entries:]
    del batch.buffered[buffered:]
    del batch.counts[counts:]
    for sub_account, lines in batch.summaries.items():
        del lines[summed.get(sub_account, 0) :]
    batch.mine = mine
    aborted = Refusal(
        Code.BATCH_ABORTED, f"voucher {group.vouchers[len(outcomes) - 1].id} of this atomic batch was refused"
    )
    parts = []
    for i, voucher in enumerate(group.vouchers):
        stands = batch.vouchers.get(voucher.key)
        if i == len(outcomes) - 1:
            parts.append(culprit)
        elif stands is not None and stands.digest == voucher.digest:
            parts.append(_seen(batch, voucher, stands))
        else:
            parts.append(Outcome(refusal=aborted))
    return Outcome(parts=parts)


def _place_hold(batch: Batch, request: PlaceHold) -> Outcome:
    seen = batch.holds.get(request.key)
    if seen is not None:
        if seen.digest != request.digest:
            return Outcome(
                refusal=Refusal(Code.HOLD_ID_REUSED, "this id was already used with different content", field="id")
            )
        replay = request.key not in batch.my_holds
        batch.my_holds.discard(request.key)
        return Outcome(hold=seen, refusal=seen.refusal, replay=replay)
    account = request.account
    if 0 < request.expires_at_us <= batch.posted_at_us:
        return Outcome(refusal=Refusal(Code.HOLD_EXPIRY_PAST, "expires_at is not in the future", field="expires_at"))
    preferred = batch.sub_accounts.get(place_of(account, account.shard, batch.ordinal))
    if preferred is None or preferred.status == Status.MERGED:
        preferred = first_open(batch, account)
    if preferred is None:
        return Outcome(refusal=NOT_READ)
    sub_account = preferred
    refusal = status_refusal(sub_account, -request.amount) if sub_account.status != Status.OPEN else None
    if refusal is None and account.type.platform:
        detail = f"account {account.id} is a platform account; platform accounts take no holds"
        return Outcome(refusal=Refusal(Code.HOLD_ON_PLATFORM_ACCOUNT, detail, account=account.id))
    if refusal is None and sub_account.available < request.amount:
        refusal = gather(batch, sub_account, request.amount)
    hold = Hold(
        request.id,
        account,
        sub_account.slot,
        request.amount,
        0,
        HoldStatus.OPEN if refusal is None else HoldStatus.REFUSED,
        request.digest,
        None,
        refusal,
        batch.posted_at_us,
        request.expires_at_us,
        0,
        request.module,
    )
    if refusal is None:
        sub_account.held += request.amount
        sub_account.written = True
    batch.holds[hold.key] = batch.changed_holds[hold.key] = hold
    batch.new_holds.add(hold.key)
    return Outcome(hold=hold, refusal=refusal)


def _hold_status_refusal(hold: Hold, now_us: int) -> Refusal | None:
    match hold.status:
        case HoldStatus.CAPTURED:
            return Refusal(Code.HOLD_CAPTURED, f"hold {hold.id} has already been captured")
        case HoldStatus.RELEASED:
            return Refusal(Code.HOLD_RELEASED, f"hold {hold.id} has already been released")
        case HoldStatus.REFUSED:
            return Refusal(Code.HOLD_REFUSED, f"hold {hold.id} was refused: nothing is held")
        case HoldStatus.EXPIRED:
            pass
        case HoldStatus.OPEN if not hold.expired_at(now_us):
            return None
    return Refusal(Code.HOLD_EXPIRED, f"hold {hold.id} has expired")


def _integrity_refusal(batch: Batch, hold: Hold) -> Refusal | None:
    """Return a refusal if the row of the hold's sub-account did not match its MAC. Such a row must not be written."""
    sub_account = batch.sub_accounts[(hold.account.number << 16) + hold.slot]
    return status_refusal(sub_account, 0) if sub_account.status == Status.FROZEN_INTEGRITY else None


def _capture_refusal(voucher: Voucher, hold: Hold) -> Refusal | None:
    debited = -sum(amount for account, amount in voucher.lines if account.number == hold.account.number)
    debited *= hold.account.type.normal
    if 0 < debited <= hold.amount:
        return None
    taken = f"a capture of hold {hold.id} must take 1 to {hold.amount} from account {hold.account.id}"
    detail = f"{taken}; this voucher takes {debited}"
    return Refusal(Code.HOLD_EXCEEDED, detail, account=hold.account.id, field="voucher.entries")


def _capture(batch: Batch, voucher: Voucher, hold: Hold) -> None:
    taken = -sum(amount for account, amount in voucher.lines if account.number == hold.account.number)
    hold.captured = taken * hold.account.type.normal
    hold.voucher_id = voucher.id
    _free(batch, hold, HoldStatus.CAPTURED)


def _free(batch: Batch, hold: Hold, status: HoldStatus) -> None:
    sub_account = batch.sub_accounts[(hold.account.number << 16) + hold.slot]
    sub_account.held -= hold.amount
    sub_account.written = True
    hold.status = status
    hold.ended_at_us = batch.posted_at_us
    batch.changed_holds[hold.key] = hold


def _end_hold(batch: Batch, request: EndHold) -> Outcome:
    hold = batch.holds[request.key]
    if hold.status == HoldStatus.RELEASED:
        return Outcome(hold=hold, replay=True)
    refusal = _integrity_refusal(batch, hold)
    if request.expire:
        if refusal is None and hold.expired_at(batch.posted_at_us):
            _free(batch, hold, HoldStatus.EXPIRED)
        return Outcome(hold=hold, refusal=refusal)
    refusal = refusal or _hold_status_refusal(hold, batch.posted_at_us)
    if refusal is not None:
        return Outcome(hold=hold, refusal=refusal)
    _free(batch, hold, HoldStatus.RELEASED)
    return Outcome(hold=hold)
