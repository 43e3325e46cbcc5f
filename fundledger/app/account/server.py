"""Account-service worker process: `python -m fundledger.app.account.server`, configuration on standard input."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import asyncpg

from fundledger.app.account.config import AccountWorkerConfig
from fundledger.app.account.handlers import events, vouchers
from fundledger.app.account.jobs.table import jobs_of, open_books, open_context
from fundledger.app.account.metrics import Metrics
from fundledger.app.account.routes import PAGES, ROUTES
from fundledger.app.account.service import Service
from fundledger.app.http.admission.limiter import build_limiter
from fundledger.app.http.process import LogOptions, freeze_memory, open_listener, run_process, serving
from fundledger.app.http.routing import Router
from fundledger.app.http.wire.connections import raise_descriptor_limit
from fundledger.hotspot.direct import CONNECTIONS, Direct
from fundledger.hotspot.flusher import Flusher
from fundledger.hotspot.follower import Follower
from fundledger.hotspot.heat import HeatSampler
from fundledger.hotspot.lane import Lane
from fundledger.jobs.runner import JobRunner
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
    books = await open_books(settings, dsn, ordinal)
    pool = await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=settings.read_connections,
        command_timeout=30,
        server_settings={"application_name": f"fundledger reads {ordinal}", "jit": "off"},
    )
    context = await open_context(settings, dsn, books)
    metrics = Metrics()
    lanes: list[Lane | Direct] = []
    sampler = HeatSampler()
    sessions: list[Session] = []
    flusher: Flusher | None = None
    if settings.posting == "direct":
        sessions = [
            Session(dsn, f"fundledger direct {ordinal}.{i}", WriteCache(0), metrics.commits) for i in range(CONNECTIONS)
        ]
        lanes = [Direct(sessions, books, metrics, settings.buffer_depth_max)] * books.layout.shards
    else:
        flusher = (
            Flusher(dsn, f"fundledger flush {ordinal}", metrics.commits) if settings.early_release == "on" else None
        )
        if flusher is not None:
            await flusher.open()
        for shard in range(books.layout.shards):
            session = Session(dsn, f"fundledger lane {ordinal}.{shard}", commits=metrics.commits)
            await session.open()
            depth, size = settings.buffer_depth_max, settings.batch_size_max
            lanes.append(Lane(session, books, metrics, depth, size, sampler=sampler, flusher=flusher))
            sessions.append(session)
    name = f"{socket.gethostname()}:{run_dir}:{ordinal}"
    follower = Follower(context.pool, name, books, sampler, sessions, context.drainer)
    name = f"{name}:{os.getpid()}"
    limiter = build_limiter(settings, redis_url, name)
    return Service(
        settings,
        books,
        lanes,
        context,
        follower,
        JobRunner(context.pool, jobs_of(context), name),
        flusher,
        pool,
        Tokens.of(dict(modules or {})),
        metrics,
        run_dir,
        ordinal,
        limiter=limiter,
        feed=events.account_feed(dsn, pool, books.directory, str(ordinal)),
    )


async def serve(config: AccountWorkerConfig, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then answer the accepted requests and return."""
    settings = Settings.model_validate_json(config.settings)
    service = await build(
        settings, config.dsn, config.ordinal, Path(config.run_dir), redis_url=config.redis_url, modules=config.modules
    )
    PAGES.make(settings)
    listener = open_listener(settings.host, settings.port)
    loop = asyncio.get_running_loop()
    running = loop.create_task(service.runner.run())
    async with serving(service, Router(ROUTES), vouchers.FAST_PATH, listener, service.snapshot, [running]):
        freeze_memory()
        _log.info("worker is ready", extra={"event": "worker_ready", "port": settings.port})
        await stopping.wait()
        _log.info("worker is draining", extra={"event": "worker_draining"})
        service.feed.stop()
        running.cancel()


def _log_options(config: AccountWorkerConfig) -> LogOptions:
    settings = Settings.model_validate_json(config.settings)
    return LogOptions(str(config.ordinal), settings.log_level, settings.log_format)


def main() -> None:
    hide_memory()
    raise_descriptor_limit()
    run_process(AccountWorkerConfig, _log_options, serve)


if __name__ == "__main__":
    main()
