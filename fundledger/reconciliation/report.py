"""What a verification says: per check, whether it holds and where it does not."""

import msgspec

FINDINGS_MAX = 100


class Finding(msgspec.Struct):
    """A difference: what it concerns, and what was expected and found there."""

    subject: str
    expected: str
    actual: str


class Check(msgspec.Struct):
    """One statement about the books. `rows` were looked at; at most 100 findings are kept, `found` counts all."""

    name: str
    ok: bool = True
    rows: int = 0
    found: int = 0
    findings: list[Finding] = []

    def differs(self, subject: str, expected: object, actual: object) -> None:
        self.ok = False
        self.found += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(subject, str(expected), str(actual)))


class Total(msgspec.Struct):
    """Orders of one kind beside their vouchers in the ledger. `in_flight` and `refused` orders are among `orders`.

    `amount` is what the vouchers of those that are posted must move, `moved` what the `vouchers` move: minor units, the
    sum of debits. Without orders in flight, or posted while it was read, they are the same.
    """

    orders: int = 0
    amount: int = 0
    in_flight: int = 0
    refused: int = 0
    vouchers: int = 0
    moved: int = 0


class Fund(msgspec.Struct):
    """The orders of the fund service. Kinds of another currency than the home one have it in their name, as accounts
    have; the ends of withdrawals are counted by the types of their vouchers.
    """

    orders: int = 0
    by_kind: dict[str, Total] = {}


class Report(msgspec.Struct, omit_defaults=True):
    """All checks of one snapshot. Sums of a trial balance are signed, credit positive, in minor units. `fund` is left
    out where there is no fund service.
    """

    ok: bool
    checks: list[Check]
    vouchers: int
    entries: int
    accounts: int
    trial_balance: dict[str, int]
    elapsed_s: float
    fund: Fund | None = None
