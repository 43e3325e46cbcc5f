"""A model of the ledger in a few dictionaries: the expected outcome of each command."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asyncpg.pgproto.pgproto import UUID

from fundledger.ledger.model.account import Status
from fundledger.ledger.model.chart import CHART
from fundledger.ledger.model.refusal import FINAL

Said = tuple[str, bool]
"""A code or `posted`, and whether the answer is a replay."""


@dataclass(frozen=True)
class Asked:
    """A voucher as it was requested. Amounts are signed; a credit is positive."""

    id: UUID
    lines: tuple[tuple[str, int], ...]
    type: str = "pay"
    reference: str | None = None
    hold: str | None = None
    reverses: UUID | None = None
    unknown: str | None = None

    def content(self) -> tuple[object, ...]:
        return (self.lines, self.type, self.reference, self.hold, self.reverses, self.unknown)


@dataclass
class ModelAccount:
    type: str
    currency: str = "CNY"
    posted: int = 0
    held: int = 0
    status: Status = Status.OPEN

    @property
    def available(self) -> int:
        """Return the available amount in the account's normal direction; `posted` is signed."""
        return CHART[self.type].normal * self.posted - self.held


@dataclass
class ModelHold:
    account: str
    amount: int
    expires_at_us: int
    status: str
    refusal: str | None = None
    captured: int = 0


@dataclass
class Model:
    accounts: dict[str, ModelAccount] = field(default_factory=dict)
    vouchers: dict[UUID, tuple[Asked, str]] = field(default_factory=dict)
    holds: dict[str, ModelHold] = field(default_factory=dict)
    reversed: set[UUID] = field(default_factory=set)

    def post(self, asked: Asked, now_us: int) -> Said:
        seen = self.vouchers.get(asked.id)
        if seen is not None:
            return (seen[1], True) if seen[0].content() == asked.content() else ("voucher-id-reused", False)
        code = self._why_not(asked, now_us)
        if code is None or code in {str(final) for final in FINAL}:
            self.vouchers[asked.id] = (asked, code or "posted")
        if code is None:
            self._apply(asked)
        return code or "posted", False

    def _why_not(self, asked: Asked, now_us: int) -> str | None:
        if sum(amount for _, amount in asked.lines) != 0:
            return "voucher-unbalanced"
        if asked.unknown is not None:
            return "account-not-found"
        for name, amount in asked.lines:
            code = self._closed_to(name, amount)
            if code is not None:
                return code
        hold = self.holds[asked.hold] if asked.hold is not None else None
        if hold is not None and self._ended(hold, now_us) is not None:
            return self._ended(hold, now_us)
        if asked.reverses in self.reversed:
            return "voucher-already-reversed"
        if len({self.accounts[name].currency for name, _ in asked.lines}) > 1:
            return "currency-mismatch"
        net: dict[str, int] = {}
        for name, amount in asked.lines:
            net[name] = net.get(name, 0) + CHART[self.accounts[name].type].normal * amount
        if hold is not None and not 0 < -net.get(hold.account, 0) <= hold.amount:
            return "hold-exceeded"
        for name, change in net.items():
            account = self.accounts[name]
            freed = hold.amount if hold is not None and hold.account == name else 0
            if CHART[account.type].bounded and change < 0 and account.available + freed + change < 0:
                return "insufficient-funds"
        return None

    def _closed_to(self, name: str, amount: int) -> str | None:
        status = self.accounts[name].status
        if status == Status.CLOSED:
            return "account-closed"
        frozen = status == Status.FROZEN_ALL or (status == Status.FROZEN_DEBITS and amount < 0)
        return "account-frozen" if frozen else None

    def _ended(self, hold: ModelHold, now_us: int) -> str | None:
        if hold.status == "open":
            return "hold-expired" if 0 < hold.expires_at_us <= now_us else None
        return f"hold-{hold.status}"

    def _apply(self, asked: Asked) -> None:
        for name, amount in asked.lines:
            self.accounts[name].posted += amount
        if asked.reverses is not None:
            self.reversed.add(asked.reverses)
        if asked.hold is not None:
            hold = self.holds[asked.hold]
            normal = CHART[self.accounts[hold.account].type].normal
            hold.captured = -normal * sum(amount for name, amount in asked.lines if name == hold.account)
            self._free(hold, "captured")

    def _free(self, hold: ModelHold, status: str) -> None:
        hold.status = status
        self.accounts[hold.account].held -= hold.amount

    def post_all_or_none(self, group: Sequence[Asked], now_us: int) -> list[Said]:
        before = copy.deepcopy((self.accounts, self.vouchers))
        said: list[Said] = []
        for asked in group:
            said.append(self.post(asked, now_us))
            if said[-1][0] != "posted":
                break
        else:
            return said
        culprit = len(said) - 1
        final = self.vouchers.get(group[culprit].id)
        new = group[culprit].id not in before[1]
        self.accounts, self.vouchers = before
        if new and final is not None and final[1] != "posted":
            self.vouchers[group[culprit].id] = final
        answers: list[Said] = []
        for i, asked in enumerate(group):
            stands = self.vouchers.get(asked.id)
            if i == culprit:
                answers.append(said[culprit])
            elif stands is not None and stands[0].content() == asked.content():
                answers.append((stands[1], True))
            else:
                answers.append(("batch-aborted", False))
        return answers

    def place_hold(self, id_: str, name: str, amount: int, expires_at_us: int, now_us: int) -> Said:
        seen = self.holds.get(id_)
        if seen is not None:
            same = (seen.account, seen.amount, seen.expires_at_us) == (name, amount, expires_at_us)
            return (seen.refusal or "placed", True) if same else ("hold-id-reused", False)
        if 0 < expires_at_us <= now_us:
            return "hold-expiry-past", False
        account = self.accounts[name]
        refusal = self._closed_to(name, -amount)
        if refusal is None and CHART[account.type].platform:
            return "hold-on-platform-account", False
        if refusal is None and account.available < amount:
            refusal = "insufficient-funds"
        self.holds[id_] = ModelHold(name, amount, expires_at_us, "open" if refusal is None else "refused", refusal)
        if refusal is None:
            account.held += amount
        return refusal or "placed", False

    def release(self, id_: str, now_us: int) -> Said:
        hold = self.holds[id_]
        if hold.status == "released":
            return "ended", True
        ended = self._ended(hold, now_us)
        if ended is not None:
            return ended, False
        self._free(hold, "released")
        return "ended", False

    def expire(self, id_: str, now_us: int) -> None:
        hold = self.holds[id_]
        if hold.status == "open" and 0 < hold.expires_at_us <= now_us:
            self._free(hold, "expired")

    def set_status(self, name: str, status: Status) -> Said:
        account = self.accounts[name]
        if account.status == Status.CLOSED:
            return ("changed", True) if status == Status.CLOSED else ("account-closed", False)
        if status == Status.CLOSED and (account.posted or account.held):
            return "account-not-empty", False
        unchanged = account.status == status
        account.status = status
        return "changed", unchanged

    def balances(self) -> dict[str, tuple[Any, ...]]:
        """Return `(posted in the normal direction, held, status)` of each account."""
        return {name: (CHART[a.type].normal * a.posted, a.held, int(a.status)) for name, a in self.accounts.items()}
