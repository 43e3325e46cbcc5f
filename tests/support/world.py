"""Input of `rules.decide` without a database; its clock is fixed."""

from collections.abc import Sequence
from datetime import date

from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.account import Account, Status, SubAccount
from fundledger.ledger.model.batch import Batch, Command, Outcome
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.hold import Hold, HoldStatus, PlaceHold
from fundledger.ledger.model.refusal import Refusal
from fundledger.ledger.model.voucher import Record, Voucher
from fundledger.ledger.rules.decide import decide
from fundledger.security.canonical import GENESIS
from fundledger.security.mac import MacKey

NOW_US = 1_767_225_600_000_000
KEY = MacKey(1, bytes(range(32)))


class World:
    """A batch that has read all sub-accounts of its accounts, and the accounts by id."""

    def __init__(self) -> None:
        self.batch = Batch(7, 0, KEY, NOW_US, date(2026, 1, 1))
        self.accounts: dict[str, Account] = {}

    def account(
        self,
        id_: str,
        type_: str = "merchant_available",
        *,
        posted: int = 0,
        held: int = 0,
        status: Status = Status.OPEN,
        currency: str = "CNY",
    ) -> Account:
        """Add an account; `posted` is in its normal direction."""
        kind = CHART[type_]
        account = Account(len(self.accounts) + 1, id_, 0, 1, currency, kind)
        self.accounts[id_] = account
        self.batch.sub_accounts[account.number << 16] = SubAccount(
            account, 0, 0, posted * kind.normal, held, 3, 5, NOW_US - 1, status, GENESIS
        )
        return account

    def split(
        self,
        id_: str,
        slots: Sequence[tuple[int, int, Status]],
        type_: str = "merchant_available",
        *,
        known_slots: int | None = None,
        buffered: bool = False,
    ) -> Account:
        """Add a merchant's account with several slots.

        Each slot is `(posted in the normal direction, held, status)`. `known_slots`: the number of slots in the cache
        of the worker.
        """
        kind = CHART[type_]
        number = len(self.accounts) + 1
        account = Account(number, id_, 0, known_slots or len(slots), "CNY", kind, buffered)
        self.accounts[id_] = account
        for slot, (posted, held, status) in enumerate(slots):
            self.batch.sub_accounts[(number << 16) + slot] = SubAccount(
                account,
                0,
                slot,
                posted * kind.normal,
                held,
                3,
                5,
                NOW_US - 1,
                status,
                GENESIS,
                slots=len(slots) if slot == 0 else 1,
                buffered=buffered and slot == 0,
            )
        return account

    def slots(self, account: Account) -> list[SubAccount]:
        """Return the existing slots, in order."""
        return [s for _, s in sorted(self.batch.sub_accounts.items()) if s.account.number == account.number]

    def sub(self, account: Account, slot: int = 0) -> SubAccount:
        return self.batch.sub_accounts[(account.number << 16) + slot]

    def hold(
        self,
        id_: str,
        account: Account,
        amount: int,
        status: HoldStatus = HoldStatus.OPEN,
        expires_at_us: int = 0,
        refusal: Refusal | None = None,
        slot: int = 0,
    ) -> Hold:
        """Add a hold; an open hold counts as held on its slot."""
        digest = PlaceHold(id_, account, amount, expires_at_us, "dev").digest
        ended = 0 if status == HoldStatus.OPEN else NOW_US - 1
        hold = Hold(
            id_, account, slot, amount, 0, status, digest, None, refusal, NOW_US - 2, expires_at_us, ended, "dev"
        )
        self.batch.holds[hold.key] = hold
        if status == HoldStatus.OPEN:
            self.sub(account, slot).held += amount
        return hold

    def record(self, voucher: Voucher, refusal: Refusal | None = None, batch: int = 1) -> Record:
        """Record that the voucher was decided before."""
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
            NOW_US - 1,
            date(2026, 1, 1),
            batch,
            voucher.module,
        )
        self.batch.vouchers[voucher.key] = record
        return record

    def decide(self, *commands: Command) -> list[Outcome]:
        return decide(self.batch, commands)

    def balances(self) -> dict[str, tuple[object, ...]]:
        """Return all values of each sub-account that a command may change."""
        return {
            s.account.id: (s.posted, s.held, s.seq, s.status, s.last_entry_mac, s.written)
            for s in self.batch.sub_accounts.values()
        }

    def available(self, account: Account) -> int:
        return self.sub(account).available

    def new_ids(self) -> list[UUID]:
        """Return the ids of the vouchers that this batch will record."""
        return [record.id for _, record in self.batch.new_vouchers]
