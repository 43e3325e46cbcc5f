"""A webhook endpoint for tests."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Self

import msgspec
from aiohttp import web


class Endpoint:
    """An HTTP server that records requests in `got` and answers them with `status`."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __aenter__(self) -> Self:
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/hook"  # type: ignore[union-attr]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go_on.set()
        await self._runner.cleanup()

    async def _answer(self, request: Any) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        await self.go_on.wait()
        return web.Response(status=self.status, headers=self.headers)

    def seqs(self) -> list[int]:
        return [msgspec.json.decode(body)["seq"] for _, body in self.got]


def is_signed(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    """Return whether the signature of a webhook is valid according to Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{expected}"
