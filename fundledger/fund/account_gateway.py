"""Account gateway of the fund service: the client of the account service, and the only code of the fund service that
moves money.

Each request to post has a voucher id, so a retry is safe and returns the true outcome.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, time
from typing import Final, TypeVar
from uuid import UUID

import msgspec

from fundledger.client.account_service import AccountService
from fundledger.client.faults import Fault, OutcomeUnknown, Problem
from fundledger.client.faults import Refused as NotDone
from fundledger.client.types import Account, Entry, StatementEntry, Voucher, VoucherRecord
from fundledger.fund.jobs.stuck import problem
from fundledger.fund.model import accounts, flows
from fundledger.fund.model.accounts import AccountName
from fundledger.fund.model.days import cut_of
from fundledger.fund.model.flows import Ending
from fundledger.fund.model.order import PLATFORM, REFUNDS, Kind, Order, has_end, voucher_id
from fundledger.fund.model.posting_result import PostingResult
from fundledger.fund.store.reported import Reported

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
FINAL: Final = frozenset(
    {"account-closed", "account-frozen", "balance-out-of-range", "insufficient-funds", "voucher-already-reversed"}
)
"""Refusals that the account service records permanently under a voucher id. Any other problem proves nothing about the
voucher: it may have been posted before, or a request that is still in transit may post it later.
"""
UNRECORDED: Final = frozenset({"account-frozen"})
"""Refusals that are not always final. If the cause is a row that does not match its MAC, the account service does not
record the refusal under the voucher id. In that case the voucher may have been posted before.
"""
NO_FLOW: Final = (AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""Exceptions of a flow that cannot make a voucher from an order. The cause is a defect. The order becomes stuck; other
orders of the batch are posted.
"""
_FAULT_FROM: Final = 500
T = TypeVar("T")
REFERENCE = "fund:"
"""Prefix of a voucher's reference, for each voucher that the fund service posts. The order id follows the prefix."""


class GatewayFault(Exception):
    """The account service does not answer, or the outcome of a request is unknown. A retry with the same vouchers
    returns the outcome.

    `is_answer`: the account service answered `outcome-unknown`. A single voucher may be the cause, so a retry in
    smaller batches may succeed.
    """

    def __init__(self, detail: str, *, is_answer: bool = False) -> None:
        super().__init__(detail)
        self.is_answer = is_answer


class Differs(GatewayFault):
    """An existing account has the requested id but another content, so another client opened it. `owner`: the requested
    owner.
    """

    def __init__(self, detail: str, owner: str) -> None:
        super().__init__(detail)
        self.owner = owner


class Unverified(GatewayFault):
    """The account service does not return the requested voucher or balances, because a row does not match its MAC."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, is_answer=True)


class BadCursor(Exception):
    """The account service did not issue this cursor of a statement, or issued it for another period."""


def voucher_of(order: Order) -> Voucher:
    """Return the voucher that posts an order. Every call for the same order returns an equal voucher."""
    entries = [Entry(*entry) for entry in flows.entries_of(order)]
    type_ = flows.voucher_type(order)
    return Voucher(order.voucher_id, type_, entries, reference_of(order), metadata_of(order), order.ticket)


def end_voucher_of(order: Order, ending: Ending) -> Voucher:
    """Return the voucher that ends an order."""
    entries = [Entry(*entry) for entry in flows.end_entries_of(order, ending)]
    type_ = flows.end_voucher_type(order.kind, ending)
    id_ = order.end_voucher_id or voucher_id(order.id, "end", order.attempt)
    return Voucher(id_, type_, entries, reference_of(order), metadata_of(order))


def no_voucher(error: Exception) -> bytes:
    """Return the problem (JSON) of an order from which no voucher can be made."""
    return problem("order-has-no-voucher", "No voucher can be made from the order", repr(error))


def reference_of(order: Order) -> str:
    """Return the reference of the vouchers of an order."""
    return f"{REFERENCE}{order.id}"


def metadata_of(order: Order) -> dict[str, str] | None:
    """Return the metadata of an order's vouchers, or None in voucher format 1. The metadata appears in statements of
    accounts.
    """
    return {"kind": str(order.kind), "order_no": order.order_no} if order.voucher_format > 1 else None


class AccountGateway:
    """The gateway to one account service. `is_away`: the last request to post got no definite answer."""

    def __init__(self, service: AccountService) -> None:
        self._service = service
        self._opened: set[tuple[str, str]] = set()
        self._there: set[str] = set()
        self._reported = Reported()
        self.is_away = False

    async def post(self, orders: Sequence[Order]) -> list[PostingResult | None]:
        """Post the voucher of each order. Return one result for each order, in the same sequence: None if the outcome
        is unknown.

        Raises GatewayFault if not a single outcome is known. After a cancellation all outcomes are unknown.
        """
        await self._open_refunds(orders)
        results: list[PostingResult | None] = [None] * len(orders)
        vouchers: dict[int, Voucher] = {}
        for i, order in enumerate(orders):
            if order.kind is not Kind.REVERSAL:
                try:
                    vouchers[i] = voucher_of(order)
                except NO_FLOW as error:
                    results[i] = PostingResult(problem=no_voucher(error), stuck=True)
        if vouchers:
            posted = await self.post_vouchers(list(vouchers.values()))
            for i, result in zip(vouchers, posted, strict=True):
                results[i] = result
        away: GatewayFault | None = None
        for i, order in enumerate(orders):
            if order.kind is Kind.REVERSAL:
                try:
                    results[i] = await self._reverse(order)
                except GatewayFault as fault:
                    # Continue, and return the known outcomes: one order must not delay the others.
                    away = fault
        if away is not None and not any(results):
            raise away
        return results

    async def post_vouchers(self, vouchers: Sequence[Voucher]) -> list[PostingResult | None]:
        """Post vouchers. Return one result for each voucher, in the same sequence: None if the outcome is unknown.
        Raises GatewayFault.
        """
        try:
            results = await self._answered(self._service.post_vouchers(vouchers))
        except NotDone as no:
            # The account service rejected the whole batch, which only a bug of the fund service causes. The batch is
            # split, because one bad voucher must not block the others.
            if len(vouchers) > 1:
                half = len(vouchers) // 2
                return [*await self.post_vouchers(vouchers[:half]), *await self.post_vouchers(vouchers[half:])]
            return [PostingResult(problem=_kept(no.problem), stuck=True)]
        refused = [result for result in results if result.status != "posted"]
        answers = await asyncio.gather(*(self._refused(result.id, result.problem) for result in refused))
        of = dict(zip((result.id for result in refused), answers, strict=True))
        return [
            PostingResult(at=result.posted_at) if result.status == "posted" else of[result.id] for result in results
        ]

    async def _answered(self, request: Awaitable[T]) -> T:
        """Return the answer to a request that posts. Raises NotDone if the request was refused, GatewayFault after a
        fault.
        """
        try:
            answer = await request
        except Fault as fault:
            self.is_away = True
            raise _fault_of(fault) from None
        except NotDone:
            self.is_away = False
            raise
        self.is_away = False
        return answer

    async def _refused(self, id_: UUID, problem: Problem | None) -> PostingResult | None:
        """Return the result of a voucher that got a problem, or None if the outcome is unknown."""
        if problem is None or problem.status >= _FAULT_FROM:
            return None
        final = problem.code in FINAL
        if problem.code in UNRECORDED:
            try:
                record = await self._record(id_)
            except Unverified:
                record = None
            except GatewayFault:
                return None
            final = record is not None and record.status == "refused"
        return PostingResult(problem=_kept(problem), stuck=not final)

    async def _record(self, id_: UUID) -> VoucherRecord | None:
        """Return the record of a voucher, or None if the id has none. Raises Unverified if a retry cannot succeed,
        GatewayFault.
        """
        try:
            return await self._service.voucher(id_)
        except Fault as fault:
            raise _fault_of(fault) from None
        except NotDone as no:
            raise Unverified(str(no)) from None

    async def _reverse(self, order: Order) -> PostingResult | None:
        assert order.of_order is not None
        reversed_ = order.of_voucher or voucher_id(order.of_order)
        says = (None, None) if order.voucher_format == 1 else (reference_of(order), metadata_of(order))
        try:
            posted = await self._answered(self._service.reverse_voucher(reversed_, order.voucher_id, *says))
        except NotDone as no:
            return await self._refused(order.voucher_id, no.problem)
        return PostingResult(at=posted.posted_at)

    async def contradiction(self, order: Order) -> str | None:
        """Compare the voucher in the ledger with its order. Return the difference, or None if the voucher is posted as
        the order requires. A voucher that does not match its MAC counts as a difference, because a retry cannot
        succeed. Raises GatewayFault.
        """
        try:
            record = await self._record(order.voucher_id)
        except Unverified as unread:
            return f"voucher {order.voucher_id} cannot be read: {unread}"
        if record is None or record.status != "posted":
            return f"voucher {order.voucher_id} is not posted"
        try:
            expected = voucher_of(order)
        except NO_FLOW as error:
            return f"the order has no flow: {error!r}"
        wanted = expected.type, expected.reference, _credited(expected.entries)
        found = record.type, record.reference, _credited(record.entries)
        return None if wanted == found else f"the order requires {wanted}, voucher {record.id} has {found}"

    async def is_posted(self, order: Order) -> bool | None:
        """Return whether the voucher of an order is posted, or None if a row of the voucher does not match its MAC.
        Raises GatewayFault.
        """
        try:
            record = await self._record(order.voucher_id)
        except Unverified:
            return None
        return record is not None and record.status == "posted"

    async def calendar(self) -> tuple[str, time]:
        """Return the time zone and the cut of the accounting dates of the account service. Raises GatewayFault."""
        try:
            found = await self._service.calendar()
            return found.timezone, cut_of(found.cut)
        except Fault as fault:
            raise _fault_of(fault) from None
        except (NotDone, ValueError) as no:
            raise GatewayFault(f"the account service reports no calendar: {no}") from None

    async def close_account(self, id_: str, reason: str) -> None:
        """Close an account. Raises GatewayFault, with `is_answer` if the account has money."""
        try:
            await self._service.close_account(id_, reason)
        except Fault as fault:
            raise _fault_of(fault) from None
        except NotDone as no:
            raise GatewayFault(f"{id_} cannot be closed: {no.problem.detail}", is_answer=True) from None

    async def balances(self, ids: Sequence[str]) -> Mapping[str, Account]:
        """Return the accounts among `ids` that exist, by id, with their current balances. Raises GatewayFault,
        Unverified.
        """
        try:
            found = await asyncio.gather(*(self._service.account(id_) for id_ in ids))
        except Fault as fault:
            raise _fault_of(fault) from None
        except NotDone as no:
            raise Unverified(no.problem.detail) from None
        return {account.id: account for account in found if account is not None}

    async def left_for_payouts(self, channel: str, currency: str) -> int:
        """Return the balance of a channel's bank account, less the withdrawals and refunds that are not paid out yet.
        Raises GatewayFault, Unverified.
        """
        bank = accounts.bank(channel, currency)
        transit = [accounts.payout_transit(channel, currency), accounts.refund_transit(channel, currency)]
        # A payout that ends between these two reads is in both, and never in neither.
        found = {**await self.balances(transit), **await self.balances([bank])}
        posted = {id_: account.balance.posted for id_, account in found.items()}
        return posted.get(bank, 0) - sum(posted.get(id_, 0) for id_ in transit)

    async def statement(
        self, account: str, from_: datetime, to: datetime, cursor: str | None, limit: int
    ) -> tuple[list[StatementEntry], str | None]:
        """Return a page of the statement of an account, and the cursor of the next page. An account that does not exist
        has no lines. Raises BadCursor, GatewayFault, Unverified.
        """
        try:
            return await self._service.entries_page(account, from_, to, cursor, limit)
        except Fault as fault:
            raise _fault_of(fault) from None
        except NotDone as no:
            if no.problem.code == "not-found":
                return [], None
            if no.problem.field == "cursor":
                raise BadCursor(no.problem.detail) from None
            raise GatewayFault(str(no)) from None

    async def balance_at(self, account: str, at: datetime) -> int:
        """Return the posted balance of an account at a time, in its normal direction. The balance of an account that
        does not exist is 0. Raises GatewayFault, Unverified.
        """
        try:
            return (await self._service.balance(account, at)).posted
        except Fault as fault:
            raise _fault_of(fault) from None
        except NotDone as no:
            if no.problem.code == "not-found":
                return 0
            raise GatewayFault(str(no)) from None

    def is_open(self, channel: str, currency: str) -> bool:
        """Return whether this process knows that the accounts of a channel exist. Never waits."""
        return (channel, currency) in self._opened

    async def _open_refunds(self, orders: Sequence[Order]) -> None:
        """Open the missing accounts of the channels of refunds. An earlier version opened the accounts of a channel
        without the account of refunds in transit. If this fails, the voucher of the refund is refused, or gets no
        answer, like any other voucher.
        """
        for channel, currency in {
            (order.channel or "", order.currency) for order in orders if order.kind in REFUNDS and has_end(order)
        }:
            if not self.is_open(channel, currency):
                with contextlib.suppress(GatewayFault):
                    await self.open_channel(channel, currency)

    async def open_channel(self, channel: str, currency: str) -> None:
        """Open the missing accounts of a channel and of the platform. Raises GatewayFault."""
        await self._open([*accounts.of_platform(currency), *accounts.of_channel(channel, currency)], currency)
        self._opened.add((channel, currency))

    async def open_merchant(self, merchant: str, currency: str) -> None:
        """Open the missing accounts of a merchant and of the platform. Raises Differs, GatewayFault."""
        await self._open([*accounts.of_platform(currency), *accounts.of_merchant(merchant)], currency)

    async def open_further(self, order: Order) -> None:
        """Open the missing accounts that only some kinds of orders need. Raises Differs, GatewayFault."""
        further = accounts.further(order)
        if further:
            await self._open([*accounts.of_platform(order.currency), *further], order.currency)
            self._there.update(name.id for name in further)

    async def _open(self, names: Sequence[AccountName], currency: str) -> None:
        new = [name for name in names if name.id not in self._there]
        await asyncio.gather(*(self._open_one(name, currency) for name in new))
        self._there.update(name.id for name in new if name.owner == PLATFORM)

    async def _open_one(self, name: AccountName, currency: str) -> None:
        try:
            await self._service.open_account(name.id, name.owner, name.type, currency)
        except Fault as fault:
            raise _fault_of(fault) from None
        except NotDone as no:
            if self._reported.is_new(name.id):
                _log.critical("opening account %s failed: %s", name.id, no, extra={"event": "account_open_failed"})
            if no.problem.code == "account-exists":
                raise Differs(f"{name.id}: {no}", name.owner) from None
            raise GatewayFault(str(no)) from None


def _fault_of(fault: Fault) -> GatewayFault:
    if fault.problem is not None and fault.problem.code == "integrity":
        return Unverified(fault.problem.detail)
    return GatewayFault(str(fault), is_answer=isinstance(fault, OutcomeUnknown) and fault.problem is not None)


def _credited(entries: Sequence[Entry]) -> dict[str, int]:
    """Return the sum of the entries on each account. Credits are positive, debits are negative."""
    credited: dict[str, int] = {}
    for entry in entries:
        amount = entry.amount if entry.side == "credit" else -entry.amount
        credited[entry.account] = credited.get(entry.account, 0) + amount
    return dict(sorted(credited.items()))


def _kept(problem: Problem) -> bytes:
    """Return a problem as an order stores it: JSON without the members that describe a single request."""
    of_the_request = ("request_id", "documentation")
    return _encode({name: value for name, value in problem.members.items() if name not in of_the_request})
