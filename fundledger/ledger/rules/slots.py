"""Rules of the ledger for slots: take missing funds from other slots, and split, merge and rebalance an account.

A command is refused for insufficient funds only after all slots of the account were locked and read. The number of
slots of an account is recorded on slot 0. A transaction that opens more slots locks slot 0.
"""

import hashlib
from collections.abc import Sequence

from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.account import Account, Status, SubAccount
from fundledger.ledger.model.batch import Batch, Outcome, Rebalance, Resplit
from fundledger.ledger.model.hold import Hold
from fundledger.ledger.model.refusal import Refusal
from fundledger.ledger.model.voucher import LEDGER, Record, digest_of
from fundledger.ledger.rules.account import NOT_READ, not_enough, status_refusal
from fundledger.ledger.rules.entries import NO_LINE, write_entries
from fundledger.security import canonical

REBALANCE = "rebalance"
SLOTS_MAX = 256

Lines = Sequence[tuple[Account, int]]


def all_slots(batch: Batch, account: Account) -> list[SubAccount] | None:
    """Return all slots of a merchant's account, in order.

    If some slots were not read, add the account to `batch.narrow` and return None.
    """
    base = account.number << 16
    first = batch.sub_accounts.get(base)
    if first is None:
        batch.narrow[account.number] = 1
        return None
    slots = [batch.sub_accounts.get(base + slot) for slot in range(first.slots)]
    found = [slot for slot in slots if slot is not None]
    # If slot 0 did not verify, its number of slots may be wrong. The command is then refused because of the status of
    # slot 0.
    if len(found) < first.slots and first.status != Status.FROZEN_INTEGRITY:
        batch.narrow[account.number] = first.slots
        return None
    return found


def first_open(batch: Batch, account: Account) -> SubAccount | None:
    """Return slot 0, to which a line is posted if the preferred slot is merged or missing. Slot 0 always exists.

    If slot 0 was not read, add the account to `batch.narrow` and return None.
    """
    first = batch.sub_accounts.get(account.number << 16)
    if first is None:
        batch.narrow[account.number] = 1
    return first


def _unusable(slots: Sequence[SubAccount]) -> Refusal | None:
    """Return a refusal if the status of a slot forbids taking funds from the slot.

    This refusal takes precedence over a refusal for insufficient funds.
    """
    for slot in slots:
        if slot.status not in (Status.OPEN, Status.MERGED):
            # Taking funds is a debit of a liability account, or a credit of an asset account.
            refusal = status_refusal(slot, -slot.account.type.normal)
            if refusal is not None:
                return refusal
    return None


def _lacking(batch: Batch, short: SubAccount) -> Refusal:
    """Return the refusal of a command for insufficient funds.

    If the account may have buffered credits that were not read yet, add the account to `batch.to_drain`. The refusal is
    then void.
    """
    number = short.account.number
    if batch.sub_accounts[number << 16].buffered and number not in batch.backlog:
        batch.to_drain.add(number)
        return NOT_READ
    return not_enough(short)


def spread(
    batch: Batch, short: SubAccount, touched: list[SubAccount], lines: Lines, hold: Hold | None
) -> tuple[list[SubAccount], list[tuple[Account, int]]] | Refusal:
    """Move money into the slot `short` until its debit is covered. The money comes from those slots of the account
    in which the most is available.

    Return the new sub-accounts and lines of the voucher. Return a refusal if all slots together do not have the amount.
    The refusal is void if not all slots were read.
    """
    account, normal = short.account, short.account.type.normal
    slots = all_slots(batch, account)
    if slots is None:
        return NOT_READ
    unusable = _unusable(slots)
    if unusable is not None:
        return unusable
    change = sum(amount for s, (_, amount) in zip(touched, lines, strict=True) if s is short)
    lacking = -(normal * (short.posted + change) - short.held)
    if hold is not None and hold.account.number == account.number and hold.slot == short.slot:
        lacking -= hold.amount
    givers, given = [], []
    for giver in sorted(slots, key=lambda s: (-s.available, s.slot)):
        part = min(giver.available, lacking)
        if giver is not short and part > 0:
            givers.append(giver)
            given.append(part)
            lacking -= part
    if lacking > 0:
        return _lacking(batch, short)
    places: list[SubAccount] = []
    parts: list[tuple[Account, int]] = []
    for s, (of, amount) in zip(touched, lines, strict=True):
        left = -amount * normal if s is short else 0
        while left > 0 and givers:
            part = min(left, given[0])
            places.append(givers[0])
            parts.append((of, -part * normal))
            left -= part
            given[0] -= part
            if given[0] == 0:
                del givers[0], given[0]
            amount = -left * normal  # noqa: PLW2901 - the rest for the slot itself
        if amount:
            places.append(s)
            parts.append((of, amount))
    return places, parts


def _open_more(batch: Batch, slots: list[SubAccount], wanted: int) -> None:
    """Open all slots below number `wanted`: reopen merged slots, and add missing slots."""
    first = slots[0]
    account = first.account
    for slot in slots[:wanted]:
        if slot.status == Status.MERGED:
            slot.status = Status.OPEN
            slot.written = True
    for number in range(len(slots), wanted):
        message = canonical.sub_account(
            account.number,
            number,
            account.currency.encode(),
            0,
            0,
            0,
            Status.OPEN,
            0,
            # Entries of the new slot must not come before lines that a statement showed before the slot existed.
            batch.posted_at_us,
            canonical.GENESIS,
            batch.key.version,
        )
        mac = batch.key.tag(message)
        now = batch.posted_at_us
        new = SubAccount(account, first.shard, number, 0, 0, 0, 0, now, Status.OPEN, canonical.GENESIS, mac)
        batch.sub_accounts[(account.number << 16) + number] = new
        batch.opened.append(new)
    if wanted > len(slots):
        first.slots = wanted
        first.written = True
        batch.resized.append(first)


def _close_behind(slots: list[SubAccount], wanted: int) -> list[tuple[SubAccount, SubAccount, int]]:
    """Merge each slot with a number of `wanted` or higher. Return the amounts to move, as (from, to, amount).

    The available amount of each slot moves to slot 0. A slot with a negative available amount gets the missing amount
    from slot 0. A slot with holds is not merged yet, because the held amount stays in the slot.
    """
    moves = []
    for slot in slots[wanted:]:
        if slot.status == Status.MERGED:
            continue
        if slot.available > 0:
            moves.append((slot, slots[0], slot.available))
        elif slot.available < 0:
            moves.append((slots[0], slot, -slot.available))
        if slot.held == 0:
            slot.status = Status.MERGED
            slot.written = True
    return moves


def _level(slots: Sequence[SubAccount]) -> list[tuple[SubAccount, SubAccount, int]]:
    """Return the amounts to move, as (from, to, amount), so that available amounts differ by at most one minor unit."""
    share, rest = divmod(sum(slot.available for slot in slots), len(slots))
    wanted = {slot: share + (i < rest) for i, slot in enumerate(slots)}
    rich = [slot for slot in slots if slot.available > wanted[slot]]
    spare = {slot: slot.available - wanted[slot] for slot in rich}
    moves = []
    for poor in slots:
        lacking = wanted[poor] - poor.available
        while lacking > 0:
            part = min(lacking, spare[rich[-1]])
            moves.append((rich[-1], poor, part))
            lacking -= part
            spare[rich[-1]] -= part
            if spare[rich[-1]] == 0:
                rich.pop()
    return moves


def _move_voucher(batch: Batch, account: Account, amounts: Sequence[int]) -> Record:
    """Record a voucher that moves amounts between slots of one account. Each amount becomes a pair of lines."""
    # The id depends on the time, because a batch that is decided again keeps its number and may move other amounts.
    seed = b"%d:%d:%d:%d" % (batch.number, batch.posted_at_us, account.number, len(batch.new_vouchers))
    lines = [(account, sign * amount * account.type.normal) for amount in amounts for sign in (-1, 1)]
    asked = [(account.id, amount) for _, amount in lines]
    digest = digest_of(REBALANCE, asked, None, None, None, None)
    record = Record(
        UUID(hashlib.sha256(b"rebalance/1:" + seed).digest()[:16]),
        REBALANCE,
        digest,
        lines,
        None,
        None,
        None,
        None,
        None,
        batch.posted_at_us,
        batch.accounting_date,
        batch.number,
        LEDGER,
    )
    batch.vouchers[record.key] = record
    batch.new_vouchers.append((account.shard, record))
    return record


def gather(batch: Batch, short: SubAccount, amount: int) -> Refusal | None:
    """Post a voucher that moves funds from other slots to slot `short`, so that `amount` is available for a hold.

    Return a refusal if the account does not have the amount, or if the status of a slot forbids the move.
    """
    slots = all_slots(batch, short.account)
    if slots is None:
        return NOT_READ
    unusable = _unusable(slots)
    if unusable is not None:
        return unusable
    if sum(slot.available for slot in slots) < amount:
        return _lacking(batch, short)
    moves = []
    lacking = amount - short.available
    for giver in sorted(slots, key=lambda s: (-s.available, s.slot)):
        given = min(giver.available, lacking)
        if giver is not short and given > 0:
            moves.append((giver, short, given))
            lacking -= given
    _move(batch, short.account, moves)
    return None


def _move(batch: Batch, account: Account, moves: Sequence[tuple[SubAccount, SubAccount, int]]) -> Record:
    record = _move_voucher(batch, account, [amount for _, _, amount in moves])
    places = [slot for giver, taker, _ in moves for slot in (giver, taker)]
    write_entries(batch, record.key, places, record.lines, NO_LINE)
    return record


def resplit(batch: Batch, request: Resplit) -> Outcome:
    """Open or merge slots as requested. A request that changes nothing is a replay."""
    account = request.account
    assert not account.type.platform, "the slots of a platform account are fixed"
    slots = all_slots(batch, account)
    if slots is None:
        return Outcome(refusal=NOT_READ)
    for slot in slots:
        if slot.status not in (Status.OPEN, Status.MERGED):
            return Outcome(refusal=status_refusal(slot, 0))
    wanted = request.slots
    if len(slots) >= wanted and all((s.status == Status.OPEN) == (s.slot < wanted) for s in slots):
        batch.routes.append(request)
        return Outcome(replay=True)
    _open_more(batch, slots, wanted)
    moves = _close_behind(slots, wanted)
    record = _move(batch, account, moves) if moves else None
    batch.routes.append(request)
    return Outcome(record=record)


def rebalance(batch: Batch, request: Rebalance) -> Outcome:
    """Make the available amounts of all open slots equal. Held amounts stay on their slots."""
    account = request.account
    slots = all_slots(batch, account)
    if slots is None:
        return Outcome(refusal=NOT_READ)
    active = [slot for slot in slots if slot.status != Status.MERGED]
    for slot in active:
        refusal = status_refusal(slot, 0) if slot.status != Status.OPEN else None
        if refusal is not None:
            return Outcome(refusal=refusal)
    moves = _level(active)
    return Outcome(record=_move(batch, account, moves) if moves else None)
