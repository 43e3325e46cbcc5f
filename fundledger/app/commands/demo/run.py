"""Demo: the services of the day. They run in a temporary directory, and stop at the end."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from fundledger.app.commands.books import run_verify
from fundledger.app.commands.demo.bank import Bank
from fundledger.app.commands.demo.day import Day, Unexpected
from fundledger.app.host.preflight import CannotServe
from fundledger.client import AccountService, Fault, FundService, Refused
from fundledger.settings import PREFIX, SIMULATOR_TOKEN, Settings


async def run_demo(settings: Settings, seconds: int, rate: int, keep: bool) -> int:
    """Run the demo and return the exit status of the final verification. `keep`: the services run until Ctrl-C.

    Raises CannotServe if the services do not start, or if a step of the day fails.
    """
    with tempfile.TemporaryDirectory(prefix="fundledger-demo-") as folder:
        data_dir = Path(folder)
        ports = _free_ports()
        print("starting temporary services and a simulated bank ...", flush=True)
        with tempfile.NamedTemporaryFile(prefix="fundledger-demo-", suffix=".log", delete=False) as log_file:
            log = Path(log_file.name)
            process = await asyncio.create_subprocess_exec(
                *_serve(data_dir, ports),
                stdout=asyncio.subprocess.PIPE,
                stderr=log_file,
                env=_environment(ports),
            )
        assert process.stdout is not None
        try:
            if b"ready" not in await process.stdout.readline():
                raise CannotServe(f"the demo's services did not start: see {log}")
            await _run_day(data_dir, ports, seconds, rate)
            print("Verification of the books of both databases and of their agreement:", flush=True)
            ours = {"data_dir": data_dir, "account_dsn": "", "fund_dsn": "", "fund": "on"}
            status = await run_verify(lambda: settings.model_copy(update=ours), as_json=False)
            if keep:
                await _keep(process, data_dir, ports)
        except (Fault, Refused, Unexpected, aiohttp.ClientError) as error:
            raise CannotServe(f"a step of the demo failed: {error}; the services' log is {log}") from None
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
                await process.communicate()
        if status == 0:
            await asyncio.to_thread(log.unlink)
        return status


async def _run_day(data_dir: Path, ports: Sequence[int], seconds: int, rate: int) -> None:
    files = ("dev-token", "dev-checker-token", SIMULATOR_TOKEN)
    token, checker_token, bank_token = ((data_dir / name).read_text().strip() for name in files)
    account_url, fund_url, bank_url = (f"http://127.0.0.1:{port}" for port in ports)
    async with (
        AccountService(account_url, token) as accounts,
        FundService(fund_url, token, connections=400) as fund,
        FundService(fund_url, checker_token) as checker,
        Bank(bank_url, bank_token) as bank,
    ):
        await Day(accounts, fund, checker, bank, seconds, rate).run()


async def _keep(process: asyncio.subprocess.Process, data_dir: Path, ports: Sequence[int]) -> None:
    """Print where the services are, and wait for SIGINT, SIGTERM or the end of the services."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    account_url, fund_url, bank_url = (f"http://127.0.0.1:{port}" for port in ports)
    print(
        f"The services keep running:\n"
        f"  account service  {account_url}    reference {account_url}/docs\n"
        f"  fund service     {fund_url}    reference {fund_url}/docs\n"
        f"  simulator        {bank_url}\n"
        f"  tokens           {data_dir / 'dev-token'}, {data_dir / 'dev-checker-token'}\n"
        f"  try              curl -s {fund_url}/v1/merchants/tea-house/bill "
        f'-H "Authorization: Bearer $(cat {data_dir / "dev-token"})" -H "Accept: text/csv"\n'
        f"  Ctrl-C stops them and deletes their data",
        flush=True,
    )
    waits = {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(process.wait())}
    _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in pending:
        wait.cancel()


def _serve(data_dir: Path, ports: Sequence[int]) -> list[str]:
    command = [sys.executable, "-m", "fundledger", "serve", "--data", str(data_dir)]
    return [*command, "--port", str(ports[0]), "--fund-port", str(ports[1])]


def _environment(ports: Sequence[int]) -> dict[str, str]:
    """Return this process's environment without settings that name external databases, services or channels."""
    others = {f"{PREFIX}{name}" for name in ("ACCOUNT_DSN", "FUND_DSN", "ACCOUNT_URL", "CHANNELS", "FUND")}
    ours = {name: value for name, value in os.environ.items() if name not in others}
    return {**ours, f"{PREFIX}SIMULATOR_PORT": str(ports[2])}


def _free_ports() -> list[int]:
    """Return free ports for the account service, the fund service and the bank, in this order."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(3)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
