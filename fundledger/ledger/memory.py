"""What a lane remembers of the sub-accounts that it wrote last, so that a batch need not lock and read them first.

A batch of plain vouchers whose sub-accounts are all remembered is decided from memory and written by one statement,
which fails as a whole if any row is not as remembered: compare and set on posted, held, version, status and MAC. So a
row that somebody else wrote, or edited by hand, is never decided upon; it is then locked, read and verified like any
other. Nothing is refused from memory: whatever is not simply posted is decided again under locks.

A place is believed once a locked read has found it as this lane left it. One that disappointed has to be found so more
often, twice as often each time: an account that several workers write stays on the locked path, whose statements wait
for each other instead of failing.
"""

from collections.abc import Sequence

from fundledger.ledger import clock
from fundledger.ledger.account import SubAccount
from fundledger.ledger.batch import Batch, Command, places_of
from fundledger.ledger.voucher import Voucher
from fundledger.security.mac import MacKey

DOUBTS_MAX = 6
PAUSE_BATCHES = 8

Stored = tuple[int, int, int, int, bytes]


class Memory:
    """At most `2 * generation` sub-accounts, in two generations like the directory; 0 remembers nothing.

    Not for concurrent use: one batch at a time, each ended by `remember` or `disappoint`.
    """

    def __init__(self, generation: int = 1 << 15) -> None:
        self._generation = generation
        self._young: dict[int, SubAccount] = {}
        self._old: dict[int, SubAccount] = {}
        self._proofs_due: dict[int, int] = {}
        self._doubts: dict[int, int] = {}
        self._suspects: dict[int, Stored] = {}
        self._pause = 0

    def recall(
        self, commands: Sequence[Command], number: int, ordinal: int, key: MacKey, calendar: clock.AccountingCalendar
    ) -> Batch | None:
        """A batch over remembered sub-accounts of one shard, or None when something has to be read."""
        if self._pause > 0:
            self._pause -= 1
            return None
        if not commands or type(commands[0]) is not Voucher:
            return None
        shard = commands[0].shard
        found: dict[int, SubAccount] = {}
        now = clock.now_us()
        for command in commands:
            if type(command) is not Voucher or command.hold is not None or command.reverses is not None:
                return None
            if command.unknown is not None:
                return None
            for place in places_of(command, ordinal):
                if place in found:
                    continue
                sub_account = self._believed(place)
                if sub_account is None or sub_account.shard != shard:
                    return None
                found[place] = sub_account
                if sub_account.posted_at_us > now:  # noqa: PLR1730 - called for every voucher
                    now = sub_account.posted_at_us
        batch = Batch(number, ordinal, key, now, calendar.date_of(now))
        batch.sub_accounts = found
        return batch

    def _believed(self, place: int) -> SubAccount | None:
        if place in self._proofs_due:
            return None
        sub_account = self._young.get(place)
        if sub_account is None:
            sub_account = self._old.pop(place, None)
            if sub_account is not None:
                self._young[place] = sub_account
        return sub_account

    def compare(self, place: int, read: SubAccount) -> None:
        """A locked read saw this place: believe it more, or less."""
        if self._generation == 0:
            return
        suspected = self._suspects.pop(place, None)
        if suspected is not None:
            if suspected != read.stored:
                self._doubts[place] = min(DOUBTS_MAX, self._doubts.get(place, 0) + 1)
                self._proofs_due[place] = 1 << self._doubts[place]
            return
        remembered = self._young.get(place) or self._old.get(place)
        if remembered is None or remembered.stored != read.stored:
            self._proofs_due[place] = max(1, self._proofs_due.get(place, 0))
        elif place in self._proofs_due:
            self._proofs_due[place] -= 1
            if self._proofs_due[place] == 0:
                del self._proofs_due[place]

    def remember(self, batch: Batch) -> None:
        """The batch was committed: its sub-accounts stand as they are in it."""
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
        self._doubts = {place: doubt for place, doubt in self._doubts.items() if place in self._old}
        self._suspects = {}

    def disappoint(self, batch: Batch, *, pause: bool = False) -> None:
        """A batch from memory was not written: forget what deciding it changed.

        The next read finds out whose fault it was. `pause`: read for some batches in any case.
        """
        for place in batch.sub_accounts:
            remembered = self._young.pop(place, None)
            if remembered is not None:
                self._suspects[place] = remembered.stored
        if pause:
            self._pause = PAUSE_BATCHES
