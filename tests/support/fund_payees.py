"""Payees of merchants in a fund database, registered by two identities, and channels with payout files."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from stdnum import iban as ibans

from fundledger.fund.jobs.payout_funds import PayoutFunds
from fundledger.fund.model import accounts
from fundledger.fund.model.change import Change, ChangeKind
from fundledger.fund.model.channel import Channel
from fundledger.fund.model.payee import PayeeRequest
from fundledger.fund.payout_files.export import PayoutFiles
from fundledger.fund.payout_files.results import PayoutResults
from fundledger.fund.store.changes import Changes
from fundledger.fund.store.payees import Payees
from tests.support.fund_ids import IDS
from tests.support.fund_worker import CHECKER, MODULE, FundWorker


def iban(number: int = 0) -> str:
    """Return a valid IBAN, another one for each number."""
    bban = f"37040044{number:010}"
    return f"DE{ibans.calc_check_digits(f'DE00{bban}')}{bban}"


class FileChannels:
    """A registry in which each channel is paid out by files."""

    names: tuple[str, ...] = ()

    def __init__(self, overdraft: int | None = None, payout: str = "file") -> None:
        self.overdraft = overdraft
        self.payout = payout

    def known(self, name: str, currency: str) -> Channel:
        account = accounts.bank(name, currency)
        terms: Any = self.payout, False, self.overdraft, "open", "tests"
        return Channel(name, currency, account, *terms, datetime.now(UTC))

    async def get(self, name: str, currency: str) -> Channel:
        return self.known(name, currency)

    async def look(self) -> None:
        """Read nothing: each channel is registered."""


def payees_of(worker: FundWorker, cooling_h: float = 0.0) -> Payees:
    return Payees(worker.pool, worker.macs, IDS, timedelta(hours=cooling_h), worker.now)


def changes_of(worker: FundWorker, payees: Payees) -> Changes:
    return Changes(worker.pool, worker.macs, {ChangeKind.PAYEE: payees.apply}, worker.now)


async def a_payee(worker: FundWorker, merchant: str, number: int = 0, cooling_h: float = 0.0, **more: Any) -> UUID:
    """Register a payee and return its id."""
    payees = payees_of(worker, cooling_h)
    changes = changes_of(worker, payees)
    members = {"holder": f"Holder {number}", "currency": "CNY", **more}
    if "account" not in members:
        members["iban"] = iban(number)
    request = PayeeRequest(**members)
    made = await changes.request(ChangeKind.PAYEE, payees.subject(merchant, request), request, MODULE)
    assert isinstance(made, Change), made
    applied = await changes.approve(made.id, CHECKER)
    assert isinstance(applied, Change), applied
    return made.id


def files_of(worker: FundWorker, channels: FileChannels | None = None) -> PayoutFiles:
    registry = channels or FileChannels()
    funds = PayoutFunds(worker.pool, worker.gateway, registry)
    return PayoutFiles(worker.pool, worker.macs, worker.batcher, registry, funds)


def results_of(worker: FundWorker, wait_s: float = 30.0) -> PayoutResults:
    return PayoutResults(worker.pool, worker.macs, worker.batcher, wait_s)
