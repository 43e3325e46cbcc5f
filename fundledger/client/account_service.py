"""Python client of the account service: accounts, vouchers, holds."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote
from uuid import UUID

import msgspec

from fundledger.client.batches import in_batches
from fundledger.client.connection import Answer, decoder, found
from fundledger.client.faults import ContractBroken
from fundledger.client.pages import Pages, each_page
from fundledger.client.service import Service, time_text
from fundledger.client.types import (
    Account,
    BalanceAt,
    Calendar,
    Hold,
    PostedVoucher,
    StatementEntry,
    TrialBalancePage,
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


class _Results(msgspec.Struct):
    results: list[VoucherResult]


_encode = msgspec.json.Encoder().encode
_account = decoder(Account)
_accounts = Pages(list[Account], "accounts")
_balance = decoder(BalanceAt)
_calendar = decoder(Calendar)
_entries = Pages(list[StatementEntry], "entries")
_results = decoder(_Results)
_posted = decoder(PostedVoucher)
_record = decoder(VoucherRecord)
_hold = decoder(Hold)
_trial_balance = decoder(TrialBalancePage)


class AccountService(Service):
    """Client of the account service. Open it with `async with AccountService(base_url, token) as accounts`.

    Every call may raise Refused and the faults of `fundledger.client.faults`. A call takes at most `timeout_s`,
    including its retries. A call may be repeated with the same ids. The service may have carried out the request of a
    cancelled call.
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
        """Open an account and return it. If an equal account exists, return the existing account.

        Raises Refused with `account-exists` if a different account has the id.
        """
        body = _encode(_NewAccount(id_, owner, type_, currency, metadata, posting))
        return _account(await self._to.ask("POST", "/v1/accounts", body))

    async def account(self, id_: str) -> Account | None:
        return found(await self._to.ask("GET", _path(id_)), _account)

    def accounts(
        self,
        owner: str | None = None,
        type_: str | None = None,
        currency: str | None = None,
        status: Literal["open", "frozen", "closed"] | None = None,
        limit: int = 100,
    ) -> AsyncIterator[Account]:
        """Yield the accounts that match all arguments, ordered by id, from all pages. `limit`: accounts per page.

        An account whose row does not match its MAC is omitted. The service lists such accounts as `unverified`.
        """
        query = {"owner": owner, "type": type_, "currency": currency, "status": status, "limit": str(limit)}
        return _accounts.read(self._to, "/v1/accounts", query)

    async def balance(self, id_: str, at: datetime | None = None) -> BalanceAt:
        """Return the balance of an account at the time `at`; None: the current balance. Raises Refused with
        `not-found`.
        """
        query = {} if at is None else {"at": time_text(at)}
        return _balance(await self._to.ask("GET", _path(id_, "/balance"), query=query))

    def entries(
        self, id_: str, from_: datetime | None = None, to: datetime | None = None, limit: int = 500
    ) -> AsyncIterator[StatementEntry]:
        """Yield the lines of an account's statement from all pages, oldest first. `limit`: entries per page.

        `from_` and `to` bound `posted_at`. Raises Refused with `not-found`. After a fault, call this method again with
        the time of the last entry as `from_`.
        """
        query = {
            "limit": str(limit),
            "from": None if from_ is None else time_text(from_),
            "to": None if to is None else time_text(to),
        }
        return _entries.read(self._to, _path(id_, "/entries"), query)

    async def entries_page(
        self, id_: str, from_: datetime | None, to: datetime | None, cursor: str | None, limit: int = 500
    ) -> tuple[list[StatementEntry], str | None]:
        """Return one page of an account's statement, and the cursor of the next page, which is None on the last page.

        `from_` and `to` are the same for each page. Raises Refused with `not-found`, or with `malformed` if `cursor`
        does not belong to the account and the times.
        """
        query = {
            "limit": str(limit),
            "from": None if from_ is None else time_text(from_),
            "to": None if to is None else time_text(to),
        }
        return await _entries.page(self._to, _path(id_, "/entries"), query, cursor)

    def trial_balance(self, at: datetime | None = None, limit: int = 100) -> AsyncIterator[TrialBalancePage]:
        """Yield the pages of the trial balance at the time `at`, None for now. The last page has the totals.

        `limit`: accounts per page. After a fault, call this method again.
        """
        query = {"limit": str(limit), "at": None if at is None else time_text(at)}
        return each_page(self._to, "/v1/balances", query, _trial_balance)

    async def calendar(self) -> Calendar:
        """Return the time zone and the cut that determine accounting dates."""
        return _calendar(await self._to.ask("GET", "/v1/calendar"))

    async def freeze(self, id_: str, reason: str = "", scope: Literal["debits", "all"] = "debits") -> Account:
        """Block the debits of an account. With scope `all`, block its credits, too."""
        return await self._change(id_, "/freeze", {"reason": reason, "scope": scope})

    async def unfreeze(self, id_: str, reason: str = "") -> Account:
        return await self._change(id_, "/unfreeze", {"reason": reason})

    async def close_account(self, id_: str, reason: str = "") -> Account:
        """Close an account permanently. Raises Refused with `account-not-empty`."""
        return await self._change(id_, "/close", {"reason": reason})

    async def set_posting(self, id_: str, posting: Literal["direct", "buffered"], reason: str = "") -> Account:
        """Set how the credits of an account are posted. `buffered`: they are stored, and posted together shortly
        afterwards.
        """
        return await self._change(id_, "/policy", {"posting": posting, "reason": reason})

    async def _change(self, id_: str, what: str, body: dict[str, str]) -> Account:
        return _account(await self._to.ask("POST", _path(id_, what), _encode(body)))

    async def post_voucher(self, voucher: Voucher) -> PostedVoucher:
        """Post a voucher. Raises Refused if the voucher is refused. `post_vouchers` returns a refusal as a value
        instead.
        """
        return _posted_of(await self._to.ask("POST", "/v1/vouchers", _encode(voucher)))

    async def reverse_voucher(
        self, id_: UUID, new_id: UUID, reference: str | None = None, metadata: dict[str, Any] | None = None
    ) -> PostedVoucher:
        """Reverse a voucher: post its exact opposite as a new voucher with the id `new_id`.

        `reference` and `metadata` become content of the new voucher. Raises Refused with `voucher-already-reversed`.
        """
        body = _Reversal(new_id, reference, metadata)
        return _posted_of(await self._to.ask("POST", f"/v1/vouchers/{id_}/reverse", _encode(body)))

    async def voucher(self, id_: UUID) -> VoucherRecord | None:
        """Return the voucher with this id, if the voucher was posted or permanently refused.

        Returns None if the service has not recorded the id. In that case, a request with the id may still be in
        transit.
        """
        return found(await self._to.ask("GET", f"/v1/vouchers/{id_}"), _record)

    async def post_vouchers(self, vouchers: Sequence[Voucher], atomic: bool = False) -> list[VoucherResult]:
        """Post vouchers and return their results: `results[i]` answers `vouchers[i]`. A refusal is a result, not an
        exception.

        With `atomic`, the service posts either all vouchers or none, and accepts at most 5,000. Without `atomic`, more
        than 5,000 vouchers are sent in several requests, one after the other. After a fault, all vouchers may be sent
        again.
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
            raise ContractBroken("the ids of the results differ from those of the vouchers")
        return results

    async def place_hold(self, id_: str, account: str, amount: int, expires_at: datetime | None = None) -> Hold:
        """Reserve an amount of an account. A repeated request returns the hold in its first state, even if it has
        changed.
        """
        answer = await self._to.ask("POST", "/v1/holds", _encode(_NewHold(id_, account, amount, expires_at)))
        return _hold_of(answer)

    async def capture_hold(self, id_: str, voucher: Voucher) -> PostedVoucher:
        """Post a voucher that debits the held account by at most the held amount. The rest of the hold is released."""
        answer = await self._to.ask("POST", f"/v1/holds/{quote(id_, safe=':')}/capture", _encode({"voucher": voucher}))
        return _posted_of(answer)

    async def release_hold(self, id_: str, reason: str = "") -> Hold:
        """Release the held amount of a hold. Raises Refused with `hold-captured` or `hold-expired`."""
        return _hold_of(
            await self._to.ask("POST", f"/v1/holds/{quote(id_, safe=':')}/release", _encode({"reason": reason}))
        )

    async def hold(self, id_: str) -> Hold | None:
        return found(await self._to.ask("GET", f"/v1/holds/{quote(id_, safe=':')}"), _hold)


def _path(account: str, what: str = "") -> str:
    return f"/v1/accounts/{quote(account, safe=':')}{what}"


def _posted_of(answer: Answer) -> PostedVoucher:
    voucher = _posted(answer)
    return msgspec.structs.replace(voucher, replay=True) if answer.is_replay else voucher


def _hold_of(answer: Answer) -> Hold:
    hold = _hold(answer)
    return msgspec.structs.replace(hold, replay=True) if answer.is_replay else hold
