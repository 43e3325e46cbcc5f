"""A client for tests, independent of the code of the service: JSON over HTTP with a bearer token."""

import io
import json as json_
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from tests.support.waiting import as_asked

SHED = "the service is overloaded"
"""Text in the detail of each 503 of a load shedder, also if the fund service passes on a 503 of the account service.

Such a request has had no effect. On a busy machine any request may get this answer.
"""
PATIENCE_S = 30.0
DEADLINE = "X-Request-Timeout-Ms"
PROBLEM = "urn:fundledger:problem:"


class Answer(NamedTuple):
    """A response; `json` is None when the body is not JSON."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    json: Any

    @property
    def problem(self) -> str | None:
        """Return the last part of a problem's type, such as `insufficient-funds`."""
        if not isinstance(self.json, dict):
            return None
        type_ = str(self.json.get("type", ""))
        return type_.removeprefix(PROBLEM) if type_.startswith(PROBLEM) else None

    @property
    def is_shed(self) -> bool:
        return self.status == 503 and "Retry-After" in self.headers and SHED in str(self.json)

    @property
    def is_replay(self) -> bool:
        return self.headers.get("Idempotent-Replay") == "true"


class Client:
    """A connection to a service. `post` and `get` take a path as it is sent; they do not escape it again.

    A request that is shed is sent again after `Retry-After`, with the same bytes, for at most PATIENCE_S in total. A
    request that sets a deadline is not sent again. With `patient` False, no request is sent again.
    """

    def __init__(
        self,
        base_url: str,
        token: str | None,
        connections: int = 100,
        timeout_s: float = 60.0,
        *,
        patient: bool = True,
    ) -> None:
        self.base_url = base_url
        self.token = token
        self._patience_s = PATIENCE_S if patient else 0.0
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            auto_decompress=False,
            headers={"Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        sent = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        sent.update(headers or {})
        patience_s = 0.0 if DEADLINE in sent else self._patience_s
        while True:
            answer = await self._once(method, path, body, sent)
            if not answer.is_shed:
                return answer
            wait_s = float(answer.headers["Retry-After"])
            patience_s -= wait_s
            if patience_s < 0:
                return answer
            await as_asked(wait_s)

    async def _once(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        url = URL(self.base_url + path, encoded=True)
        # aiohttp warns about large bytes, and accepts the same bytes as a file.
        sent_body = body if body is None or len(body) < 1 << 20 else io.BytesIO(body)
        async with self._session.request(method, url, data=sent_body, headers=headers) as response:
            return answer_of(response.status, response.headers, await response.read())

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.request("GET", path, None, headers)

    async def patch(self, path: str, json: Any) -> Answer:
        return await self.request("PATCH", path, json_.dumps(json).encode())

    async def post(
        self, path: str, json: Any = None, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a POST request. `json` is encoded; `body` is sent unchanged; with neither the body is empty."""
        if json is not None:
            body = json_.dumps(json).encode()
        return await self.request("POST", path, body, headers)

    async def open_account(
        self, id_: str, type_: str = "merchant_available", owner: str | None = None, currency: str = "CNY"
    ) -> str:
        """Open an account unless the same account exists. Return its id."""
        members = {"id": id_, "owner": owner or id_.rpartition(":")[0] or id_, "type": type_, "currency": currency}
        answer = await self.post("/v1/accounts", members)
        assert answer.status in (200, 201), answer
        return id_

    async def pay(self, debit: str, credit: str, amount: int, id_: str | None = None) -> Answer:
        return await self.post("/v1/vouchers", voucher(debit, credit, amount, id_))

    async def merchant(self, balance: int = 0, type_: str = "merchant_available", currency: str = "CNY") -> str:
        """Open an account of a new owner with this balance."""
        account = await self.open_account(f"merchant:{uuid.uuid4().hex}:{type_}", type_, currency=currency)
        if balance:
            answer = await self.pay(await self.bank(currency), account, balance)
            assert answer.status == 201, answer
        return account

    async def bank(self, currency: str = "CNY") -> str:
        return await self.open_account(f"bank:{currency}", "bank", "platform", currency)

    async def balance(self, account: str) -> dict[str, int]:
        answer = await self.get(f"/v1/accounts/{account}")
        assert answer.status == 200, answer
        return dict(answer.json["balance"])


def answer_of(status: int, headers: CIMultiDictProxy[str], body: bytes) -> Answer:
    try:
        members = json_.loads(body)
    except ValueError:
        members = None
    return Answer(status, headers, body, members)


def new_id() -> str:
    return str(uuid.uuid4())


def line(account: str, side: str, amount: int) -> dict[str, Any]:
    return {"account": account, "side": side, "amount": amount}


def voucher(debit: str, credit: str, amount: int, id_: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a voucher of two lines: `debit` pays `credit`."""
    entries = [line(debit, "debit", amount), line(credit, "credit", amount)]
    return {"id": id_ or new_id(), "type": "pay", "entries": entries, **more}
