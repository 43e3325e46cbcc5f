"""The way to the account service: the one place from which money is moved. All is asked for by a voucher's id, so
that asking again does no harm and tells what is true.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from fundledger.client.account_service import AccountService
from fundledger.client.faults import Fault, OutcomeUnknown, Problem
from fundledger.client.faults import Refused as NotDone
from fundledger.client.types import Account, Entry, Voucher
from fundledger.fund import accounts, flows
from fundledger.fund.accounts import AccountName
from fundledger.fund.flows import Ending
from fundledger.fund.order import PLATFORM, Kind, Order, voucher_id
from fundledger.fund.reported import Reported

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder().encode
CONTRADICTIONS: Final = frozenset({"voucher-id-reused"})
"""Problems that do not say that the movement is refused: the id of the voucher has other content."""
UNRECORDED: Final = frozenset({"account-frozen"})
"""Refusals that may be final: where a record does not match its MAC, nothing is recorded under the id of the voucher,
which may have been posted before.
"""
_FAULT_FROM: Final = 500
REFERENCE = "fund:"
"""Begins the reference of every voucher that the fund service posts; the id of its order follows."""


class Away(Exception):
    """The account service does not answer, or nobody knows what it did. Asking again with the same vouchers tells.

    `said`: it answered that it does not know. That may be for one voucher's sake: fewer at once may be answered.
    """

    def __init__(self, detail: str, *, said: bool = False) -> None:
        super().__init__(detail)
        self.said = said


class Differs(Away):
    """An account exists, and is not what it was asked to be: somebody else opened it. `owner`: whose it was to be."""

    def __init__(self, detail: str, owner: str) -> None:
        super().__init__(detail)
        self.owner = owner


class Unverified(Away):
    """The rows of an account do not verify, so the account service shows no figure of it."""


class Verdict(msgspec.Struct, frozen=True):
    """The outcome of a voucher: posted, or refused with a `problem` (JSON). `at`: the time of posting, where the
    account service returned it.

    `stuck`: the problem is not a refusal of the movement. The account service gives the same answer to each repetition,
    so a person has to remove the cause.
    """

    problem: bytes | None = None
    at: datetime | None = None
    stuck: bool = False


def voucher_of(order: Order) -> Voucher:
    """What posting an order posts: the same, however often it is asked for."""
    entries = [Entry(*entry) for entry in flows.entries_of(order)]
    type_ = flows.voucher_type(order.kind)
    return Voucher(order.voucher_id, type_, entries, reference_of(order), metadata_of(order), order.ticket)


def end_voucher_of(order: Order, ending: Ending) -> Voucher:
    """What the end of a withdrawal posts."""
    entries = [Entry(*entry) for entry in flows.end_entries_of(order, ending)]
    type_ = flows.end_voucher_type(ending)
    id_ = order.end_voucher_id or voucher_id(order.id, "end", order.attempt)
    return Voucher(id_, type_, entries, reference_of(order), metadata_of(order))


def reference_of(order: Order) -> str:
    """The reference of each voucher of an order."""
    return f"{REFERENCE}{order.id}"


def metadata_of(order: Order) -> dict[str, str] | None:
    """The metadata of each voucher of an order, which statements show. None in the first format."""
    return {"kind": str(order.kind), "order_no": order.order_no} if order.voucher_format > 1 else None


class AccountLink:
    """To one account service. `is_away`: the last time that it was asked, it did not answer."""

    def __init__(self, service: AccountService) -> None:
        self._service = service
        self._opened: set[tuple[str, str]] = set()
        self._there: set[str] = set()
        self._reported = Reported()
        self.is_away = False

    async def post(self, orders: Sequence[Order]) -> list[Verdict | None]:
        """Post each order's voucher; `[i]` answers `orders[i]`: None where nobody knows. Raises Away: of none of them.

        Cancelling leaves open what was posted.
        """
        verdicts: list[Verdict | None] = [None] * len(orders)
        places = [i for i, order in enumerate(orders) if order.kind is not Kind.REVERSAL]
        if places:
            for i, verdict in zip(
                places, await self.post_vouchers([voucher_of(orders[i]) for i in places]), strict=True
            ):
                verdicts[i] = verdict
        away: Away | None = None
        for i, order in enumerate(orders):
            if order.kind is Kind.REVERSAL:
                try:
                    verdicts[i] = await self._reverse(order)
                except Away as fault:
                    # What is known of the others stands: one of them must not hold up all.
                    away = fault
        if away is not None and not any(verdicts):
            raise away
        return verdicts

    async def post_vouchers(self, vouchers: Sequence[Voucher]) -> list[Verdict | None]:
        """As `post`."""
        try:
            results = await self._service.post_vouchers(vouchers)
        except Fault as fault:
            raise self._away(fault) from None
        except NotDone as no:
            # The batch as a whole was not taken, which is our mistake: one of it must not hold up the others.
            if len(vouchers) > 1:
                half = len(vouchers) // 2
                return [*await self.post_vouchers(vouchers[:half]), *await self.post_vouchers(vouchers[half:])]
            self.is_away = False
            return [Verdict(problem=_kept(no.problem), stuck=True)]
        self.is_away = False
        verdicts = [
            Verdict(at=result.posted_at) if result.status == "posted" else _refused(result.problem)
            for result in results
        ]
        for i, result in enumerate(results):
            verdicts[i] = await self._recorded(vouchers[i].id, result.problem, verdicts[i])
        return verdicts

    async def _recorded(self, id_: UUID, problem: Problem | None, verdict: Verdict | None) -> Verdict | None:
        """The verdict, unless it is a refusal that is not recorded under the id of the voucher: then it is stuck."""
        if problem is None or verdict is None or problem.code not in UNRECORDED:
            return verdict
        try:
            record = await self._service.voucher(id_)
        except Fault as fault:
            if fault.problem is None or fault.problem.code != "integrity":
                return None
        except NotDone:
            pass
        else:
            if record is not None and record.status == "refused":
                return verdict
        return msgspec.structs.replace(verdict, stuck=True)

    async def _reverse(self, order: Order) -> Verdict | None:
        assert order.of_order is not None
        try:
            reversed_ = order.of_voucher or voucher_id(order.of_order)
            says = (None, None) if order.voucher_format == 1 else (reference_of(order), metadata_of(order))
            posted = await self._service.reverse_voucher(reversed_, order.voucher_id, *says)
        except NotDone as no:
            return await self._recorded(order.voucher_id, no.problem, _refused(no.problem))
        except Fault as fault:
            raise self._away(fault) from None
        self.is_away = False
        return Verdict(at=posted.posted_at)

    async def contradiction(self, order: Order) -> str | None:
        """Read the voucher of an order and compare it. Return how it differs, None if it is posted as the order says.
        One that does not verify differs: no repetition changes that. Raises Away.
        """
        try:
            record = await self._service.voucher(order.voucher_id)
        except Fault as fault:
            if fault.problem is None or fault.problem.code != "integrity":
                raise self._away(fault) from None
            return f"voucher {order.voucher_id} does not verify: {fault}"
        except NotDone as no:
            return f"voucher {order.voucher_id} cannot be read: {no}"
        if record is None or record.status != "posted":
            return f"voucher {order.voucher_id} is not posted"
        try:
            expected = voucher_of(order)
        except AssertionError as error:
            return f"the order has no flow: {error}"
        wanted = expected.type, expected.reference, _credited(expected.entries)
        found = record.type, record.reference, _credited(record.entries)
        return None if wanted == found else f"the order says {wanted}, voucher {record.id} {found}"

    async def is_posted(self, order: Order) -> bool | None:
        """Whether the voucher of an order is posted; None where it does not verify. Raises Away."""
        try:
            record = await self._service.voucher(order.voucher_id)
        except Fault as fault:
            if fault.problem is not None and fault.problem.code == "integrity":
                return None
            raise self._away(fault) from None
        except NotDone:
            return False
        return record is not None and record.status == "posted"

    async def balances(self, ids: Sequence[str]) -> Mapping[str, Account]:
        """Accounts as they are now, those that there are. Raises Away, Unverified."""
        try:
            found = await asyncio.gather(*(self._service.account(id_) for id_ in ids))
        except Fault as fault:
            if fault.problem is not None and fault.problem.code == "integrity":
                raise Unverified(fault.problem.detail) from None
            raise self._away(fault) from None
        return {account.id: account for account in found if account is not None}

    def is_open(self, channel: str, currency: str) -> bool:
        """Whether the accounts of a channel are known to be there."""
        return (channel, currency) in self._opened

    async def open_channel(self, channel: str, currency: str) -> None:
        """Open the accounts of a channel, and those of the platform, unless they are there. Raises Away."""
        await self._open([*accounts.of_platform(currency), *accounts.of_channel(channel, currency)], currency)
        self._opened.add((channel, currency))

    async def open_merchant(self, merchant: str, currency: str) -> None:
        """Open the accounts of a merchant, and those of the platform, unless they are there. Raises Away, Differs."""
        await self._open([*accounts.of_platform(currency), *accounts.of_merchant(merchant)], currency)

    async def _open(self, names: Sequence[AccountName], currency: str) -> None:
        new = [name for name in names if name.id not in self._there]
        await asyncio.gather(*(self._open_one(name, currency) for name in new))
        self._there.update(name.id for name in new if name.owner == PLATFORM)

    async def _open_one(self, name: AccountName, currency: str) -> None:
        try:
            await self._service.open_account(name.id, name.owner, name.type, currency)
        except Fault as fault:
            raise self._away(fault) from None
        except NotDone as no:
            if self._reported.is_new(name.id):
                _log.critical("an account of the fund service cannot be opened: %s", no)
            if no.problem.code == "account-exists":
                raise Differs(f"{name.id}: {no}", name.owner) from None
            raise Away(str(no)) from None

    def _away(self, fault: Fault) -> Away:
        self.is_away = True
        return Away(str(fault), said=isinstance(fault, OutcomeUnknown) and fault.problem is not None)


def _credited(entries: Sequence[Entry]) -> dict[str, int]:
    """By account, a debit negative."""
    credited: dict[str, int] = {}
    for entry in entries:
        amount = entry.amount if entry.side == "credit" else -entry.amount
        credited[entry.account] = credited.get(entry.account, 0) + amount
    return dict(sorted(credited.items()))


def _kept(problem: Problem) -> bytes:
    """The members that an order keeps: all but those of the one request that was answered with them."""
    of_the_request = ("request_id", "documentation")
    return _encode({name: value for name, value in problem.members.items() if name not in of_the_request})


def _refused(problem: Problem | None) -> Verdict | None:
    """None: the outcome is unknown, and the voucher may be posted."""
    if problem is None or problem.status >= _FAULT_FROM:
        return None
    return Verdict(problem=_kept(problem), stuck=problem.code in CONTRADICTIONS)
