"""No-op baseline of the benchmarks: it uses the service's HTTP server and parser and sends the same response bytes, but
posts nothing.
"""

import argparse
import asyncio
import uuid

import msgspec
import uvloop
from aiohttp import web
from aiohttp.web_request import BaseRequest

from benchmarks.wire import HOST


class Entry(msgspec.Struct, gc=False):
    account: str
    side: str
    amount: int


class Voucher(msgspec.Struct, gc=False):
    id: uuid.UUID
    type: str
    entries: list[Entry]


_decode = msgspec.json.Decoder(Voucher).decode
_HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}


def answer(voucher: Voucher) -> bytes:
    """Return the response that the service renders for a posted voucher."""
    entries = ",".join([f'{{"account":"{e.account}","side":"{e.side}","amount":{e.amount}}}' for e in voucher.entries])
    return (
        f'{{"id":"{voucher.id}","type":"{voucher.type}","status":"posted","posted_at":"2026-01-31T12:00:00.000000Z",'
        f'"accounting_date":"2026-01-31","module":"dev","entries":[{entries}],"reference":null}}'
    ).encode()


async def handle(request: BaseRequest) -> web.StreamResponse:
    body = await request.read()
    if not body:
        return web.Response(body=b"{}", headers=_HEADERS)
    return web.Response(status=201, body=answer(_decode(body)), headers=_HEADERS)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(web.Server(handle), HOST, port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
