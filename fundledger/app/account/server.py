"""Account-service worker process: `python -m fundledger.app.account.server`, configuration on standard input."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from datetime import time
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg

from fundledger.app.account import events, holds, vouchers
from fundledger.app.account.config import AccountWorkerConfig
from fundledger.app.account.metrics import Metrics
from fundledger.app.account.routes import PAGES, ROUTES
from fundledger.app.account.service import Daemons, Service
from fundledger.app.account.sweep import Sweeper
from fundledger.app.http.admission.policies import build_limiter
from fundledger.app.http.process import LogOptions, freeze_memory, open_listener, run_process, serving
from fundledger.app.http.routing import Router
from fundledger.app.http.wire.connections import raise_descriptor_limit
from fundledger.hotspot import buffer_drainer as folders
from fundledger.hotspot import rebalancer as keepers
from fundledger.hotspot.buffer_drainer import BufferDrainer
from fundledger.hotspot.detector import Thresholds
from fundledger.hotspot.direct import CONNECTIONS, Direct
from fundledger.hotspot.flusher import Flusher
from fundledger.hotspot.heat import HeatSampler
from fundledger.hotspot.lane import Lane
from fundledger.hotspot.rebalancer import Rebalancer
from fundledger.jobs.runner import JobRunner
from fundledger.ledger.context import Books
from fundledger.ledger.model.clock import AccountingCalendar
from fundledger.ledger.store.directory import Directory
from fundledger.ledger.store.keys import open_keys
from fundledger.ledger.store.migrate import read_layout
from fundledger.ledger.store.session import Session
from fundledger.ledger.store.write_cache import WriteCache
from fundledger.security.process_memory import hide_memory
from fundledger.security.tokens import Tokens
from fundledger.settings import Settings

_log = logging.getLogger(__name__)


async def build(
    settings: Settings,
    dsn: str,
    ordinal: int,
    run_dir: Path,
    *,
    redis_url: str = "",
    modules: Mapping[str, str] | None = None,
) -> Service:
    """Return a service on a migrated database. `modules` maps each token to its module.

    Raises SchemaFault, KeyFault, and asyncpg errors if the database cannot be reached.
    """
    connection = await asyncpg.connect(dsn)
    try:
        layout = await read_layout(connection)
        keys = await open_keys(connection, settings.data_dir / "keys")
    finally:
        await connection.close()
    pool = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=settings.read_connections,
        command_timeout=30,
        server_settings={"application_name": f"fundledger reads {ordinal}", "jit": "off"},
    )
    own = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=1,
        command_timeout=5,
        server_settings={"application_name": f"fundledger daemons {ordinal}", "jit": "off"},
    )
    directory = Directory(keys)
    calendar = AccountingCalendar(ZoneInfo(settings.accounting_timezone), settings.accounting_cut or time(0))
    books = Books(keys, directory, layout, calendar, ordinal, settings.journal == "summary")
    metrics = Metrics()
    lanes: list[Lane | Direct] = []
    thermometer = HeatSampler()
    sessions: list[Session] = []
    flusher: Flusher | None = None
    if settings.posting == "direct":
        sessions = [
            Session(dsn, f"fundledger direct {ordinal}.{i}", WriteCache(0), metrics.commits) for i in range(CONNECTIONS)
        ]
        lanes = [Direct(sessions, books, metrics, settings.buffer_depth_max)] * layout.shards
    else:
        flusher = (
            Flusher(dsn, f"fundledger flush {ordinal}", metrics.commits) if settings.early_release == "on" else None
        )
        if flusher is not None:
            await flusher.open()
        for shard in range(layout.shards):
            session = Session(dsn, f"fundledger lane {ordinal}.{shard}", commits=metrics.commits)
            await session.open()
            depth, size = settings.buffer_depth_max, settings.batch_size_max
            lanes.append(Lane(session, books, metrics, depth, size, thermometer=thermometer, flusher=flusher))
            sessions.append(session)
    thresholds = Thresholds(
        settings.heat_promote,
        settings.heat_promote_s,
        settings.heat_demote,
        settings.heat_demote_s,
        settings.heat_share,
    )
    name = f"{socket.gethostname()}:{run_dir}:{ordinal}"
    keeper = Rebalancer(dsn, name, books, thermometer, sessions, thresholds, acts=settings.splitting == "auto")
    folder = BufferDrainer(dsn, name, books, settings.buffered_max, settings.buffered_lag_max_s)
    daemons = Daemons(keeper, folder)
    name = f"{socket.gethostname()}:{run_dir}:{ordinal}:{os.getpid()}"
    limiter = build_limiter(settings, redis_url, name)
    service = Service(
        settings,
        layout,
        keys,
        directory,
        lanes,
        daemons,
        flusher,
        pool,
        Tokens.of(dict(modules or {})),
        metrics,
        run_dir,
        ordinal,
        limiter=limiter,
        feed=events.account_feed(dsn, pool, directory, str(ordinal)),
    )
    led = [(keeper.tally, keepers.ALARM_S), (folder.tally, folders.ALARM_S)]
    sweeper = Sweeper(pool, directory, layout)
    service.runner = JobRunner(own, [holds.Expiry(service).job(), sweeper.job()], name, led=led)
    return service


async def serve(config: AccountWorkerConfig, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then answer the accepted requests and return."""
    settings = Settings.model_validate_json(config.settings)
    service = await build(
        settings, config.dsn, config.ordinal, Path(config.run_dir), redis_url=config.redis_url, modules=config.modules
    )
    PAGES.make(settings)
    listener = open_listener(settings.host, settings.port)
    loop = asyncio.get_running_loop()
    works = (service.runner.run(), service.daemons.keeper.run(), service.daemons.folder.run())
    jobs = [loop.create_task(work) for work in works]
    async with serving(service, Router(ROUTES), vouchers.FAST_PATH, listener, service.snapshot, jobs):
        freeze_memory()
        _log.info("worker is ready", extra={"event": "worker_ready", "worker": config.ordinal, "port": settings.port})
        await stopping.wait()
        _log.info("worker is draining", extra={"event": "worker_draining", "worker": config.ordinal})
        service.feed.stop()
        for job in jobs:
            job.cancel()


def _log_options(config: AccountWorkerConfig) -> LogOptions:
    settings = Settings.model_validate_json(config.settings)
    return LogOptions(str(config.ordinal), settings.log_level, settings.log_format)


def main() -> None:
    hide_memory()
    raise_descriptor_limit()
    run_process(AccountWorkerConfig, _log_options, serve)


if __name__ == "__main__":
    main()
