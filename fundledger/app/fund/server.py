"""Entry point of a fund service worker: `python -m fundledger.app.fund.server`, configuration on standard input."""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

from fundledger.app.fund.config import FundProcessConfig
from fundledger.app.fund.handlers.orders import FAST_PATH
from fundledger.app.fund.routes import PAGES, ROUTES
from fundledger.app.fund.service import SPACE, FundService
from fundledger.app.http.admission.limiter import build_limiter
from fundledger.app.http.process import LogOptions, freeze_memory, open_listener, run_process
from fundledger.app.http.process import serving as serving_http
from fundledger.app.http.routing import Router
from fundledger.app.http.wire.connections import raise_descriptor_limit
from fundledger.client.account_service import AccountService
from fundledger.fund.batcher import BATCHES_AT_ONCE
from fundledger.fund.store.events import fund_feed
from fundledger.fund.store.macs import open_macs
from fundledger.fund.store.open_ids import open_ids
from fundledger.fund.store.pool import open_pool
from fundledger.security.keys import FileKeys
from fundledger.security.process_memory import hide_memory
from fundledger.security.tokens import Tokens
from fundledger.settings import Settings

_log = logging.getLogger(__name__)


async def build(config: FundProcessConfig, settings: Settings) -> FundService:
    """Return a service on a migrated database. Raises KeyFault, BadSetting, and asyncpg's connection errors."""
    size = settings.read_connections + 2 * BATCHES_AT_ONCE
    keys = FileKeys(settings.data_dir / "fund-keys")
    pool = await open_pool(config.fund_dsn, f"fundledger fund {config.ordinal}", size)
    name = f"{socket.gethostname()}:{config.run_dir}:fund-{config.ordinal}:{os.getpid()}"
    ids, macs = await open_ids(pool, keys), await open_macs(pool, keys)
    return FundService(
        settings,
        pool,
        AccountService(config.account_url, config.token),
        Tokens.of({config.api_token: "dev"} if config.api_token else {}),
        Path(config.run_dir),
        config.ordinal,
        ids,
        macs,
        batch_max=settings.fund_batch_max,
        wait_s=settings.fund_wait_ms / 1000,
        due_s=settings.recover_after_s,
        feed=fund_feed(config.fund_dsn, pool, macs, str(config.ordinal)),
        limiter=build_limiter(settings, config.redis_url, name, settings.fund_workers, SPACE),
    )


@contextlib.asynccontextmanager
async def serving(service: FundService, listener: socket.socket) -> AsyncIterator[None]:
    """Serve on a listening socket. On exit, drain for `drain_s` and close the service."""
    PAGES.make(service.settings)
    await service.open()
    async with serving_http(service, Router(ROUTES), FAST_PATH, listener, service.snapshot):
        yield


async def serve(config: FundProcessConfig, stopping: asyncio.Event) -> None:
    """Serve until `stopping` is set, then answer all accepted requests."""
    settings = Settings.model_validate_json(config.settings)
    service = await build(config, settings)
    async with serving(service, open_listener(settings.host, settings.fund_port)):
        freeze_memory()
        _log.info("worker is ready", extra={"event": "worker_ready", "port": settings.fund_port})
        await stopping.wait()
        _log.info("worker is draining", extra={"event": "worker_draining"})
        service.feed.stop()


def _log_options(config: FundProcessConfig) -> LogOptions:
    settings = Settings.model_validate_json(config.settings)
    return LogOptions(f"fund-{config.ordinal}", settings.log_level, settings.log_format)


def main() -> None:
    hide_memory()
    raise_descriptor_limit()
    run_process(FundProcessConfig, _log_options, serve)


if __name__ == "__main__":
    main()
