"""Python client of the fund service, part: withdrawals, payees, payout files and their results."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Final, Literal
from urllib.parse import quote
from uuid import UUID

import msgspec

from fundledger.client.batches import in_batches
from fundledger.client.connection import decoder, found, refusal_of
from fundledger.client.faults import ContractBroken
from fundledger.client.fund_orders import FundOrders
from fundledger.client.fund_registry import Change
from fundledger.client.fund_types import PATHS, Order, PaymentResult
from fundledger.client.pages import Pages

FileFormat = Literal["csv", "pain.001"]
ResultFormat = Literal["csv", "pain.002"]


class Payee(msgspec.Struct, frozen=True, kw_only=True):
    """A payee of a merchant. `number`: the IBAN or the account number, of which lists show only the last characters.
    Withdrawals to the payee are refused before `usable_from`.
    """

    id: UUID
    merchant: str
    holder: str
    number: str
    iban: str | None = None
    account: str | None = None
    bank_code: str | None = None
    currency: str
    state: str
    registered_by: str
    created_at: datetime
    usable_from: datetime
    disabled_at: datetime | None = None
    disabled_by: str | None = None
    disabled_why: str | None = None
    replaces: UUID | None = None


class Withdrawal(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A withdrawal of a merchant: of `amount`, or of `all` that can be withdrawn. `payee`: required if the merchant has
    a payee.
    """

    merchant: str
    order_no: str
    amount: int | None
    channel: str
    payee: UUID | None = None
    ticket: str | None = None
    all: bool = False


class PayoutFile(msgspec.Struct, frozen=True, kw_only=True):
    """A payout file. `total`: the sum of its payouts in minor units. `sha256`: the digest of its content. `unnamed`:
    the number of due withdrawals that are in no file, because they have no payee; None if the file was only read.
    """

    channel: str
    file_no: int
    currency: str
    format: str
    lines: int
    total: int
    sha256: str
    message_id: str
    created_by: str
    created_at: datetime
    unnamed: int | None = None
    replay: bool = False


class PayoutResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a line of imported results. `recorded`: the withdrawal ends as `state`."""

    line: int
    ref: str
    state: str
    outcome: str
    amount: int | None = None
    order: UUID | None = None


class PayoutResults(msgspec.Struct, frozen=True, kw_only=True):
    """The report of an import. `counts`: the number of lines by outcome."""

    channel: str
    file_no: int
    counts: dict[str, int]
    lines: list[PayoutResult]
    replay: bool = False


class _Results(msgspec.Struct):
    results: list[PaymentResult]


_encode = msgspec.json.Encoder().encode
_results = decoder(_Results)
_change = decoder(Change)
_payee = decoder(Payee)
_file = decoder(PayoutFile)
_report = decoder(PayoutResults)
_payees: Final = Pages(list[Payee], "payees")
_files: Final = Pages(list[PayoutFile], "files")


class FundPayouts(FundOrders):
    """The requests about withdrawals and payouts. `FundService` has the other requests."""

    async def withdraw(
        self,
        merchant: str,
        order_no: str,
        amount: int | Literal["all"],
        channel: str,
        ticket: str | None = None,
        payee: UUID | None = None,
    ) -> Order:
        """Withdraw an amount of a merchant. `all`: what remains of the available balance after the debt and the fee. In
        the state `posted` the money is reserved. The last state is `paid` or `bounced`. `payee`: required if the
        merchant has a payee.
        """
        asked = {"all": True} if amount == "all" else {"amount": amount}
        members = {**asked, "channel": channel, "ticket": ticket, "payee": payee}
        return await self._order("withdrawal", merchant=merchant, order_no=order_no, **members)

    async def withdraw_many(self, withdrawals: Sequence[Withdrawal]) -> list[PaymentResult]:
        """Post withdrawals and return their results: `results[i]` answers `withdrawals[i]`. A refusal is a result, not
        an exception. More than 5,000 withdrawals are sent in several requests. After a fault, all may be sent again.
        """
        return await in_batches(withdrawals, lambda batch: _encode({"withdrawals": batch}), self._withdraw_batch)

    async def _withdraw_batch(self, withdrawals: Sequence[Withdrawal], body: bytes) -> list[PaymentResult]:
        results = _results(await self._to.ask("POST", f"{PATHS['withdrawal']}/batch", body)).results
        if [result.order_no for result in results] != [one.order_no for one in withdrawals]:
            raise ContractBroken("the order numbers of the results differ from those of the withdrawals")
        return results

    async def create_payee(
        self,
        merchant: str,
        holder: str,
        currency: str,
        *,
        iban: str | None = None,
        account: str | None = None,
        bank_code: str | None = None,
        replaces: UUID | None = None,
        why: str | None = None,
    ) -> Change:
        """Request a new payee: an IBAN, or an account number with its bank code. The payee has the id of the change,
        and exists after another identity has approved it. Raises Refused with `payee-exists` or `change-waiting`.
        """
        number = {"iban": iban, "account": account, "bank_code": bank_code}
        members = {"holder": holder, "currency": currency, **number, "replaces": replaces, "why": why}
        return _change(await self._post(f"{_of(merchant)}/payees", **members))

    def payees(self, merchant: str, limit: int = 500) -> AsyncIterator[Payee]:
        """Yield the payees of a merchant from all pages, also disabled ones. `limit`: payees per page."""
        return _payees.read(self._to, f"{_of(merchant)}/payees", {"limit": str(limit)})

    async def payee(self, merchant: str, id_: UUID) -> Payee | None:
        """Return a payee with its whole account number, or None if the merchant has no such payee."""
        return found(await self._to.ask("GET", f"{_of(merchant)}/payees/{id_}"), _payee)

    async def disable_payee(self, merchant: str, id_: UUID, reason: str | None = None) -> Payee:
        """Disable a payee permanently, which takes effect immediately. Raises Refused with `not-found`."""
        return _payee(await self._post(f"{_of(merchant)}/payees/{id_}/disable", reason=reason))

    async def export_payouts(
        self,
        channel: str,
        currency: str,
        format_: FileFormat = "csv",
        *,
        limit: int | None = None,
        file_no: int | None = None,
        debtor: dict[str, str] | None = None,
        execution_date: str | None = None,
    ) -> PayoutFile:
        """Make a payout file of due withdrawals. With `file_no`, a repeated call returns the same file. `debtor`: the
        account that pays, for `pain.001`. Raises Refused with `nothing-to-export` or `channel-underfunded`.
        """
        more = {"limit": limit, "file_no": file_no, "debtor": debtor, "execution_date": execution_date}
        answer = await self._post(f"{_files_of(channel)}", currency=currency, format=format_, **more)
        file = _file(answer)
        return msgspec.structs.replace(file, replay=True) if answer.is_replay else file

    def payout_files(self, channel: str, limit: int = 500) -> AsyncIterator[PayoutFile]:
        """Yield the payout files of a channel from all pages, by number. `limit`: files per page."""
        return _files.read(self._to, _files_of(channel), {"limit": str(limit)})

    async def payout_file(self, channel: str, file_no: int) -> PayoutFile | None:
        return found(await self._to.ask("GET", f"{_files_of(channel)}/{file_no}"), _file)

    async def payout_file_content(self, channel: str, file_no: int) -> bytes:
        """Return the content of a payout file, the same bytes each time. Raises Refused with `not-found`."""
        answer = await self._to.ask("GET", f"{_files_of(channel)}/{file_no}/content")
        if answer.status != 200:
            raise refusal_of(answer)
        return answer.body

    async def import_payout_results(
        self, channel: str, file_no: int, format_: ResultFormat, content: str
    ) -> PayoutResults:
        """Import the results of a payout file. Each result that is `recorded` ends its withdrawal. The same content is
        imported once. Raises Refused with `payout-results-other`, `not-found` or `malformed`.
        """
        path = f"/v1/channels/{quote(channel, safe='')}/payout-results"
        answer = await self._post(path, file_no=file_no, format=format_, content=content)
        report = _report(answer)
        return msgspec.structs.replace(report, replay=True) if answer.is_replay else report


def _of(merchant: str) -> str:
    return f"/v1/merchants/{quote(merchant, safe='')}"


def _files_of(channel: str) -> str:
    return f"/v1/channels/{quote(channel, safe='')}/payout-files"
