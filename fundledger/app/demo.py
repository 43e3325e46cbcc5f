"""`fundledger demo`: a small platform for some seconds, on a service and a ledger of its own."""

import asyncio
import random
import signal
import socket
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp

from fundledger.app.books import run_verify
from fundledger.app.settings import Settings
from fundledger.app.supervisor import CannotServe

MERCHANTS = 20
BAR = 30


class _Platform:
    """What the demo does to the service, and what it was answered."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base
        self.answers: dict[str, int] = {}
        self.posted: list[str] = []

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._session.post(self._base + path, json=body) as response:
            answer: dict[str, Any] = await response.json(content_type=None)
            name = "posted" if response.status == 201 else str(answer.get("type", response.status)).rpartition(":")[2]
            self.answers[name] = self.answers.get(name, 0) + 1
            return answer

    async def get(self, path: str) -> dict[str, Any]:
        async with self._session.get(self._base + path) as response:
            answer: dict[str, Any] = await response.json()
            return answer

    async def open_accounts(self) -> None:
        for id_, type_ in (("bank:demo", "bank"), ("income:fee", "fee_income"), ("transit:payout", "payout_transit")):
            await self.post("/v1/accounts", {"id": id_, "owner": "platform", "type": type_, "currency": "CNY"})
        for i in range(1, MERCHANTS + 1):
            account = {"id": f"merchant:{i}", "owner": f"merchant:{i}", "type": "merchant_available", "currency": "CNY"}
            await self.post("/v1/accounts", account)
        self.answers.clear()

    async def one(self) -> None:
        """Mostly a payment with a fee; at times a withdrawal (may be refused), a refund, or a hold and its capture."""
        # Half of all traffic goes to one merchant.
        merchant = "merchant:1" if random.random() < 0.5 else f"merchant:{random.randint(1, MERCHANTS)}"
        amount = random.randint(100, 20_000)
        chance = random.random()
        if chance < 0.8 or not self.posted:
            fee = amount * 6 // 1000
            answer = await self._voucher("pay", ("bank:demo", -amount), (merchant, amount - fee), ("income:fee", fee))
            if answer.get("status") == "posted":
                self.posted.append(answer["id"])
        elif chance < 0.9:
            await self._voucher("withdraw", (merchant, -amount * 5), ("transit:payout", amount * 5))
        elif chance < 0.95:
            original = self.posted.pop(random.randrange(len(self.posted)))
            await self.post(f"/v1/vouchers/{original}/reverse", {"id": str(uuid.uuid4())})
        else:
            hold = f"hold:{uuid.uuid4()}"
            if (await self.post("/v1/holds", {"id": hold, "account": merchant, "amount": amount})).get(
                "status"
            ) == "open":
                lines = _entries((merchant, -(amount // 2)), ("transit:payout", amount // 2))
                voucher = {"id": str(uuid.uuid4()), "type": "withdraw", "entries": lines}
                await self.post(f"/v1/holds/{hold}/capture", {"voucher": voucher})

    async def _voucher(self, type_: str, *lines: tuple[str, int]) -> dict[str, Any]:
        return await self.post(
            "/v1/vouchers", {"id": str(uuid.uuid4()), "type": type_, "entries": _entries(*lines), "reference": "demo"}
        )


def _entries(*lines: tuple[str, int]) -> list[dict[str, Any]]:
    return [
        {"account": account, "side": "credit" if amount > 0 else "debit", "amount": abs(amount)}
        for account, amount in lines
        if amount
    ]


async def run_demo(settings: Settings, seconds: int, rate: int) -> int:
    """Exit status: that of the proof at the end."""
    with tempfile.TemporaryDirectory(prefix="fundledger-demo-") as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        data_dir = Path(folder)
        print("starting a ledger of its own ...", flush=True)
        command = [sys.executable, "-m", "fundledger", "serve", "--data", folder, "--port", str(port)]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        try:
            if b"ready" not in await process.stdout.readline():
                raise CannotServe("the demo's ledger did not start: see above")
            headers = {"Authorization": f"Bearer {(data_dir / 'dev-token').read_text().strip()}"}
            async with aiohttp.ClientSession(headers=headers) as session:
                await _traffic(_Platform(session, f"http://127.0.0.1:{port}"), seconds, rate)
            print("proof of the books:", flush=True)
            return await run_verify(
                settings.model_copy(update={"data_dir": data_dir, "account_dsn": ""}), as_json=False
            )
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await process.communicate()


async def _traffic(platform: _Platform, seconds: int, rate: int) -> None:
    await platform.open_accounts()
    print(
        f"{MERCHANTS} merchants opened; {rate} orders a second for {seconds} s, half of them to one merchant",
        flush=True,
    )
    watched = sys.stderr.isatty()
    started = time.monotonic()
    sent = 0
    running: set[asyncio.Task[None]] = set()
    while (elapsed := time.monotonic() - started) < seconds:
        while sent < elapsed * rate and len(running) < 500:
            task = asyncio.create_task(platform.one())
            running.add(task)
            task.add_done_callback(running.discard)
            sent += 1
        if watched:
            filled = int(BAR * elapsed / seconds)
            print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {sent:,} orders", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(0.02)
    await asyncio.gather(*running)
    if watched:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print("answers: " + ", ".join(f"{name} {count:,}" for name, count in sorted(platform.answers.items())))
    for id_ in ("bank:demo", "income:fee", "transit:payout", "merchant:1", "merchant:2"):
        account = await platform.get(f"/v1/accounts/{id_}")
        print(
            f"  {id_:16} posted {account['balance']['posted']:>14,}  available {account['balance']['available']:>14,}"
        )
