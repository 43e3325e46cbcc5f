"""The proof of a fund service that shares its account service with those of other tests."""

from fundledger.reconciliation.checks import _names
from fundledger.reconciliation.fund.checks import check_fund
from fundledger.reconciliation.reading import connected, snapshot
from fundledger.reconciliation.report import Fund

FOREIGN = "an order of the fund service that posts it"


async def prove_fund(fund_dsn: str, account_dsn: str, salt: str) -> Fund:
    """Fails the test that calls it unless its orders are right in every respect. Vouchers that are no order's count only
    where `salt` is in the name of one of their accounts: the others are other tests'.
    """
    async with snapshot(fund_dsn) as fund, snapshot(account_dsn) as account, connected(fund_dsn) as later:
        checks, totals = await check_fund(fund, later, account, _names(account), lambda *_: None)
    told = [
        f"{check.name}: {finding.subject}: expected {finding.expected}, found {finding.actual}"
        for check in checks
        for finding in check.findings
        if finding.expected != FOREIGN or salt in finding.actual
    ]
    assert told == []
    return totals
