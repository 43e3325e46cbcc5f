"""A fund service with a running account service, whose response to each call is determined by a script.

A call is answered normally; refused (frozen accounts); refused for a permanent reason; lost before or after the voucher
is posted; answered with status 503 for each voucher; or not answered until the fund worker is killed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, time
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from fundledger.client.account_service import AccountService
from fundledger.client.faults import OutcomeUnknown, Problem, Refused
from fundledger.client.types import Account, PostedVoucher, Voucher, VoucherResult
from fundledger.fund.account_gateway import AccountGateway
from tests.support.fund_worker import FundWorker

HEARD, BEFORE, AFTER, UNSURE, STOP = "heard", "lost before", "lost after", "503 of one item", "stops"
UNHEARD = (BEFORE, AFTER, UNSURE, STOP)
STUCK = "stuck"
WAIT_S = 60.0
UNKNOWN = Problem({"type": "urn:fundledger:problem:outcome-unknown", "status": 503})
REUSED = Problem({"type": "urn:fundledger:problem:voucher-id-reused", "status": 422})
T = TypeVar("T")


class ScriptedAccounts(AccountService):
    """The client of the account service that the fund service uses. `how`: the responses to the next calls that post.

    Reads are answered normally, and `on_look` is called after each of them. With `clock`, vouchers get its time.
    """

    how = HEARD

    def __init__(self, base_url: str, token: str) -> None:
        super().__init__(base_url, token)
        self.hangs = asyncio.Event()
        self.on_look: Callable[[], Awaitable[None]] | None = None
        self.clock: Callable[[], datetime] | None = None
        self.tried: set[UUID] = set()
        self.in_batch: Callable[[], bool] = lambda: False
        self._posted_at: dict[UUID, datetime] = {}
        self._arriving: set[asyncio.Task[Any]] = set()

    async def post_vouchers(self, vouchers: Sequence[Voucher], atomic: bool = False) -> list[VoucherResult]:
        if self.how == STUCK:
            return [VoucherResult(voucher.id, "refused", REUSED) for voucher in vouchers]
        self._end_retries({voucher.id for voucher in vouchers})

        async def post() -> list[VoucherResult]:
            results = await super(ScriptedAccounts, self).post_vouchers(vouchers, atomic)
            return [self._timed(result) if result.status == "posted" else result for result in results]

        results = await self._scripted(post)
        if self.how == UNSURE:
            return [VoucherResult(voucher.id, "refused", UNKNOWN) for voucher in vouchers]
        return results

    def _end_retries(self, ids: set[UUID]) -> None:
        """Raise TimeoutError if a batch repeats a call that was not answered, as if its time were over. So the first
        call is always made, however slow the machine is, and no step waits.
        """
        if self.how in UNHEARD and ids <= self.tried and self.in_batch():
            raise TimeoutError
        self.tried |= ids

    def _timed(self, result: VoucherResult) -> VoucherResult:
        if self.clock is None:
            return result
        return msgspec.structs.replace(result, posted_at=self._posted_at.setdefault(result.id, self.clock()))

    async def reverse_voucher(self, id_: UUID, new_id: UUID, *says: Any) -> PostedVoucher:
        if self.how == STUCK:
            raise Refused(REUSED)
        self._end_retries({new_id})
        result = await self._scripted(lambda: super(ScriptedAccounts, self).reverse_voucher(id_, new_id, *says))
        if self.how == UNSURE:
            raise OutcomeUnknown("503", UNKNOWN)
        return result

    async def account(self, id_: str) -> Account | None:
        found = await super().account(id_)
        if self.on_look is not None and id_.endswith(":available"):
            await self.on_look()
        return found

    async def _scripted(self, call: Callable[[], Awaitable[T]]) -> T:
        if self.how == BEFORE:
            raise OutcomeUnknown("the request is lost")
        # Cancelling the caller does not cancel the call.
        task = asyncio.ensure_future(call())
        self._arriving.add(task)
        task.add_done_callback(self._arrived)
        await asyncio.wait([task])
        if self.how == AFTER:
            raise OutcomeUnknown("the answer is lost")
        if self.how == UNSURE and task.exception() is not None:
            raise OutcomeUnknown("503", UNKNOWN)
        if self.how == STOP:
            self.hangs.set()
            await asyncio.Event().wait()
        return task.result()

    def _arrived(self, task: "asyncio.Task[Any]") -> None:
        self._arriving.discard(task)
        if not task.cancelled():
            task.exception()  # marks the exception as retrieved

    async def arrived(self) -> None:
        """Wait until the account service has processed all calls."""
        await asyncio.gather(*self._arriving, return_exceptions=True)


class ScriptedWorker(FundWorker):
    """A fund worker beside scripted accounts. `at`: the time of new orders."""

    accounts: ScriptedAccounts

    def __init__(
        self, dsn: str, base_url: str, token: str, at: datetime, calendar: tuple[str, time] | None = None
    ) -> None:
        super().__init__(dsn, base_url, token, wait_s=WAIT_S)
        self.calendar = calendar
        self.at = at
        self.accounts = ScriptedAccounts(base_url, token)
        self.gateway = AccountGateway(self.accounts)
        self.accounts.in_batch = lambda: asyncio.current_task() in self.batcher._tasks

    def now(self) -> datetime:
        return self.at

    async def run(self, asked: Awaitable[T], how: str) -> T | None:
        """Run an order while the account service responds as `how` says.

        Return None if the worker was killed meanwhile; another worker then continues.
        """
        self.accounts.how = how
        self.accounts.tried.clear()
        self.accounts.hangs.clear()
        task = asyncio.ensure_future(asked)
        hung = asyncio.ensure_future(self.accounts.hangs.wait())
        try:
            await asyncio.wait([task, hung], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            await self._kill(task)
            return None
        finally:
            hung.cancel()
            await self.accounts.arrived()
            self.accounts.how = HEARD

    async def _kill(self, asked: "asyncio.Future[Any]") -> None:
        killed = [asked, *self.batcher._tasks]
        for task in killed:
            task.cancel()
        await asyncio.gather(*killed, return_exceptions=True)
        self.gateway = AccountGateway(self.accounts)
        await self.start_worker()
