"""The proof of a fund service whose account service is shared with other tests."""

import sys
from unittest.mock import patch

from fundledger.reconciliation import report
from fundledger.reconciliation.fund.checks import CALENDAR
from fundledger.reconciliation.fund.checks import prove_fund as prove
from fundledger.reconciliation.proof import Proof
from fundledger.reconciliation.reading import Connection, account_names, connected, snapshot
from fundledger.reconciliation.report import Check, Fund
from tests.support.fund_ids import KEYS

FOREIGN = "an order of the fund service that posts it"


async def check_fund(fund: Connection, later: Connection, account: Connection) -> tuple[list[Check], Fund]:
    """Run only the checks of the fund service. `fund` and `account` are in transactions, `later` is not."""
    proof = Proof()
    await prove(proof, fund, later, account, account_names(account), KEYS)
    assert proof.report.fund is not None
    return proof.report.checks, proof.report.fund


async def check_shared(fund_dsn: str, account_dsn: str, salt: str) -> tuple[list[Check], Fund]:
    """Run the checks of the fund service, without the findings of other tests.

    A voucher without an order is a finding only if one of its accounts has `salt` in its name. Otherwise it belongs to
    another test. The number of findings is not limited, so that findings of other tests cannot displace any.
    """
    async with snapshot(fund_dsn) as fund, snapshot(account_dsn) as account, connected(fund_dsn) as later:
        with patch.object(report, "FINDINGS_MAX", sys.maxsize):
            checks, totals = await check_fund(fund, later, account)
    for check in checks:
        check.findings = [found for found in check.findings if found.expected != FOREIGN or salt in found.actual]
    return checks, totals


async def prove_fund(fund_dsn: str, account_dsn: str, salt: str, *, same_days: bool = True) -> Fund:
    """Fail the calling test unless all orders verify. Findings of other tests are ignored, by `salt`. `same_days`: the
    account service, whose days are in UTC, has the calendar of the fund database.
    """
    checks, totals = await check_shared(fund_dsn, account_dsn, salt)
    for check in checks:
        if check.name == CALENDAR and not same_days:
            check.findings = [found for found in check.findings if not found.subject.startswith("voucher ")]
    told = [
        f"{check.name}: {finding.subject}: expected {finding.expected}, found {finding.actual}"
        for check in checks
        for finding in check.findings
    ]
    assert told == [], told
    assert [check.error for check in checks if check.error] == []
    return totals
