"""The account service: accounts, vouchers, holds."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec

from fundledger.client.connection import Connection, Retries, decoder
from fundledger.client.faults import ContractBroken, Fault, OutcomeUnknown
from fundledger.client.types import Account, Voucher, VoucherResult

BATCH_MAX: Final = 5000
BATCH_BODY_BYTES_MAX: Final = 8 << 20


class _NewAccount(msgspec.Struct, omit_defaults=True):
    id: str
    owner: str
    type: str
    currency: str
    metadata: dict[str, Any] | None = None
    posting: Literal["direct", "buffered"] = "direct"


class _Results(msgspec.Struct):
    results: list[VoucherResult]


_encode = msgspec.json.Encoder().encode
_account = decoder(Account)
_results = decoder(_Results)


class AccountService:
    """A connection to the account service: `async with AccountService(base_url, token) as accounts`.

    Every call raises the faults of `fundledger.client.faults`, and Refused; each takes at most `timeout_s`, retries and
    all, and may be repeated with the same ids. A call that is cancelled may have been served.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None,
        timeout_s: float = 30.0,
        connections: int = 100,
        retries: Retries | None = None,
    ) -> None:
        self._to = Connection(base_url, token, timeout_s, connections, retries)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connects to nothing yet: a service that is not there shows at the first call."""
        await self._to.open()

    async def close(self) -> None:
        """Calls that wait for an answer fail."""
        await self._to.close()

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

    async def post_vouchers(self, vouchers: Sequence[Voucher], atomic: bool = False) -> list[VoucherResult]:
        """`results[i]` answers `vouchers[i]`; a refusal is a result. Atomic: all or none, at most 5,000.

        More than 5,000 go in several requests, one after the other. After a fault all of them may be sent again.
        """
        results: list[VoucherResult] = []
        waiting = [vouchers] if atomic or len(vouchers) <= BATCH_MAX else _chunks(vouchers)
        waiting = [chunk for chunk in reversed(waiting) if chunk]
        while waiting:
            chunk = waiting.pop()
            body = _encode({"vouchers": chunk, "atomic": atomic})
            if len(body) > BATCH_BODY_BYTES_MAX and len(chunk) > 1 and not atomic:
                half = len(chunk) // 2
                waiting += [chunk[half:], chunk[:half]]
                continue
            try:
                results += await self._post_batch(chunk, body)
            except Fault as fault:
                if not results or not fault.undone:
                    raise
                detail = f"{fault}; {len(results)} vouchers before it were answered"
                raise OutcomeUnknown(detail, fault.problem, fault.retry_after_s) from fault
        return results

    async def _post_batch(self, vouchers: Sequence[Voucher], body: bytes) -> list[VoucherResult]:
        results = _results(await self._to.ask("POST", "/v1/vouchers/batch", body)).results
        if [result.id for result in results] != [voucher.id for voucher in vouchers]:
            raise ContractBroken("the results are not those of the vouchers")
        return results


def _chunks(vouchers: Sequence[Voucher]) -> list[Sequence[Voucher]]:
    return [vouchers[start : start + BATCH_MAX] for start in range(0, len(vouchers), BATCH_MAX)]
