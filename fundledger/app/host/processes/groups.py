"""The process groups of `serve`: their configuration, and the order in which they start and stop."""

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from fundledger.app.account.config import AccountWorkerConfig
from fundledger.app.fund.channel_tokens import channel_tokens, simulator_token_file
from fundledger.app.fund.config import FundProcessConfig
from fundledger.app.fund.exposition import render as render_fund
from fundledger.app.fund.metrics import FundSnapshot
from fundledger.app.host.postgres.databases import Dsns
from fundledger.app.host.processes.group import ProcessGroup, ProcessSpec
from fundledger.app.host.processes.scrape import ACCOUNT, Scraper, Source
from fundledger.app.http.sockets import METRICS, fund_socket, fund_supervisor_socket, jobs_socket, worker_socket
from fundledger.security.tokens import read_token
from fundledger.settings import Settings, url_of

START_S: Final = 60.0
FUND_TRIES: Final = 3
"""Number of early deaths of a fund process after which the banner is printed without the fund service."""
WORKER: Final = "worker"
FUND_WORKER: Final = "fund_worker"
JOBS: Final = "daemons"
"""WORKER, FUND_WORKER and JOBS are names of kinds of processes in the metric of replaced processes."""
END_S: Final = 10.0
"""Time in seconds in which a process has to end after it has drained."""


class Known(NamedTuple):
    """Parameters of all processes, available once the databases run. `fund_token`: None if the fund service is off."""

    settings: Settings
    dsns: Dsns
    run_dir: Path
    redis_url: str
    fund_token: str | None
    api_token: str

    def shown_settings(self) -> str:
        """Return all settings as JSON without the DSNs. Each process gets separately only the DSN that it uses."""
        return self.settings.model_copy(update={"account_dsn": "", "fund_dsn": ""}).model_dump_json()


class AccountProcesses:
    """The process group of the account service, and its metrics."""

    def __init__(self, known: Known) -> None:
        workers = known.settings.workers
        self.scraper = Scraper(known.run_dir, workers, ACCOUNT, (WORKER,))
        self._drain_s = known.settings.drain_s

        def line(ordinal: int) -> bytes:
            settings = known.shown_settings()
            # If the fund service runs on another host, its token is valid, too.
            fund_token = known.fund_token or read_token(known.settings.data_dir / "fund-token")
            modules = {known.api_token: "dev"} | ({fund_token: "fund"} if fund_token else {})
            config = AccountWorkerConfig(
                ordinal, known.dsns.account, str(known.run_dir), settings, known.redis_url, modules
            )
            return msgspec.json.encode(config)

        spec = ProcessSpec(
            "worker",
            "fundledger.app.account.server",
            lambda ordinal: worker_socket(known.run_dir, ordinal),
            line,
            arguments=[str(known.settings.data_dir)],
            ended=self.scraper.ended,
            unresponsive_s=known.settings.unresponsive_s,
            replaced=lambda _, reason: self.scraper.replaced(WORKER, reason),
        )
        self._group = ProcessGroup(spec, workers)

    async def start(self) -> bool:
        """Start the workers. Return whether all serve. Raises OSError."""
        await self.scraper.open()
        self._group.start()
        return await self._group.serves(START_S)

    async def stop(self) -> None:
        await self._group.stop(self._drain_s + END_S)
        await self.scraper.close()


class FundProcesses:
    """The process groups of the fund service: workers, background jobs, and a simulator if no channel is configured."""

    def __init__(self, known: Known, token: str) -> None:
        settings = known.settings
        self._drain_s = settings.drain_s
        self.channels = settings.channel_urls()
        self.account_url = settings.account_url or url_of(settings.host, settings.port)
        self._known = known
        self._token = token
        source = Source[FundSnapshot](_nothing, self._socket, fund_supervisor_socket, {METRICS: render_fund})
        self.scraper = Scraper(known.run_dir, settings.fund_workers + settings.daemons, source, (FUND_WORKER, JOBS))
        self._workers = ProcessGroup(
            ProcessSpec(
                "fund worker",
                "fundledger.app.fund.server",
                lambda ordinal: fund_socket(known.run_dir, ordinal),
                lambda ordinal: self._line(ordinal, known.api_token),
                arguments=[str(settings.data_dir)],
                ended=self.scraper.ended,
                unresponsive_s=settings.unresponsive_s,
                replaced=lambda _, reason: self.scraper.replaced(FUND_WORKER, reason),
            ),
            settings.fund_workers,
        )
        self._jobs = ProcessGroup(
            ProcessSpec(
                "background-job process",
                "fundledger.app.fund.jobs",
                lambda ordinal: jobs_socket(known.run_dir, ordinal),
                self._line,
                arguments=[str(settings.data_dir)],
                ended=lambda ordinal: self.scraper.ended(settings.fund_workers + ordinal),
                unresponsive_s=settings.unresponsive_s,
                replaced=lambda _, reason: self.scraper.replaced(JOBS, reason),
            ),
            settings.daemons,
        )
        folder = str(settings.data_dir / "simulator")
        self._simulator = ProcessGroup(
            ProcessSpec(
                "simulator",
                "fundledger.fund.channels.simulator",
                lambda _: (settings.host, settings.simulator_port),
                arguments=[
                    *("--port", str(settings.simulator_port), "--host", settings.host, "--folder", folder),
                    *("--token-file", str(simulator_token_file(settings))),
                ],
            ),
            0 if settings.channels else 1,
        )

    async def start(self) -> bool:
        """Start all processes. Return whether all serve. Processes that fail are restarted. Raises OSError."""
        await self.scraper.open()
        groups = (self._simulator, self._workers, self._jobs)
        for group in groups:
            group.start()
        return all(await asyncio.gather(*(group.serves(START_S, FUND_TRIES) for group in groups)))

    async def stop(self) -> None:
        """Drain and stop workers and background jobs. The simulator still runs, because these processes may use it."""
        within_s = self._drain_s + END_S
        await asyncio.gather(self._workers.stop(within_s), self._jobs.stop(within_s))
        await self.scraper.close()

    async def stop_simulator(self) -> None:
        await self._simulator.stop(END_S)

    def _socket(self, run_dir: Path, ordinal: int) -> Path:
        workers = self._known.settings.fund_workers
        return fund_socket(run_dir, ordinal) if ordinal < workers else jobs_socket(run_dir, ordinal - workers)

    def _line(self, ordinal: int, api_token: str = "") -> bytes:
        known = self._known
        assert known.dsns.fund is not None
        config = FundProcessConfig(
            ordinal,
            known.dsns.fund,
            str(known.run_dir),
            known.shown_settings(),
            known.redis_url,
            self.account_url,
            self._token,
            self.channels,
            api_token,
            channel_tokens(known.settings),
        )
        return msgspec.json.encode(config)


def _nothing() -> FundSnapshot:
    return FundSnapshot(workers=0)
