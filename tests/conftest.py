"""Fixtures of all tests: a Postgres, a database, a ledger, a Valkey, running services."""

import gc
import json
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fundledger.app.host.postgres.server import EmbeddedPostgres
from fundledger.ledger.store.accounts import Layout
from fundledger.security.keys import FileKeys, make_keys
from tests.support.client import Client
from tests.support.database import ONE_SHARD, Databases
from tests.support.ledger import Ledger
from tests.support.running import RunningService, short_folder
from tests.support.valkey import OwnValkey

ADVERSITY = "adversity"
"""The name of the property of a test report that has the number of attempts of an adversity test."""

# On a shared machine, an example may be slow for a reason outside of the tests. That is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


STARTS = re.compile(r"RunningService\(|\bawait run\(|\bsubprocess\b|create_subprocess")
"""A pattern in modules whose tests start programs. Such a test takes seconds of CPU time."""

DATABASES = frozenset({"postgres", "platform"})
"""Fixtures on which each test with a database, or with both services, depends."""


SERVICES = frozenset({"service", "platform"})
"""Fixtures of running services that all tests share."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--quick", action="store_true", help="leave out drills, and tests with a database or programs of their own"
    )


def pytest_configure(config: pytest.Config) -> None:
    # With `nohup` the signal is ignored, and the services of the tests would inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.addinivalue_line("markers", "layout(shards, platform_slots): of the ledger that a test gets")
    config.addinivalue_line("markers", "drill: takes long, and most of that waiting: begun first, several at a time")
    config.addinivalue_line(
        "markers", "timed: right only on a machine that does nothing else: `make test` runs them last"
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Exclude modules that start programs from `--quick`. Reading the text of a module is faster than collecting it."""
    quick = config.getoption("quick") and collection_path.is_file()
    return True if quick and STARTS.search(collection_path.read_text()) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long tests (drills) first and the tests of the shared services last, evenly distributed over the processes.

    A long test that began last would delay the end of the run. The shared services run from the first test that uses
    them to the end, and take 8 % of a core in each process of the run while they are idle.

    pytest-xdist assigns a slice of the list to each process at the beginning, and all slices have the same length.
    """
    if config.getoption("quick"):
        slow = [item for item in items if _is_slow(item)]
        config.hook.pytest_deselected(items=slow)
        left_out = set(slow)
        items[:] = [item for item in items if item not in left_out]
    runners = getattr(config, "workerinput", {}).get("workercount", 1)
    first, middle, last = [], [], []
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        is_drill = item.get_closest_marker("drill") is not None
        (first if is_drill else middle if SERVICES.isdisjoint(fixtures) else last).append(item)
    dealt = _dealt(first, runners)
    left = len(items)
    items.clear()
    for i, drills in enumerate(dealt):
        shared = last[i * len(last) // runners : (i + 1) * len(last) // runners]
        filled = max(0, left // (runners - i) - len(drills) - len(shared))
        items += [*drills, *middle[:filled], *shared]
        left -= len(drills) + min(filled, len(middle)) + len(shared)
        del middle[:filled]
    items += middle


def _dealt(drills: list[pytest.Item], runners: int) -> list[list[pytest.Item]]:
    """Distribute the drills over the processes. Drills that share a service of their module stay in one process."""
    groups: dict[object, list[pytest.Item]] = {}
    for item in drills:
        groups.setdefault(item.path if _has_service_of_module(item) else item, []).append(item)
    dealt: list[list[pytest.Item]] = [[] for _ in range(runners)]
    for group in sorted(groups.values(), key=len, reverse=True):
        min(dealt, key=len).extend(group)
    return dealt


def _has_service_of_module(item: pytest.Item) -> bool:
    found = item._fixtureinfo.name2fixturedefs
    return any(definitions[-1].scope == "module" for definitions in found.values())


def _is_slow(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return item.get_closest_marker("drill") is not None or not DATABASES.isdisjoint(fixtures)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the numbers of attempts of the adversity tests, from the test reports of all processes of the run."""
    for report in terminalreporter.getreports("passed"):
        for name, line in report.user_properties:
            if name == ADVERSITY:
                terminalreporter.write_line(f"{ADVERSITY}: {line}")


def pytest_collection_finish() -> None:
    """Exempt the collected tests from garbage collection. They last to the end, and each full collection reads them."""
    gc.collect()
    gc.freeze()


def layout_of(request: pytest.FixtureRequest) -> Layout:
    marker = request.node.get_closest_marker("layout")
    return ONE_SHARD if marker is None else Layout(**{"shards": 1, "platform_slots": 2, **marker.kwargs})


HASTY = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    # The default of 4096 takes 2 of the 4.5 ms of CPU time that a new connection costs.
    "scram_iterations": "1",
}


class Hasty(EmbeddedPostgres):
    """An embedded Postgres that does not wait for the disk, because each database exists for one test only."""

    def _options(self, folder: Path) -> dict[str, str]:
        return {**super()._options(folder), **HASTY}


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[Databases]:
    """Start one embedded Postgres for the whole run."""
    folder = short_folder()
    server = Hasty(folder, memory_mb=256)
    await server.start()
    databases = Databases(server, folder / "postgres.log")
    await databases.open()
    try:
        yield databases
    finally:
        await databases.close()
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def database(postgres: Databases, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Return the DSN of a migrated, empty database. `@pytest.mark.layout(shards=4)` selects another layout."""
    async with postgres.a_database(layout_of(request)) as dsn:
        yield dsn


@pytest.fixture
async def fund_database(postgres: Databases) -> AsyncIterator[str]:
    """Return the DSN of a migrated, empty fund database."""
    dsn = await postgres.new_fund()
    yield dsn
    await postgres.drop(dsn)


@pytest.fixture(scope="session")
def keys_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="session")
def keys(keys_folder: Path) -> FileKeys:
    return make_keys(keys_folder)


@pytest.fixture
async def ledger(database: str, keys: FileKeys, request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    """Return a ledger on a database of its own."""
    ledger = await Ledger(database, keys, layout_of(request)).start()
    yield ledger
    await ledger.close()


@pytest.fixture(scope="session")
async def valkey() -> AsyncIterator[str]:
    """Return the URL of one embedded Valkey for the whole run. A test flushes it before use."""
    async with OwnValkey() as server:
        yield server.url


@pytest.fixture(scope="session")
async def service() -> AsyncIterator[RunningService]:
    """Start one service with two workers for all tests that only send requests. Prove its books at the end."""
    service = RunningService(workers=2)
    assert service.fund_token
    try:
        await service.start()
        yield service
        # A shared service that has stopped by now fails the run: its books would stay unproved.
        assert service.is_running(), service.log_tail()
        report = await service.verify()
        assert report["ok"], json.dumps(report, indent=1)
        assert await service.stop() == 0, service.log_tail()
    finally:
        await service.remove()


@pytest.fixture
async def client(service: RunningService) -> AsyncIterator[Client]:
    async with Client(service.base_url, service.token) as client:
        yield client


@pytest.fixture(scope="session")
async def platform() -> AsyncIterator[RunningService]:
    """Start both services for all tests that only send requests. Prove their books at the end."""
    platform = RunningService(workers=1, fund=True)
    try:
        await platform.start()
        yield platform
        # A shared service that has stopped by now fails the run: its books would stay unproved.
        assert platform.is_running(), platform.log_tail()
        report = await platform.verify()
        assert report["ok"], json.dumps(report, indent=1)
        assert await platform.stop() == 0, platform.log_tail()
    finally:
        await platform.remove()


@pytest.fixture
async def fund_client(platform: RunningService) -> AsyncIterator[Client]:
    """Return a client of the fund service, as the module `dev`."""
    async with Client(platform.fund_url, platform.token) as client:
        yield client
