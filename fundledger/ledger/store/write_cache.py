"""Write cache of the ledger's store: the sub-accounts that a lane wrote last, so that a batch need not lock them first.

A batch of plain vouchers is decided from cached sub-accounts and from rows that were just read without a lock. One
query writes the batch. The query fails as a whole if posted, held, version, status or MAC of any row has changed,
because another worker wrote the row or it was edited by hand. The batch is then decided again, after its rows were
locked, read and verified. The optimistic path returns no refusals and no replays. A batch with a refusal or a replay is
decided again under locks.

After a read has found a row unchanged since this lane wrote it, the cached row is used without further reads. After a
cached row was found to be outdated, two such reads are required. A row that changed between the read and the write of a
batch is locked for the next two batches. With each repetition the number of reads or batches doubles, up to 64. An
account that several workers write concurrently therefore stays on the locked path, where queries wait for each other
instead of failing.
"""

from collections.abc import Sequence

import asyncpg
import msgspec

from fundledger.ledger.model import clock
from fundledger.ledger.model.account import Account, SubAccount
from fundledger.ledger.model.batch import Batch, Command, places_of
from fundledger.ledger.model.voucher import Voucher
from fundledger.security.mac import MacKey

TOO_EARLY = "FL003"
DOUBTS_MAX = 6
PAUSES_MAX = 4

Stored = tuple[int, int, int, int, bytes]


class Recalled(msgspec.Struct, frozen=True, gc=False):
    """A batch with cached sub-accounts of one shard.

    `unread[place]` is the account of a sub-account that is not in the cache and has to be read.
    """

    batch: Batch
    shard: int
    unread: dict[int, Account]


class WriteCache:
    """A cache of at most `2 * generation` sub-accounts. If `generation` is 0, nothing is cached.

    As in the account directory, there are two generations: a full young generation becomes the old one, and the
    previous old one is dropped.

    The order of calls for a batch is `recall`, `expect`, and then `succeed` or `fail`. Between `expect` and the last
    call the batch is in the database. The next batch may be recalled in this time, with the state that the first batch
    will leave. A batch that is recalled but not sent ends with `disappoint` or `forget`.
    """

    def __init__(self, generation: int = 1 << 15) -> None:
        self._generation = generation
        self._young: dict[int, SubAccount] = {}
        self._old: dict[int, SubAccount] = {}
        self._proofs_due: dict[int, int] = {}
        self._contended: dict[int, int] = {}
        self._doubts: dict[int, int] = {}
        self._suspects: dict[int, tuple[Stored, bool]] = {}
        self._expected: dict[int, SubAccount] = {}
        self._stood: dict[int, Stored] = {}
        self._refusals = 0
        self._pause = 0
        self.failures = 0
        self.not_before_us = 0

    def recall(
        self, commands: Sequence[Command], number: int, ordinal: int, key: MacKey, calendar: clock.AccountingCalendar
    ) -> Recalled | None:
        """Return a batch of cached rows in which the commands can be decided without locks.

        Return None if locks are required.
        """
        if self._pause > 0:
            self._pause -= 1
            return None
        if self._generation == 0 or not commands or type(commands[0]) is not Voucher:
            return None
        shard = commands[0].shard
        found: dict[int, SubAccount] = {}
        unread: dict[int, Account] = {}
        now = max(clock.now_us(), self.not_before_us)
        for command in commands:
            if type(command) is not Voucher or command.hold is not None or command.reverses is not None:
                return None
            if command.unknown is not None or command.shard != shard:
                return None
            for place, (account, _) in zip(places_of(command, ordinal), command.lines, strict=True):
                if place in found or place in unread:
                    continue
                if (
                    place in self._contended
                    or account.buffered
                    or (account.shard != shard and not account.type.platform)
                ):
                    return None
                sub_account = self._expected.get(place) or self._believed(place)
                if sub_account is None:
                    unread[place] = account
                    continue
                found[place] = sub_account
                if sub_account.posted_at_us > now:  # noqa: PLR1730 - called for every voucher
                    now = sub_account.posted_at_us
        batch = Batch(number, ordinal, key, now, calendar.date_of(now))
        batch.sub_accounts = found
        return Recalled(batch, shard, unread)

    def is_too_early(self, error: asyncpg.PostgresError) -> bool:
        """Return whether a batch was rejected because its time is not after the statement mark.

        If so, later batches get a time after the mark, even if the clock stands still or was set back.
        """
        if error.sqlstate != TOO_EARLY:
            return False
        self.not_before_us = max(self.not_before_us, int(error.detail or 0) + 1)
        return True

    def _believed(self, place: int) -> SubAccount | None:
        if place in self._proofs_due:
            return None
        sub_account = self._young.get(place)
        if sub_account is None:
            sub_account = self._old.pop(place, None)
            if sub_account is not None:
                self._young[place] = sub_account
        return sub_account

    def compare(self, place: int, read: SubAccount, *, locked: bool = True) -> None:
        """Compare a cached row with the current row `read`.

        Update the number of batches that must read or lock the row.

        `locked`: True if the row was read under a lock.
        """
        if self._generation == 0:
            return
        if locked and place in self._contended:
            self._contended[place] -= 1
            if self._contended[place] == 0:
                del self._contended[place]
        suspected = self._suspects.pop(place, None)
        if suspected is not None:
            stored, just_read = suspected
            if stored != read.stored:
                self._doubts[place] = min(DOUBTS_MAX, self._doubts.get(place, 0) + 1)
                (self._contended if just_read else self._proofs_due)[place] = 1 << self._doubts[place]
            return
        remembered = self._young.get(place) or self._old.get(place)
        if remembered is None or remembered.stored != read.stored:
            self._proofs_due[place] = max(1, self._proofs_due.get(place, 0))
        elif place in self._proofs_due:
            self._proofs_due[place] -= 1
            if self._proofs_due[place] == 0:
                del self._proofs_due[place]

    def remember(self, batch: Batch) -> None:
        """Cache the sub-accounts of a batch that was committed, or is about to be written."""
        for sub_account, version, mac in batch.standing:
            sub_account.stands(version, batch.posted_at_us, mac)
        if self._generation == 0:
            return
        if len(self._young) + len(batch.sub_accounts) > self._generation:
            self._forget_some()
        for place, sub_account in batch.sub_accounts.items():
            if place not in batch.tampered:
                self._young[place] = sub_account

    def _forget_some(self) -> None:
        self._old = self._young
        self._young = {}
        self._proofs_due = {place: due for place, due in self._proofs_due.items() if place in self._old}
        self._contended = {place: due for place, due in self._contended.items() if place in self._old}
        self._doubts = {place: doubt for place, doubt in self._doubts.items() if place in self._old}
        self._suspects = {}

    def expect(self, recalled: Recalled) -> None:
        """Cache the result of a batch that is about to be written. If the batch fails, call `fail`."""
        sub_accounts = recalled.batch.sub_accounts
        self._stood = {place: sub_account.stored for place, sub_account in sub_accounts.items()}
        self._expected = sub_accounts
        self.remember(recalled.batch)

    def succeed(self) -> None:
        """Record that the batch passed to `expect` was committed."""
        self._expected = {}
        self._stood = {}
        self._refusals = 0

    def fail(self, recalled: Recalled, *, refused: bool = False) -> None:
        """Discard the result of a batch that was not committed, or whose outcome is unknown.

        Increases `failures`. A batch that was already prepared from this result is therefore not sent.
        """
        self.failures += 1
        self._doubt(recalled, self._stood, refused)
        self._expected = {}
        self._stood = {}

    def disappoint(self, recalled: Recalled, *, refused: bool = False) -> None:
        """Remove from the cache the sub-accounts of a batch that was decided but not sent.

        The next read of each row determines whether the cached row was outdated. `refused`: the batch was not sent
        because a command was refused or is a replay. `recall` then returns None for the next batch. If refusals or
        replays happen repeatedly, `recall` returns None for up to 15 batches.
        """
        self._doubt(recalled, {}, refused)

    def _doubt(self, recalled: Recalled, stood: dict[int, Stored], refused: bool) -> None:
        self.forget(recalled)
        for place, sub_account in recalled.batch.sub_accounts.items():
            self._suspects[place] = (stood.get(place, sub_account.stored), place in recalled.unread)
        if refused:
            self._refusals = min(PAUSES_MAX, self._refusals + 1)
            self._pause = (1 << self._refusals) - 1

    def forget(self, recalled: Recalled) -> None:
        """Remove the sub-accounts of a batch from the cache, because deciding the batch has changed them."""
        for place in recalled.batch.sub_accounts:
            self._young.pop(place, None)
            self._old.pop(place, None)
