"""The account service: accounts, vouchers, holds."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

import msgspec

from fundledger.client.batches import in_batches
from fundledger.client.connection import Answer, decoder, found
from fundledger.client.faults import ContractBroken
from fundledger.client.service import Service, time_text
from fundledger.client.types import (
    Account,
    BalanceAt,
    Hold,
    PostedVoucher,
    StatementEntry,
    Voucher,
    VoucherRecord,
    VoucherResult,
)


class _NewAccount(msgspec.Struct, omit_defaults=True):
    id: str
    owner: str
    type: str
    currency: str
    metadata: dict[str, Any] | None = None
    posting: Literal["direct", "buffered"] = "direct"


class _NewHold(msgspec.Struct, omit_defaults=True):
    id: str
    account: str
    amount: int
    expires_at: datetime | None = None


class _Reversal(msgspec.Struct, omit_defaults=True):
    id: UUID
    reference: str | None = None
    metadata: dict[str, Any] | None = None


class _Page(msgspec.Struct):
    entries: list[StatementEntry]
    next_cursor: str | None = None


class _Accounts(msgspec.Struct):
    accounts: list[Account]
    next_cursor: str | None = None


class _Results(msgspec.Struct):
    results: list[VoucherResult]


_encode = msgspec.json.Encoder().encode
_account = decoder(Account)
_accounts = decoder(_Accounts)
_balance = decoder(BalanceAt)
_page = decoder(_Page)
_results = decoder(_Results)
_posted = decoder(PostedVoucher)
_record = decoder(VoucherRecord)
_hold = decoder(Hold)


class AccountService(Service):
    """A connection to the account service: `async with AccountService(base_url, token) as accounts`.

    Every call raises the faults of `fundledger.client.faults`, and Refused; each takes at most `timeout_s`, retries and
    all, and may be repeated with the same ids. A call that is cancelled may have been served.
    """

    async def open_account(
        self,
        id_: str,
        owner: str,
        type_: str,
        currency: str,
        metadata: dict[str, Any] | None = None,
        posting: Literal["direct", "buffered"] = "direct",
    ) -> Account:
        """The account, also when the same exists. Refused: `account-exists`, when it differs."""
        body = _encode(_NewAccount(id_, owner, type_, currency, metadata, posting))
        return _account(await self._to.ask("POST", "/v1/accounts", body))

    async def account(self, id_: str) -> Account | None:
        return found(await self._to.ask("GET", _path(id_)), _account)

    async def accounts(
        self,
        owner: str | None = None,
        type_: str | None = None,
        currency: str | None = None,
        status: Literal["open", "frozen", "closed"] | None = None,
        limit: int = 100,
    ) -> AsyncIterator[Account]:
        """The accounts that match, in the order of their ids, over all pages; `limit` is for one of them.

        An account whose record does not verify is left out: the service reports it as `unverified`.
        """
        wanted = {"owner": owner, "type": type_, "currency": currency, "status": status}
        query = {name: value for name, value in wanted.items() if value is not None} | {"limit": str(limit)}
        while True:
            page = _accounts(await self._to.ask("GET", "/v1/accounts", query=query))
            for account in page.accounts:
                yield account
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    async def balance(self, id_: str, at: datetime | None = None) -> BalanceAt:
        """As it was then; without a time, as it is. Refused: `not-found`."""
        query = {} if at is None else {"at": time_text(at)}
        return _balance(await self._to.ask("GET", _path(id_, "/balance"), query=query))

    async def entries(
        self, id_: str, from_: datetime | None = None, to: datetime | None = None, limit: int = 500
    ) -> AsyncIterator[StatementEntry]:
        """The statement, oldest first, over all its pages; `limit` is for one of them. Refused: `not-found`.

        The times bound `posted_at`. After a fault it is asked for again, from the time of the last entry on.
        """
        query = {"limit": str(limit)}
        if from_ is not None:
            query["from"] = time_text(from_)
        if to is not None:
            query["to"] = time_text(to)
        while True:
            page = _page(await self._to.ask("GET", _path(id_, "/entries"), query=query))
            for entry in page.entries:
                yield entry
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    async def freeze(self, id_: str, reason: str = "", scope: Literal["debits", "all"] = "debits") -> Account:
        """No debits any more; with scope `all`, no credits either."""
        return await self._change(id_, "/freeze", {"reason": reason, "scope": scope})

    async def unfreeze(self, id_: str, reason: str = "") -> Account:
        return await self._change(id_, "/unfreeze", {"reason": reason})

    async def close_account(self, id_: str, reason: str = "") -> Account:
        """For ever. Refused: `account-not-empty`."""
        return await self._change(id_, "/close", {"reason": reason})

    async def set_posting(self, id_: str, posting: Literal["direct", "buffered"], reason: str = "") -> Account:
        """Whether credits are posted at once, or gathered and posted in one go a moment later."""
        return await self._change(id_, "/policy", {"posting": posting, "reason": reason})

    async def _change(self, id_: str, what: str, body: dict[str, str]) -> Account:
        return _account(await self._to.ask("POST", _path(id_, what), _encode(body)))

    async def post_voucher(self, voucher: Voucher) -> PostedVoucher:
        """Raises Refused when it is; to have refusals as values, post a batch of one."""
        return _told(await self._to.ask("POST", "/v1/vouchers", _encode(voucher)))

    async def reverse_voucher(
        self, id_: UUID, new_id: UUID, reference: str | None = None, metadata: dict[str, Any] | None = None
    ) -> PostedVoucher:
        """Post the opposite voucher, named `new_id`, once for each voucher. Refused: `voucher-already-reversed`.

        `reference` and `metadata` are the reversal's own, and part of its content.
        """
        body = _Reversal(new_id, reference, metadata)
        return _told(await self._to.ask("POST", f"/v1/vouchers/{id_}/reverse", _encode(body)))

    async def voucher(self, id_: UUID) -> VoucherRecord | None:
        """Also of one that was refused for good. None: its id is free, or what was sent has not arrived yet."""
        return found(await self._to.ask("GET", f"/v1/vouchers/{id_}"), _record)

    async def post_vouchers(self, vouchers: Sequence[Voucher], atomic: bool = False) -> list[VoucherResult]:
        """`results[i]` answers `vouchers[i]`; a refusal is a result. Atomic: all or none, at most 5,000.

        More than 5,000 go in several requests, one after the other. After a fault all of them may be sent again.
        """
        return await in_batches(
            vouchers,
            lambda batch: _encode({"vouchers": batch, "atomic": atomic}),
            self._post_batch,
            whole=atomic,
        )

    async def _post_batch(self, vouchers: Sequence[Voucher], body: bytes) -> list[VoucherResult]:
        results = _results(await self._to.ask("POST", "/v1/vouchers/batch", body)).results
        if [result.id for result in results] != [voucher.id for voucher in vouchers]:
            raise ContractBroken("the results are not those of the vouchers")
        return results

    async def place_hold(self, id_: str, account: str, amount: int, expires_at: datetime | None = None) -> Hold:
        """Set an amount aside. With `replay`: the hold as it was placed, whatever became of it since."""
        answer = await self._to.ask("POST", "/v1/holds", _encode(_NewHold(id_, account, amount, expires_at)))
        return _told_hold(answer)

    async def capture_hold(self, id_: str, voucher: Voucher) -> PostedVoucher:
        """Post a voucher that debits the held account by at most what is held; the rest is free again."""
        answer = await self._to.ask("POST", f"/v1/holds/{quote(id_, safe=':')}/capture", _encode({"voucher": voucher}))
        return _told(answer)

    async def release_hold(self, id_: str, reason: str = "") -> Hold:
        """What was held is free again. Refused: `hold-captured`, `hold-expired`."""
        return _told_hold(
            await self._to.ask("POST", f"/v1/holds/{quote(id_, safe=':')}/release", _encode({"reason": reason}))
        )

    async def hold(self, id_: str) -> Hold | None:
        return found(await self._to.ask("GET", f"/v1/holds/{quote(id_, safe=':')}"), _hold)


def _path(account: str, what: str = "") -> str:
    return f"/v1/accounts/{quote(account, safe=':')}{what}"


def _told(answer: Answer) -> PostedVoucher:
    voucher = _posted(answer)
    return msgspec.structs.replace(voucher, replay=True) if answer.is_replay else voucher


def _told_hold(answer: Answer) -> Hold:
    hold = _hold(answer)
    return msgspec.structs.replace(hold, replay=True) if answer.is_replay else hold
