"""Read plan in the ledger's store: the rows that a batch locks and reads."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.context import Books
from fundledger.ledger.model.account import Account
from fundledger.ledger.model.batch import (
    AtomicGroup,
    Command,
    Drain,
    Rebalance,
    Resplit,
    SetPolicy,
    SetStatus,
    place_of,
    places_of,
)
from fundledger.ledger.model.hold import EndHold, HoldKey, PlaceHold
from fundledger.ledger.model.voucher import Key, Voucher
from fundledger.ledger.rules.buffer import AMOUNT_MAX


class Plan:
    """The rows that a list of commands needs.

    - `places[shard]`: the sub-accounts to lock, as returned by `place_of`
    - `deferred`: accounts that are not locked, because all their lines are credits that may be buffered
    - `to_drain`: accounts whose buffered credits are drained before the first command
    - `exclusive`: True if the lock also has to block transactions that buffer credits
    - `vouchers`, `holds`, `reverses`: keys of module and id; `voucher_ids` are the ids in `vouchers`
    """

    __slots__ = (
        "accounts",
        "deferred",
        "exclusive",
        "holds",
        "places",
        "reverses",
        "to_drain",
        "voucher_ids",
        "vouchers",
    )

    def __init__(
        self,
        commands: Sequence[Command],
        books: Books,
        wide: Mapping[int, int],
        to_drain: AbstractSet[int] = frozenset(),
    ) -> None:
        """Plan the reads of the commands. `wide[number]`: the number of slots to read of this account."""
        self.deferred: dict[int, tuple[Account, int]] = {}
        self.to_drain = set(to_drain)
        self.exclusive = False
        self.places: dict[int, set[int]] = {}
        self.accounts: dict[int, Account] = {}
        self.voucher_ids: list[UUID] = []
        self.vouchers: set[Key] = set()
        self.holds: set[HoldKey] = set()
        self.reverses: set[Key] = set()
        for command in commands:
            if type(command) is Voucher:
                self._add_voucher(command, books.ordinal)
            elif type(command) is AtomicGroup:
                for voucher in command.vouchers:
                    self._add_voucher(voucher, books.ordinal)
            elif type(command) is PlaceHold:
                self._add(
                    command.account,
                    command.account.shard,
                    place_of(command.account, command.account.shard, books.ordinal),
                )
                self.holds.add(command.key)
            elif type(command) is EndHold:
                self._add(command.account, command.account.shard, (command.account.number << 16) + command.slot)
                self.holds.add(command.key)
            elif type(command) is SetStatus:
                self._drain_first(command.account)
                self.exclusive = True
                for shard in command.account.shards(books.layout.shards):
                    for slot in command.account.slots_in(shard):
                        self._add(command.account, shard, (command.account.number << 16) + slot)
            elif type(command) is Resplit or type(command) is Rebalance:
                self._add(command.account, command.account.shard, command.account.number << 16)
            elif type(command) is Drain or type(command) is SetPolicy:
                self._drain_first(command.account)
                self.exclusive = self.exclusive or type(command) is SetPolicy
        self._lock_instead(self.deferred.keys() & (wide.keys() | to_drain))
        for number, slots in wide.items():
            account = self.accounts[number]
            for slot in range(slots):
                self._add(account, account.shard, (number << 16) + slot)
        for number in to_drain:
            self._drain_first(self.accounts[number])
        if self.deferred:
            self._lock_instead(self.deferred.keys() & self.accounts.keys() if books.buffering else set(self.deferred))

    def lock_instead(self, accounts: Iterable[Account]) -> None:
        """Lock these accounts instead of deferring their credits."""
        self._lock_instead({account.number for account in accounts})

    def _lock_instead(self, numbers: AbstractSet[int]) -> None:
        for number in numbers:
            account, place = self.deferred.pop(number)
            self._add(account, account.shard, place)

    def _drain_first(self, account: Account) -> None:
        if not account.type.platform:
            self._add(account, account.shard, account.number << 16)
            self.to_drain.add(account.number)

    def _add_voucher(self, voucher: Voucher, ordinal: int) -> None:
        self.voucher_ids.append(voucher.id)
        self.vouchers.add(voucher.key)
        home = voucher.shard
        for place, (account, amount) in zip(places_of(voucher, ordinal), voucher.lines, strict=True):
            if account.buffered and 0 < amount <= AMOUNT_MAX:
                self.deferred[account.number] = (account, place)
                continue
            self._add(account, home if account.type.platform else account.shard, place)
        if voucher.hold is not None:
            self.holds.add((voucher.module, voucher.hold))
            self.places.setdefault(voucher.hold_shard, set()).add(voucher.hold_place)
        if voucher.reverses is not None:
            self.reverses.add((voucher.module, voucher.reverses))

    def _add(self, account: Account, shard: int, place: int) -> None:
        self.accounts[account.number] = account
        try:
            self.places[shard].add(place)
        except KeyError:
            self.places[shard] = {place}

    def allows_missing(self, shard: int, found: set[int], wide: Mapping[int, int]) -> bool:
        """Return whether the rows that were not found may be missing.

        Only a preferred slot of a merchant's account may be missing, because the cached number of slots may be
        outdated.
        """
        for place in self.places[shard] - found:
            account = self.accounts.get(place >> 16)
            if account is None or account.type.platform or place & 0xFFFF < wide.get(account.number, 1):
                return False
        return True


def rows_max_of(commands: Sequence[Command]) -> int | None:
    """Return the maximum number of rows to read from each buffer, or None for all.

    Only Drain may leave rows in a buffer.
    """
    bounds = [command.rows_max if type(command) is Drain else None for command in commands]
    return None if None in bounds else max(bound for bound in bounds if bound is not None)
