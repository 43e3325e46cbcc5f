"""The callers in the locustfile: against a running service, and against a server of the test with its own limits."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.web_request import BaseRequest

from tests.benchmarks.tiny import TinyServer
from tests.support.client import Client
from tests.support.running import RunningService
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

ROOT = Path(__file__).parents[2]
LOCUST = Path(sys.executable).with_name("locust")
FUNDS = 10**12


async def locust(
    url: str, token_file: Path, out: Path, *more: str, until: Callable[[int], bool | Awaitable[bool]], **env: str
) -> "subprocess.CompletedProcess[str]":
    """Run Locust until `until(process id of Locust)` is true. Tasks that have begun are completed."""
    where = ["-f", str(ROOT / "benchmarks/locustfile.py"), "-H", url, "--token-file", str(token_file)]
    callers = ["--users", "8", "--spawn-rate", "8", "--merchants", "5", "--run-time", "240s", "--stop-timeout", "60"]
    process = subprocess.Popen(
        [LOCUST, *where, "--headless", "--only-summary", *callers, "--json-file", str(out), *more],
        env={**os.environ, **env},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    async def is_over() -> bool:
        held = until(process.pid)
        return process.poll() is not None or (await held if isinstance(held, Awaitable) else held)

    try:
        await eventually(is_over, "the callers have done what the test waits for", within_s=120)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = await asyncio.to_thread(process.communicate, timeout=120)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def rows(done: "subprocess.CompletedProcess[str]") -> dict[str, list[str]]:
    """Return the table that the locustfile prints, by name of the row: count, p50, p99, p99.9, failures."""
    found = re.findall(r"^((?:GET|POST) .{40})((?: +\S+){5})$", done.stdout, re.MULTILINE)
    return {name.strip(): cells.split() for name, cells in found}


async def test_callers_of_all_classes_get_their_answers(service: RunningService, tmp_path: Path) -> None:
    async with Client(service.base_url, service.token) as client:

        async def one_that_is_alone_has_paid(pid: int) -> bool:
            answer = await client.get(f"/v1/accounts/locust:{1_000_000 + pid % 1000 * 1000}:available")
            return answer.status == 200 and 0 < answer.json["balance"]["posted"] < FUNDS

        done = await locust(
            service.base_url, service.data_dir / "dev-token", tmp_path / "out", until=one_that_is_alone_has_paid
        )
    assert done.returncode == 0, done.stdout + done.stderr
    told = rows(done)
    for name in ("POST /v1/vouchers pay", "GET /v1/accounts/{id}", "POST /v1/vouchers alone"):
        assert int(told[name][0]) > 0
        assert re.fullmatch(r"\d+\.\d", told[name][1])
        assert told[name][4] == "0"
    kept = json.loads((tmp_path / "out.json").read_text())
    assert {of["name"] for of in kept} >= told.keys()


class Limiting:
    """A server that rejects every fourth request of a connection with 429. `polite`: with the header Retry-After."""

    def __init__(self, *, polite: bool) -> None:
        self.polite = polite
        self.denied = 0
        self.admitted = 0

    async def answer(self, request: BaseRequest, number: int) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(
                body=(
                    'fundledger_ratelimit_decisions_total{policy="merchant",api_class="payment",decision="allow",'
                    f'source="lease"}} {self.admitted}\n'
                    'fundledger_ratelimit_decisions_total{policy="merchant",api_class="payment",decision="deny",'
                    f'source="lease"}} {self.denied}\n'
                    'fundledger_ratelimit_limit_per_second{policy="merchant"} 500.0\n'
                ).encode()
            )
        headers = {"RateLimit-Policy": '"merchant";q=500;w=1'}
        if request.path != "/v1/accounts" and number % 4 == 0 and b"1000000000000" not in self.server.bodies[-1]:
            self.denied += 1
            if self.polite:
                headers["Retry-After"] = "1"
            return web.Response(status=429, headers={**headers, "X-Limit-Decision": "merchant;lease;v1"}, body=b"{}")
        self.admitted += 1
        return web.Response(status=201, headers=headers, body=b"{}")

    server: TinyServer


async def against(limiting: Limiting, tmp_path: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Run Locust until a request that was denied has been sent again."""
    (tmp_path / "token").write_text("t\n")
    with TinyServer(limiting.answer) as limiting.server:
        bodies = limiting.server.bodies
        url = f"http://127.0.0.1:{limiting.server.port}"

        def one_is_repeated(_: int) -> bool:
            sent = vouchers_of(bodies)
            return len(sent) > len(set(sent))

        return await locust(url, tmp_path / "token", tmp_path / "out", *more, until=one_is_repeated)


def never(_: int) -> bool:
    return False


def vouchers_of(bodies: list[bytes]) -> list[bytes]:
    return [body for body in bodies if b'"entries"' in body]


async def test_a_caller_that_is_asked_to_retry_later_does_so_and_it_is_no_failure(tmp_path: Path) -> None:
    limiting = Limiting(polite=True)
    done = await against(limiting, tmp_path, "Payer")
    assert done.returncode == 0, done.stdout + done.stderr
    told = rows(done)
    denied = int(told["POST /v1/vouchers pay [429]"][0])
    assert 0 < denied <= limiting.denied
    assert int(told["POST /v1/vouchers pay [again]"][0]) > 0
    vouchers = [body for body in limiting.server.bodies if b'"pay"' in body]
    assert len(vouchers) > len(set(vouchers)), "the same request again, with the same id"
    policy = re.search(r"^merchant +500 in 1 s +(\d+) +\S+ +(\d+)", done.stdout, re.MULTILINE)
    assert policy is not None, done.stdout
    assert int(policy[1]) > int(policy[2]) > 0
    assert "limited (429), by policy: {'merchant':" in done.stdout


async def test_a_refusal_that_does_not_say_when_to_come_back_is_a_failure(tmp_path: Path) -> None:
    done = await against(Limiting(polite=False), tmp_path, "Payer")
    assert done.returncode == 1
    assert int(rows(done)["POST /v1/vouchers pay [429]"][4]) > 0
    assert "429 with Retry-After ''" in done.stdout + done.stderr


async def test_who_is_alone_must_get_through_after_the_wait(tmp_path: Path) -> None:
    """The server rejects every fourth request, also after the client has waited as long as asked."""

    class Stubborn(Limiting):
        async def answer(self, request: BaseRequest, number: int) -> web.StreamResponse:
            if self.denied and request.path == "/v1/vouchers":
                number = 4
            return await super().answer(request, number)

    done = await against(Stubborn(polite=True), tmp_path, "Alone")
    assert done.returncode == 1
    assert "denied by merchant after its Retry-After of 1 s" in done.stdout + done.stderr
    assert re.search(r"alone: 0 of [1-9]", done.stdout)


async def test_load_that_grows_in_steps(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t\n")
    limiting = Limiting(polite=True)
    with TinyServer(limiting.answer) as limiting.server:
        url = f"http://127.0.0.1:{limiting.server.port}"
        done = await locust(
            url, tmp_path / "token", tmp_path / "out", "Reader", "--run-time", "4s", until=never, SHAPE="steps"
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [int(n) for n in re.findall(r"Shape test updating to (\d+) users", done.stderr)] == [8, 16, 32, 64]
