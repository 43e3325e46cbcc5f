"""Bank simulator of the fund service: a payment channel in its own process. Start it with
`python -m fundledger.fund.channels.simulator --port 8082 --folder DIR`.

Every request except `GET /healthz` needs the simulator's bearer token, which is in a file. Payouts and refunds are
stored in DIR/simulator.db before their requests are answered, so a kill loses nothing. `POST /behaviour` configures
faults. A configured seed makes the faults repeatable. Whether a payout or a refund bounces depends only on the seed and
its reference. Whether a request is answered depends only on the seed and the request's number since the start.
"""

import argparse
import asyncio
import contextlib
import csv
import hashlib
import io
import os
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from fundledger.fund.channels.simulator_bank import (
    Bank,
    Kept,
    Line,
    PayoutBody,
    ReceiptBody,
    RefundBody,
    ReturnBody,
    now_ms,
)
from fundledger.outbox.destination import address_in
from fundledger.security.keys import KeyFault
from fundledger.security.tokens import Tokens, module_token

LINES_MAX: Final = 10_000
TOKEN_FILE: Final = "simulator-token"  # noqa: S105 - the name of a file
OPEN_PATHS: Final = frozenset({"/healthz"})
"""Paths of requests that need no token, because they return no data of the bank and change nothing."""

Body = TypeVar("Body")
Rate = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=30 * 86_400_000)]
Count = Annotated[int, msgspec.Meta(ge=0, le=LINES_MAX)]


class Behaviour(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The configured faults. `error_rate` and `lost_answer_rate` are fractions of requests, `bounce_rate` is a fraction
    of payouts and refunds, `duplicate_rate` is a fraction of statement lines. `extra`, `missing` and `amount` are the
    numbers of lines that a statement has too many, lacks, or has with a wrong amount.
    """

    seed: int = 0
    latency_ms: Milliseconds = 0
    error_rate: Rate = 0.0
    lost_answer_rate: Rate = 0.0
    bounce_rate: Rate = 0.0
    settle_after_ms: Milliseconds = 0
    duplicate_rate: Rate = 0.0
    extra: Count = 0
    missing: Count = 0
    amount: Count = 0


class Simulator:
    """The HTTP service of the simulator. Requests have to send `token`. `behaviour` may be changed while the service
    runs.
    """

    def __init__(self, folder: Path, token: str, behaviour: Behaviour | None = None) -> None:
        self.bank = Bank(folder)
        self._tokens = Tokens.of({token: "simulator"})
        self.behaviour = behaviour or Behaviour()
        self._requests = 0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 10, middlewares=[_not_from_a_page, self._authenticated])
        app.add_routes(
            [
                web.get("/healthz", self._health),
                web.post("/payouts", self._pay_out),
                web.get("/payouts/{ref}", self._query),
                web.post("/payouts/{ref}/return", self._return),
                web.post("/refunds", self._refund),
                web.get("/refunds/{ref}", self._query_refund),
                web.get("/statements/{day}", self._statement),
                web.post("/receipts", self._receive),
                web.post("/settle", self._settle),
                web.get("/totals", self._totals),
                web.get("/behaviour", self._behaviour),
                web.post("/behaviour", self._behave),
            ]
        )
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, _: web.Application) -> None:
        self.bank.close()

    @web.middleware
    async def _authenticated(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Reject each request that does not have the token. The body of a rejected request is not read."""
        if request.path not in OPEN_PATHS and self._tokens.module(request.headers.get("Authorization")) is None:
            answer = _json({"error": "authentication required: send Authorization: Bearer TOKEN"}, 401)
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    async def _pay_out(self, request: web.Request) -> web.Response:
        """Return the payout with status 200, or with 202 until it is settled. Return 409 if the reference exists with
        another amount or payee.
        """
        return await self._sent(request, await _body(request, PayoutBody))

    async def _refund(self, request: web.Request) -> web.Response:
        """Return the refund, as `_pay_out` returns a payout. The simulator does not know the payments."""
        return await self._sent(request, await _body(request, RefundBody))

    async def _sent(self, request: web.Request, body: PayoutBody | RefundBody) -> web.Response:
        number = self._numbered()
        await self._late()
        if self._fate("error", number) < self.behaviour.error_rate:
            return _json({"error": "out of order"}, 500)
        outcome = "bounced" if self._fate("bounce", body.ref) < self.behaviour.bounce_rate else "paid"
        kept = self.bank.pay(body, outcome, self.behaviour.settle_after_ms)
        asked = body.amount, body.currency, getattr(body, "original_ref", None), getattr(body, "payee_json", None)
        if (kept.amount, kept.currency, kept.original_ref, kept.payee) != asked:
            return _json({"error": "this ref is used by another payout or refund", "ref": body.ref}, 409)
        if self._fate("lost", number) < self.behaviour.lost_answer_rate:
            return _never(request)
        return self._status_of(kept)

    async def _query(self, request: web.Request) -> web.Response:
        return await self._status(request)

    async def _query_refund(self, request: web.Request) -> web.Response:
        return await self._status(request, is_refund=True)

    async def _status(self, request: web.Request, *, is_refund: bool = False) -> web.Response:
        number = self._numbered()
        await self._late()
        if self._fate("error", number) < self.behaviour.error_rate:
            return _json({"error": "out of order"}, 500)
        if self._fate("lost", number) < self.behaviour.lost_answer_rate:
            return _never(request)
        ref = request.match_info["ref"]
        kept = self.bank.read(ref, is_refund=is_refund)
        return _json({"ref": ref, "state": "absent"}, 404) if kept is None else self._status_of(kept)

    async def _return(self, request: web.Request) -> web.Response:
        """Let the payee's bank return a paid payout. The statement of the day gets a line with the reference of the
        payout, and with the returned amount. Return 404 if there is no such payout, 409 if it cannot return.
        """
        body, ref = await _body(request, ReturnBody), request.match_info["ref"]
        kept = self.bank.read(ref)
        if kept is None:
            return _json({"ref": ref, "state": "absent"}, 404)
        returned = self.bank.return_payout(kept, body)
        return _json({"error": "the payout is not paid, or has returned"}, 409) if returned is None else _json(returned)

    def _status_of(self, kept: Kept) -> web.Response:
        settled = kept.settles_ms <= now_ms()
        said: dict[str, Any] = {"ref": kept.ref, "state": kept.outcome if settled else "accepted"}
        said |= {"amount": kept.amount, "currency": kept.currency, "channel_ref": kept.channel_ref, "asked": kept.asked}
        if kept.payee is not None:
            said["payee"] = msgspec.Raw(kept.payee.encode())
        if settled and kept.outcome == "bounced":
            said["reason"] = "the payee's account is closed"
        return _json(said, 200 if settled else 202)

    async def _statement(self, request: web.Request) -> web.Response:
        """Return a statement in JSON, or in CSV if `Accept` names CSV. The same seed produces the same faults in it."""
        try:
            day = date.fromisoformat(request.match_info["day"])
        except ValueError:
            return _json({"error": "the day must be YYYY-MM-DD"}, 400)
        await self._late()
        lines = self._wrong(day, self.bank.moved(day))
        if "text/csv" in request.headers.get("Accept", ""):
            text = io.StringIO()
            writer = csv.writer(text)
            writer.writerow(Line.__struct_fields__)
            writer.writerows([_cell(value) for value in msgspec.structs.astuple(line)] for line in lines)
            return web.Response(text=text.getvalue(), content_type="text/csv")
        return _json({"day": day.isoformat(), "statement_no": f"SIM-{day.isoformat()}", "lines": lines})

    def _wrong(self, day: date, lines: list[Line]) -> list[Line]:
        """Apply the configured faults to the lines of a statement, and return the wrong lines and the others. `missing`
        lines are omitted. The amounts of `amount` other lines are changed by 1 minor unit. Some lines are repeated.
        `extra` lines are added. The seed determines which lines are wrong.
        """
        behaviour = self.behaviour
        chance = sorted(lines, key=lambda line: self._fate("line", line.ref, line.amount))
        left_out = {id(line) for line in chance[: behaviour.missing]}
        changed = {id(line) for line in chance[behaviour.missing : behaviour.missing + behaviour.amount]}
        shown = []
        for line in lines:
            if id(line) in left_out:
                continue
            one_more = 1 if line.amount > 0 else -1
            sent = msgspec.structs.replace(line, amount=line.amount + one_more) if id(line) in changed else line
            twice = self._fate("twice", line.ref, line.amount) < behaviour.duplicate_rate
            shown += [sent, sent] if twice else [sent]
        for number in range(behaviour.extra):
            ref = f"EXTRA-{day.isoformat()}-{number}"
            shown.append(Line(ref, ref, 1 + int(self._fate("extra", ref) * 10_000), "CNY"))
        return shown

    async def _receive(self, request: web.Request) -> web.Response:
        body = await _body(request, ReceiptBody)
        if body.amount == 0:
            return _json({"error": "the amount must not be 0"}, 400)
        self.bank.receive(body)
        return _json({"channel_ref": body.channel_ref})

    async def _settle(self, _: web.Request) -> web.Response:
        self.bank.settle()
        return _json(self.bank.totals())

    async def _totals(self, _: web.Request) -> web.Response:
        return _json(self.bank.totals())

    async def _behaviour(self, _: web.Request) -> web.Response:
        return _json(self.behaviour)

    async def _behave(self, request: web.Request) -> web.Response:
        """Replace the configured faults. A member that the request omits gets its default."""
        self.behaviour = await _body(request, Behaviour)
        return _json(self.behaviour)

    async def _late(self) -> None:
        if self.behaviour.latency_ms:
            await asyncio.sleep(self.behaviour.latency_ms / 1000)

    def _numbered(self) -> int:
        self._requests += 1
        return self._requests

    def _fate(self, *what: object) -> float:
        """Return a pseudo-random number from 0 to 1 that depends only on the seed and the arguments."""
        named = ":".join(map(str, (self.behaviour.seed, *what)))
        return int.from_bytes(hashlib.sha256(named.encode()).digest()[:8], "big") / 2**64


@web.middleware
async def _not_from_a_page(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Reject requests that a web page of another origin can send. Such a request has a host name that resolves to this
    machine (DNS rebinding), or a body that is not JSON. A page cannot send JSON: the browser first sends a CORS
    preflight, which fails.
    """
    try:
        host = URL.build(scheme="http", authority=request.host).host or ""
    except ValueError:
        host = ""
    if host != "localhost" and address_in(host) is None:
        return _json({"error": "the Host header must be an IP address or localhost"}, 421)
    if request.method == "POST" and request.can_read_body and request.content_type != "application/json":
        return _json({"error": "the Content-Type must be application/json"}, 415)
    if "Origin" in request.headers:
        return _json({"error": "requests from web pages are not allowed"}, 403)
    return await handler(request)


def _cell(value: object) -> object:
    """Return a value as a CSV cell. If a spreadsheet would evaluate the text as a formula, an apostrophe is put before
    it.
    """
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


async def _body(request: web.Request, type_: type[Body]) -> Body:
    try:
        return msgspec.json.decode(await request.read(), type=type_)
    except msgspec.MsgspecError as error:
        text = msgspec.json.encode({"error": str(error)}).decode()
        raise web.HTTPBadRequest(text=text, content_type="application/json") from error


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def _never(request: web.Request) -> web.Response:
    """Abort the connection without an answer. The simulator has executed the request before."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def main() -> None:
    """Run the simulator until SIGINT or SIGTERM. Exit with status 2 if the token cannot be used."""
    parser = argparse.ArgumentParser(prog="fundledger.fund.channels.simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8082)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--token-file", type=Path, help=f"created if it does not exist (default: {TOKEN_FILE} in the folder)"
    )
    arguments = parser.parse_args()
    os.umask(0o077)
    try:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        token = module_token(arguments.token_file or arguments.folder / TOKEN_FILE, "simulator")
    except (KeyFault, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    simulator = Simulator(arguments.folder, token, Behaviour(seed=arguments.seed))
    with contextlib.suppress(KeyboardInterrupt):
        web.run_app(simulator.app(), host=arguments.host, port=arguments.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
