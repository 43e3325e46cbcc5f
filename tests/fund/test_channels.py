"""Channels over HTTP distinguish "not sent" from "outcome unknown". The simulator loses nothing and pays once."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from fundledger.fund.channels.channel import ChannelAway, ChannelFault, ChannelSilent, Payout, Standing, StatementLine
from fundledger.fund.channels.http import PAYOUT_BYTES_MAX, HttpChannel
from fundledger.fund.channels.simulator import Behaviour, Simulator, _cell
from tests.fund.bank import RunningBank, a_bank_process

REF = "0e8a4c5e-5f2e-8aaa-9c3b-2f5f3c1d7b11"
TODAY = datetime.now(UTC).date


@pytest.fixture
async def channel(bank: RunningBank) -> AsyncIterator[HttpChannel]:
    async with HttpChannel(bank.url, token=bank.token) as channel:
        yield channel


@contextlib.asynccontextmanager
async def answering(handler):
    """Start a server that answers every request by `handler`. Yield the URL of the server."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_payout_is_paid_and_polled(bank: RunningBank, channel: HttpChannel):
    assert await channel.query(REF) == Payout(Standing.ABSENT)
    paid = await channel.pay_out(REF, 500, "CNY")
    assert (paid.state, paid.amount) == (Standing.PAID, 500)
    assert await channel.query(REF) == paid
    assert await channel.pay_out(REF, 500, "CNY") == paid
    assert bank.totals["paid_amount"] == 500


async def test_another_amount_under_the_same_reference_is_refused_and_pays_nothing(
    bank: RunningBank, channel: HttpChannel
):
    await channel.pay_out(REF, 500, "CNY")
    with pytest.raises(ChannelSilent, match="409"):
        await channel.pay_out(REF, 501, "CNY")
    assert (bank.totals["paid_amount"], bank.totals["conflicts"]) == (500, 1)


async def test_a_payout_may_be_settled_later_and_bounce(bank: RunningBank, channel: HttpChannel):
    await bank.behave(bounce_rate=1.0, settle_after_ms=60_000)
    assert (await channel.pay_out(REF, 500, "CNY")).state is Standing.ACCEPTED
    assert (await channel.query(REF)).state is Standing.ACCEPTED
    await bank.post("/settle")
    bounced = await channel.query(REF)
    assert (bounced.state, bounced.reason) == (Standing.BOUNCED, "the payee's account is closed")
    assert await channel.statement(TODAY()) == []


async def test_a_refund_is_paid_and_polled_beside_a_payout_with_its_reference(bank: RunningBank, channel: HttpChannel):
    await channel.pay_out(REF, 700, "CNY")
    assert await channel.query_refund(REF) == Payout(Standing.ABSENT)
    refunded = await channel.refund(REF, "IN-1", 500, "CNY")
    assert (refunded.state, refunded.amount) == (Standing.PAID, 500)
    assert await channel.query_refund(REF) == refunded
    assert await channel.refund(REF, "IN-1", 500, "CNY") == refunded
    assert (await channel.query(REF)).amount == 700
    assert (bank.totals["paid_amount"], bank.totals["refunded_amount"]) == (700, 500)
    assert sorted(line.amount for line in await channel.statement(TODAY())) == [-700, -500]


@pytest.mark.parametrize(
    "terms", [("IN-1", 501, "CNY"), ("IN-2", 500, "CNY"), (None, 500, "CNY"), ("IN-1", 500, "USD")]
)
async def test_other_terms_of_a_refund_under_the_same_reference_are_refused(
    bank: RunningBank, channel: HttpChannel, terms: tuple[str | None, int, str]
):
    await channel.refund(REF, "IN-1", 500, "CNY")
    with pytest.raises(ChannelSilent, match="409"):
        await channel.refund(REF, *terms)
    assert (bank.totals["refunded_amount"], bank.totals["refund_conflicts"]) == (500, 1)
    assert (bank.totals["paid_amount"], bank.totals["conflicts"]) == (0, 0)


async def test_a_refund_may_be_settled_later_and_bounce(bank: RunningBank, channel: HttpChannel):
    await bank.behave(bounce_rate=1.0, settle_after_ms=60_000)
    assert (await channel.refund(REF, None, 500, "CNY")).state is Standing.ACCEPTED
    assert (await channel.query_refund(REF)).state is Standing.ACCEPTED
    await bank.post("/settle")
    assert (await channel.query_refund(REF)).state is Standing.BOUNCED
    assert await channel.statement(TODAY()) == []


async def test_a_lost_answer_of_a_refund_is_silence_and_an_error_did_nothing(bank: RunningBank, channel: HttpChannel):
    await bank.behave(lost_answer_rate=1.0)
    with pytest.raises(ChannelSilent):
        await channel.refund(REF, None, 500, "CNY")
    assert bank.totals["refunded_amount"] == 500
    await bank.behave(error_rate=1.0)
    with pytest.raises(ChannelSilent):
        await channel.refund(f"{REF}2", None, 500, "CNY")
    with pytest.raises(ChannelAway):
        await channel.query_refund(REF)
    assert bank.totals["refunded_amount"] == 500


async def test_a_paid_payout_returns_with_its_reference_in_the_statement(bank: RunningBank, channel: HttpChannel):
    await channel.pay_out(REF, 500, "CNY")
    for amount, ref, status in (
        (200, "BACK-1", 200),
        (200, "BACK-1", 409),  # this return exists
        (301, "BACK-2", 409),  # more than the payout
        (300, "BACK-3", 200),
        (1, "BACK-4", 409),
    ):
        assert (await bank.post(f"/payouts/{REF}/return", {"amount": amount, "channel_ref": ref}))[0] == status, ref
    assert bank.totals["returned_amount"] == 500
    assert [(line.ref, line.amount) for line in await channel.statement(TODAY())] == [
        (REF, -500),
        (REF, 200),
        (REF, 300),
    ]


@pytest.mark.parametrize("behaviour", [{"bounce_rate": 1.0}, {"settle_after_ms": 60_000}])
async def test_a_payout_that_is_not_paid_does_not_return(
    bank: RunningBank, channel: HttpChannel, behaviour: dict[str, float]
):
    body = {"amount": 500, "channel_ref": "BACK-1"}
    assert (await bank.post(f"/payouts/{REF}/return", body))[0] == 404
    await bank.behave(**behaviour)
    await channel.pay_out(REF, 500, "CNY")
    assert (await bank.post(f"/payouts/{REF}/return", body))[0] == 409
    for wrong in ({"amount": 0}, {"amount": "1"}, {"amount": 1, "channel_ref": ""}, {"ref": REF}):
        assert (await bank.post(f"/payouts/{REF}/return", wrong))[0] == 400
    assert bank.totals["returned_amount"] == 0


async def test_a_payout_returns_as_a_whole_unless_the_request_says_otherwise(bank: RunningBank, channel: HttpChannel):
    await channel.pay_out(REF, 500, "CNY")
    status, said = await bank.post(f"/payouts/{REF}/return", {})
    assert (status, said["ref"], said["amount"], said["channel_ref"][:4]) == (200, REF, 500, "RET-")


async def test_a_lost_answer_is_silence_and_the_money_is_gone(bank: RunningBank, channel: HttpChannel):
    await bank.behave(lost_answer_rate=1.0)
    with pytest.raises(ChannelSilent):
        await channel.pay_out(REF, 500, "CNY")
    assert bank.totals["paid_amount"] == 500


async def test_an_error_of_the_bank_is_silence_and_nothing_was_done(bank: RunningBank, channel: HttpChannel):
    await bank.behave(error_rate=1.0)
    with pytest.raises(ChannelSilent):
        await channel.pay_out(REF, 500, "CNY")
    with pytest.raises(ChannelAway):
        await channel.query(REF)
    await bank.behave()
    assert await channel.query(REF) == Payout(Standing.ABSENT)


async def test_an_address_without_a_server_is_away_and_not_silent():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        async with HttpChannel(f"http://127.0.0.1:{free.getsockname()[1]}") as channel:
            with pytest.raises(ChannelAway):
                await channel.pay_out(REF, 1, "CNY")
            with pytest.raises(ChannelAway):
                await channel.query(REF)
            with pytest.raises(ChannelAway):
                await channel.refund(REF, None, 1, "CNY")
            with pytest.raises(ChannelAway):
                await channel.query_refund(REF)
            with pytest.raises(ChannelAway):
                await channel.statement(TODAY())


GOOD = {"ref": REF, "state": "paid", "amount": 5, "currency": "CNY"}


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (429, {}, ChannelAway),
        (500, {}, ChannelSilent),
        (302, {}, ChannelSilent),
        (404, {}, ChannelSilent),
        (200, {}, ChannelSilent),
        (200, [GOOD], ChannelSilent),
        (200, {**GOOD, "ref": "another"}, ChannelSilent),
        (200, {**GOOD, "state": "absent"}, ChannelSilent),
        (200, {**GOOD, "amount": "5"}, ChannelSilent),
        (200, {**GOOD, "channel_ref": ""}, ChannelSilent),
        (200, {**GOOD, "note": "x" * PAYOUT_BYTES_MAX}, ChannelSilent),
        (200, {**GOOD, "note": "more is ignored"}, None),
    ],
)
async def test_an_answer_that_cannot_be_understood_says_nothing_of_the_payout(
    status: int, body: object, fault: type[ChannelFault] | None
):
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, headers={"Location": "/elsewhere"})

    async with answering(answer) as url, HttpChannel(url) as channel:
        if fault is None:
            assert (await channel.pay_out(REF, 5, "CNY")).state is Standing.PAID
            return
        with pytest.raises(fault):
            await channel.pay_out(REF, 5, "CNY")
        with pytest.raises(fault):
            await channel.refund(REF, None, 5, "CNY")
        with pytest.raises(ChannelAway):  # a 404 that the channel did not send is no absence
            await channel.query(REF)
        with pytest.raises(ChannelAway):
            await channel.query_refund(REF)


async def test_an_answer_that_does_not_come_is_silence_in_bounded_time():
    asked, never = asyncio.Event(), asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        asked.set()
        await never.wait()
        return web.Response()

    async with answering(answer) as url, HttpChannel(url, total_s=0.2) as channel:
        with pytest.raises(ChannelSilent):
            await channel.pay_out(REF, 5, "CNY")
        assert asked.is_set()
        never.set()


async def test_a_statement_shows_what_moved(bank: RunningBank, channel: HttpChannel):
    await channel.pay_out(REF, 500, "CNY")
    for _ in range(2):
        await bank.post("/receipts", {"channel_ref": "IN-1", "amount": 700})
    assert sorted(await channel.statement(TODAY()), key=lambda line: line.amount) == [
        StatementLine(REF, -500, "CNY"),
        StatementLine("IN-1", 700, "CNY"),
    ]
    _, text = await bank.get(f"/statements/{TODAY()}", Accept="text/csv")
    assert text.splitlines()[0] == "ref,channel_ref,amount,currency"
    assert len(text.splitlines()) == 3
    assert (await bank.get("/statements/today"))[0] == 400


async def test_a_statement_has_the_requested_errors_and_is_the_same_each_time(bank: RunningBank, channel: HttpChannel):
    for number in range(10):
        await bank.post("/receipts", {"channel_ref": f"IN-{number}", "amount": 100})
    await bank.behave(seed=7, extra=2, missing=3, amount=1)
    lines = await channel.statement(TODAY())
    assert len(lines) == 10 - 3 + 2
    assert [line.amount for line in lines if line.ref.startswith("IN-")].count(101) == 1
    assert await channel.statement(TODAY()) == lines
    await bank.behave(seed=7, duplicate_rate=1.0)
    assert len(await channel.statement(TODAY())) == 20


@pytest.mark.parametrize("body", [{"error_rate": 2}, {"latency": 1}, {"latency_ms": -1}, [], None])
async def test_a_behaviour_that_is_none_is_refused(bank: RunningBank, body: object):
    assert (await bank.post("/behaviour", body))[0] == 400


def test_the_knobs_of_the_simulator_are_documented():
    text = (Path(__file__).parents[2] / "docs" / "reference" / "simulator.md").read_text()
    knobs = text.partition("| Knob |")[2]
    assert [knob for knob in Behaviour.__struct_fields__ if f"`{knob}`" not in knobs] == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json", "Host": "evil.example"}, 421),
        ({"Content-Type": "application/json", "Host": "127.0.0.1.evil.example:8082"}, 421),
        ({"Content-Type": "application/json", "Host": "127.0.0.1:x"}, 421),
        ({"Content-Type": "application/json", "Origin": "https://evil.example"}, 403),
        ({"Content-Type": "application/json", "Host": "localhost:1"}, 200),
    ],
)
async def test_the_simulator_does_nothing_for_a_web_page(bank: RunningBank, headers: dict[str, str], status: int):
    async with bank._session.post("/behaviour", data=b'{"bounce_rate":1.0}', headers=headers) as response:
        assert response.status == status
    assert (bank.simulator.behaviour.bounce_rate == 1.0) is (status == 200)


@pytest.mark.parametrize("ref", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_a_cell_of_a_statement_is_no_formula(ref: str):
    assert _cell(ref) == f"'{ref}"
    assert (_cell("SIM-1"), _cell(-5)) == ("SIM-1", -5)


REQUESTS = [
    ("POST", "/payouts", {"ref": REF, "amount": 1, "currency": "CNY"}),
    ("GET", f"/payouts/{REF}", None),
    ("POST", f"/payouts/{REF}/return", {"amount": 1, "channel_ref": "BACK-1"}),
    ("POST", "/refunds", {"ref": REF, "amount": 1, "currency": "CNY"}),
    ("GET", f"/refunds/{REF}", None),
    ("GET", "/statements/2026-01-01", None),
    ("POST", "/receipts", {"channel_ref": "IN-1", "amount": 700}),
    ("POST", "/settle", None),
    ("GET", "/totals", None),
    ("GET", "/behaviour", None),
    ("POST", "/behaviour", {"bounce_rate": 1.0}),
    ("GET", "/none", None),
]


def test_every_route_of_the_simulator_is_in_the_table(tmp_path: Path):
    routes = {(r.method, r.resource.canonical) for r in Simulator(tmp_path, "t").app().router.routes() if r.resource}
    named = {(method, path.replace(REF, "{ref}").replace("2026-01-01", "{day}")) for method, path, _ in REQUESTS}
    assert {route for route in routes if route[0] != "HEAD"} - named == {("GET", "/healthz")}


@pytest.mark.parametrize(
    "sent", [None, "", "Bearer", "Bearer simulator_of_another", "Basic {token}", "{token}", "Bearer {token}x"]
)
@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_the_simulator_does_nothing_without_its_token(
    bank: RunningBank, sent: str | None, method: str, path: str, body: object
):
    await bank.behave(settle_after_ms=60_000)
    await bank.post("/payouts", {"ref": "waits", "amount": 5, "currency": "CNY"})
    before = bank.simulator.behaviour, bank.totals
    headers = {} if sent is None else {"Authorization": sent.format(token=bank.token)}
    async with aiohttp.ClientSession(bank.url) as session:
        async with session.request(method, path, json=body, headers=headers) as response:
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert list(await response.json()) == ["error"]
        async with session.get("/healthz") as response:
            assert response.status == 200
    assert (bank.simulator.behaviour, bank.totals) == before
    assert bank.simulator.bank.moved(TODAY()) == []


async def test_a_payout_without_the_token_is_not_taken_for_refused(bank: RunningBank):
    """After a 401 of the channel, the order is polled until the access token is right. A 401 never ends an order."""
    async with HttpChannel(bank.url) as channel:
        with pytest.raises(ChannelSilent, match="401"):
            await channel.pay_out(REF, 5, "CNY")
        with pytest.raises(ChannelAway, match="401"):
            await channel.query(REF)
    assert bank.totals["payouts"] == 0


async def test_the_token_file_of_a_simulator_is_made_for_its_owner_only(tmp_path: Path):
    async with a_bank_process(tmp_path) as bank:
        first, mode = bank.token, (tmp_path / "simulator-token").stat().st_mode & 0o777
        await bank.kill()
        await bank.start()
        assert (bank.token, mode) == (first, 0o600)
        assert await bank.totals() == dict.fromkeys(await bank.totals(), 0)


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o644), lambda path: path.write_text("\n")])
async def test_a_token_file_that_cannot_be_used_ends_the_simulator(tmp_path: Path, spoil: Callable[[Path], None]):
    path = tmp_path / "simulator-token"
    path.write_text("simulator_token\n")
    path.chmod(0o600)
    spoil(path)
    command = (sys.executable, "-m", "fundledger.fund.channels.simulator", "--port", "1", "--folder", str(tmp_path))
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, error = await process.communicate()
    assert process.returncode == 2
    assert len(error.decode().splitlines()) == 1
    assert str(path) in error.decode()
