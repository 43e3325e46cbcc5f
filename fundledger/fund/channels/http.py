"""HTTP client for a payment channel of the fund service. docs/reference/channels.md describes the protocol: `POST
/payouts`, `GET /payouts/{ref}`, `POST /refunds`, `GET /refunds/{ref}`, `GET /statements/{day}`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, Self

import aiohttp
import msgspec
from yarl import URL

from fundledger.fund.channels.channel import ChannelAway, ChannelSilent, Payout, Standing, StatementLine
from fundledger.fund.model.bank_account import BankAccount
from fundledger.fund.model.requests import AMOUNT_MAX, Amount, ChannelRef, Currency, Reason

CONNECT_S: Final = 2.0
TOTAL_S: Final = 10.0
PAYOUT_BYTES_MAX: Final = 16 << 10
STATEMENT_BYTES_MAX: Final = 64 << 20

Moved = Annotated[int, msgspec.Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]


class PayoutAnswer(msgspec.Struct):
    """The body of the answer about a payout or a refund. Unknown members are ignored."""

    ref: ChannelRef
    state: Literal["accepted", "paid", "bounced"]
    amount: Amount
    currency: Currency
    channel_ref: ChannelRef | None = None
    reason: Reason | None = None


class LineAnswer(msgspec.Struct):
    ref: ChannelRef
    amount: Moved
    currency: Currency


class StatementAnswer(msgspec.Struct):
    lines: list[LineAnswer]


_decode_payout = msgspec.json.Decoder(PayoutAnswer).decode
_decode_statement = msgspec.json.Decoder(StatementAnswer).decode


class HttpChannel:
    """A payment channel over HTTP. Use it with `async with`, or call `close`. Its only state is a connection pool.

    `token`: sent as a bearer token with each request.
    """

    def __init__(
        self, url: str, total_s: float = TOTAL_S, connect_s: float = CONNECT_S, *, token: str | None = None
    ) -> None:
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._url = URL(url)
        self._timeout = aiohttp.ClientTimeout(total=total_s, connect=connect_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def pay_out(self, ref: str, amount: int, currency: str, payee: BankAccount | None = None) -> Payout:
        of: dict[str, Any] = {} if payee is None else {"payee": msgspec.to_builtins(payee)}
        return await self._send("payouts", {"ref": ref, "amount": amount, "currency": currency, **of})

    async def query(self, ref: str) -> Payout:
        return await self._query("payouts", ref)

    async def refund(self, ref: str, original_ref: str | None, amount: int, currency: str) -> Payout:
        of = {} if original_ref is None else {"original_ref": original_ref}
        return await self._send("refunds", {"ref": ref, **of, "amount": amount, "currency": currency})

    async def query_refund(self, ref: str) -> Payout:
        return await self._query("refunds", ref)

    async def _send(self, path: str, body: dict[str, Any]) -> Payout:
        try:
            async with self._ask("POST", path, json=body) as response:
                if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                    raise ChannelAway("429: too many requests; nothing was done")
                if response.status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
                    raise ChannelSilent(f"answered {response.status}")
                return _payout(await _body(response, PAYOUT_BYTES_MAX), body["ref"])
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ChannelAway(_said(error)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ChannelSilent(_said(error)) from error

    async def _query(self, path: str, ref: str) -> Payout:
        try:
            async with self._ask("GET", f"{path}/{ref}") as response:
                if response.status == HTTPStatus.NOT_FOUND:
                    # A 404 may come from a proxy, so it counts as `absent` only if the body names the payout.
                    if await _absent(response, ref):
                        return Payout(Standing.ABSENT)
                    raise ChannelAway("answered 404 without `ref` and `state: absent` of the payout")
                if response.status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
                    raise ChannelAway(f"answered {response.status}")
                return _payout(await _body(response, PAYOUT_BYTES_MAX), ref)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ChannelAway(_said(error)) from error

    async def statement(self, day: date) -> list[StatementLine]:
        try:
            async with self._ask("GET", f"statements/{day.isoformat()}") as response:
                if response.status != HTTPStatus.OK:
                    raise ChannelAway(f"answered {response.status}")
                answer = _decode_statement(await _body(response, STATEMENT_BYTES_MAX))
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ChannelAway(_said(error)) from error
        return [StatementLine(line.ref, line.amount, line.currency) for line in answer.lines]

    @asynccontextmanager
    async def _ask(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=self._headers)
        async with self._session.request(method, self._url / path, allow_redirects=False, **options) as response:
            yield response


def _payout(body: bytes, ref: str) -> Payout:
    """Return the payout that a body describes. Raises ValueError if the body is invalid or describes another payout."""
    answer = _decode_payout(body)
    if answer.ref != ref:
        raise ValueError("the answer is about another payout")
    return Payout(Standing(answer.state), answer.channel_ref, answer.reason, answer.amount, answer.currency)


async def _absent(response: aiohttp.ClientResponse, ref: str) -> bool:
    said = msgspec.json.decode(await _body(response, PAYOUT_BYTES_MAX))
    return isinstance(said, dict) and said.get("ref") == ref and said.get("state") == Standing.ABSENT


async def _body(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_chunked(64 << 10):
        size += len(part)
        if size > bytes_max:
            raise ValueError(f"the answer is longer than {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:500]
