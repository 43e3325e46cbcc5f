"""Host supervisor (`fundledger serve`): starts, restarts and stops the databases and the processes of both services."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg

from fundledger.accounting_days import CalendarDiffers
from fundledger.app.console.terminal import say
from fundledger.app.fund.channel_tokens import channel_tokens, make_simulator_token
from fundledger.app.host.banner import Running, banner
from fundledger.app.host.calendars import agree_on_calendar
from fundledger.app.host.dev_persons import DEV_PERSON_FILES, make_dev_persons
from fundledger.app.host.log_file import LogFile
from fundledger.app.host.postgres.databases import Dsns, migrate_account, migrate_fund
from fundledger.app.host.postgres.identity import ACCOUNT, FUND
from fundledger.app.host.postgres.roles import service_dsn
from fundledger.app.host.postgres.server import EmbeddedPostgres, PostgresFault
from fundledger.app.host.preflight import CannotServe, lock, wait_for_port, write_secret
from fundledger.app.host.private_files import mend_modes
from fundledger.app.host.processes.groups import AccountProcesses, FundProcesses, Known
from fundledger.app.host.socket_folder import run_dir
from fundledger.app.host.valkey import EmbeddedValkey, ValkeyFault
from fundledger.app.http.admission.policies import read_policies
from fundledger.app.http.sockets import remove_left_over
from fundledger.app.http.wire.connections import raise_descriptor_limit
from fundledger.database.migrations import SchemaFault
from fundledger.security.keys import KeyFault
from fundledger.security.tokens import module_token, read_token
from fundledger.settings import Settings

BOUND_EVERY_S: Final = 1.0
_log = logging.getLogger(__name__)
T = TypeVar("T")


class Supervisor:
    """The parent of all processes. `run` returns after a stop signal, when all processes have drained."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._postgres: EmbeddedPostgres | None = None
        self._valkey: EmbeddedValkey | None = None
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP. Raises CannotServe, BadSetting."""
        raise_descriptor_limit()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # SIGHUP stays ignored under `nohup`. SIGINT is handled even if a shell has set it to ignored, as for `&`.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._stopping.set)
        try:
            async with contextlib.AsyncExitStack() as ending:
                ending.callback(lock(self._settings.data_dir).close)
                await self._serve(ending)
        except (KeyFault, PostgresFault, SchemaFault, CalendarDiffers) as fault:
            raise CannotServe(str(fault)) from None
        except (OSError, asyncpg.PostgresError) as error:
            # The cause is outside: a full disk, a missing permission. Later faults are handled where they occur.
            raise CannotServe(" ".join(f"{type(error).__name__}: {error}".split())) from error

    async def _serve(self, ending: contextlib.AsyncExitStack) -> None:
        """Serve until a stop signal. `ending` stops everything in reverse order of start: clients before servers.

        Raises CannotServe, BadSetting, KeyFault, PostgresFault, SchemaFault.
        """
        await self._wait_for_ports()
        known = await self._prepare(ending)
        keeping = asyncio.create_task(self._keep_postgres())
        ending.push_async_callback(_cancelled, keeping)
        over = asyncio.create_task(self._until_over(keeping))
        ending.push_async_callback(_cancelled, over)
        account = AccountProcesses(known)
        fund = None if known.fund_token is None else FundProcesses(known, known.fund_token)
        if fund is not None:
            ending.push_async_callback(fund.stop_simulator)
        ending.push_async_callback(account.stop)
        if fund is not None:
            ending.push_async_callback(fund.stop)
        ending.callback(self._say_goodbye)
        if await _unless(over, account.start()) is False:
            raise CannotServe("the workers do not start: see the log above")
        fund_serves = None if fund is None else await _unless(over, fund.start())
        if not over.done():
            say(banner(self._settings, self._running(fund, fund_serves)))
        await over

    def _say_goodbye(self) -> None:
        say("fundledger: stopping; accepted requests are finished first")
        self._stopping.set()

    async def _wait_for_ports(self) -> None:
        settings = self._settings
        ports = {"PORT": settings.port}
        if settings.fund == "on":
            ports["FUND_PORT"] = settings.fund_port
            if not settings.channels:
                ports["SIMULATOR_PORT"] = settings.simulator_port
        await asyncio.gather(*(wait_for_port(settings.host, port, name) for name, port in ports.items()))

    async def _prepare(self, ending: contextlib.AsyncExitStack) -> Known:
        settings, folder = self._settings, self._settings.data_dir
        with_fund = settings.fund == "on"
        modules = ("dev", "fund") if with_fund else ("dev",)
        for module in modules:
            read_token(folder / f"{module}-token")
        for name in DEV_PERSON_FILES:
            read_token(folder / name)
        channel_tokens(settings)
        if settings.ratelimit != "off":
            read_policies(settings)
        mend_modes(folder)
        run = run_dir(folder)
        own_fund = with_fund and not settings.fund_dsn
        if own_fund or not settings.account_dsn:
            self._postgres = EmbeddedPostgres(folder, settings.postgres_memory_mb, fund=own_fund)
            ending.push_async_callback(self._postgres.stop)
            ending.push_async_callback(_cancelled, asyncio.create_task(self._bound(self._postgres.log)))
        redis_url = settings.redis_url
        if not redis_url:
            self._valkey = EmbeddedValkey(folder)
            redis_url = self._valkey.url
            ending.push_async_callback(self._valkey.stop)
            ending.push_async_callback(_cancelled, asyncio.create_task(self._bound(self._valkey.log)))
            ending.push_async_callback(_cancelled, asyncio.create_task(self._keep_valkey(self._valkey)))
        dsns = Dsns(settings.account_dsn, settings.fund_dsn if with_fund else None)
        if self._postgres is not None:
            await self._postgres.start()
            # A configured DSN replaces the embedded database.
            if not settings.account_dsn:
                dsns = dsns._replace(account=self._postgres.dsn)
                write_secret(folder / "account-dsn", dsns.account + "\n")
            if own_fund:
                dsns = dsns._replace(fund=self._postgres.fund_dsn)
                write_secret(folder / "fund-dsn", self._postgres.fund_dsn + "\n")
        remove_left_over(run)
        done = await migrate_account(dsns.account, settings)
        if dsns.fund is not None:
            done += await migrate_fund(dsns.fund, settings)
            if not settings.account_url:
                await agree_on_calendar(dsns.fund, settings)
            if settings.profile == "dev":
                await make_dev_persons(dsns.fund, settings)
        # The DSN files are for the operator's tools. The services use roles with fewer rights.
        if not settings.account_dsn:
            dsns = dsns._replace(account=await service_dsn(dsns.account, ACCOUNT))
        if own_fund and dsns.fund is not None:
            dsns = dsns._replace(fund=await service_dsn(dsns.fund, FUND))
        make_simulator_token(settings)
        tokens = {module: _token(folder, module, new="0001_ledger.sql" in done) for module in modules}
        fund_token = tokens.get("fund")
        return Known(settings, dsns, run, redis_url, fund_token, tokens["dev"])

    async def _until_over(self, keeping: "asyncio.Task[None]") -> None:
        """Wait for a stop signal. Raises the fault that prevents Postgres from running."""
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([stopping, keeping], return_when=asyncio.FIRST_COMPLETED)
            if keeping.done():
                keeping.result()
        finally:
            stopping.cancel()

    async def _keep_postgres(self) -> None:
        if self._postgres is None:
            await self._stopping.wait()
            return
        while True:
            code = await self._postgres.wait()
            if self._stopping.is_set():
                return
            _log.error("the embedded Postgres died and is restarted", extra={"event": "postgres_died", "code": code})
            await self._postgres.start()

    async def _keep_valkey(self, valkey: EmbeddedValkey) -> None:
        """Start Valkey, and restart it when it has died. Workers use local quotas until Valkey answers."""
        loop = asyncio.get_running_loop()
        pause = 0.0
        while not self._stopping.is_set():
            started = loop.time()
            try:
                await valkey.start()
                code = await valkey.wait()
                if self._stopping.is_set():
                    return
                _log.error("the embedded Valkey died and is restarted", extra={"event": "valkey_died", "code": code})
            except ValkeyFault as fault:
                _log.error("%s; workers use local quotas until it starts", fault, extra={"event": "valkey_unavailable"})
            except Exception:
                _log.exception(
                    "the embedded Valkey cannot be restarted; workers use local quotas until it starts",
                    extra={"event": "valkey_unavailable"},
                )
            pause = 0.0 if loop.time() - started > 5 else min(30.0, pause * 2 + 0.2)
            await self._pause(pause)

    async def _bound(self, log: LogFile) -> None:
        """Truncate a log file whenever it is too long, until cancelled."""
        while True:
            await asyncio.sleep(BOUND_EVERY_S)
            log.bound()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _running(self, fund: FundProcesses | None, fund_serves: bool | None) -> Running:
        if self._valkey is None:
            limits = "FUNDLEDGER_REDIS_URL"
        elif self._valkey.is_running():
            limits = str(self._valkey.socket_path)
        else:
            limits = f"no Valkey, see {self._valkey.log.path}"
        if fund is None:
            return Running(limits, None, {})
        return Running(limits, bool(fund_serves), fund.channels)


def _token(folder: Path, module: str, *, new: bool) -> str:
    """Return the access token of a client system. Create a missing token, with a warning unless the ledger is new."""
    path = folder / f"{module}-token"
    if not (new or path.exists()):
        _log.warning(
            "%s was missing and a new token is created: requests with the old token are answered 401; to keep the old "
            "token, restore the file and restart",
            path,
            extra={"event": "token_made"},
        )
    return module_token(path, module)


async def _unless(over: "asyncio.Task[None]", doing: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `doing`. If `over` finishes first, cancel `doing` and return None."""
    task = asyncio.create_task(doing)
    await asyncio.wait([task, over], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        return task.result()
    await _cancelled(task)
    return None


async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
