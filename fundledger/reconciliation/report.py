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


class Report(msgspec.Struct):
    """All checks of one snapshot. Sums of a trial balance are signed, credit positive, in minor units."""

    ok: bool
    checks: list[Check]
    vouchers: int
    entries: int
    accounts: int
    trial_balance: dict[str, int]
    elapsed_s: float
