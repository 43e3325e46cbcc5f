"""Row decoder of the ledger's store: verifies rows of `sub_accounts` and adds them to a batch."""

import asyncpg
import msgspec

from fundledger.ledger.context import Books
from fundledger.ledger.model.account import Account, Status, SubAccount
from fundledger.ledger.model.batch import Batch
from fundledger.security import canonical


def take(batch: Batch, books: Books, account: Account, shard: int, row: asyncpg.Record) -> None:
    """Verify a row of `sub_accounts` and add it to the batch. Raises KeyFault.

    A row that does not match its MAC gets the status FROZEN_INTEGRITY in the batch, and is added to `batch.tampered`
    too. A row that is already marked as suspect gets only the status, so that the row is not reported again.
    """
    (
        number,
        slot,
        posted,
        held,
        version,
        seq,
        posted_at_us,
        status,
        key_version,
        last_entry_mac,
        mac,
        slots,
        buffered,
        suspect,
    ) = row[:14]
    message = canonical.sub_account(
        number,
        slot,
        account.currency.encode(),
        posted,
        held,
        version,
        status,
        seq,
        posted_at_us,
        last_entry_mac,
        key_version,
    )
    place = (number << 16) + slot
    if not suspect and not books.keys.by_version(key_version).matches(
        canonical.first_of(slots, buffered, message), mac
    ):
        evidence = {
            name: value.hex() if isinstance(value, bytes) else value for name, value in row.items() if name != "used"
        }
        batch.tampered[place] = msgspec.json.encode(evidence).decode()
        suspect = True
    batch.sub_accounts[place] = sub_account = SubAccount(
        account,
        shard,
        slot,
        posted,
        held,
        version,
        seq,
        posted_at_us,
        status,
        last_entry_mac,
        mac,
        slots,
        buffered,
        suspect,
    )
    if suspect:
        sub_account.status = Status.FROZEN_INTEGRITY
