"""The pytest plugin of a mutation run: it uses databases of a running server, and records the code that each test
reaches.

The settings are one JSON document in the environment variable MUTATION_RUN: `dsn` (of the server), `prefix` (of the
databases that this process may create), `templates` (whether it creates the templates that later processes copy),
`result` (the file for the records), `watched` (modules whose functions are recorded; null: no records). With `commands`
and `answers`, which are pipes, the process collects the tests and then serves. Each command is a line with a mutant and
the tests to run against it in a fork of this process. Each answer is a line with the exit code of that fork, null on a
time-out.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from tests.mutants import inplace
from tests.mutants.process import wait

ROOT = Path(__file__).parents[2]
RUN = json.loads(os.environ["MUTATION_RUN"])
CANNOT = 71
"""The exit code of a process that cannot become the mutant."""
MEMORY_MAX = 4 << 30
"""The memory limit (bytes) of a process with a mutant, because an endless loop could use up all memory."""
inplace.watch_statements()
_made: list[str] = []


class Reached:
    """The statements and functions that a test ran."""

    def __init__(self) -> None:
        self._files = {path.read_text(): str(path.relative_to(ROOT)) for path in ROOT.glob("fundledger/**/sql/*.sql")}
        self._by_header = {text.partition("\n")[0]: name for text, name in self._files.items()}
        self._watched = {str(ROOT / name): name for name in RUN["watched"]}
        self.found: set[str] = set()

    def start(self) -> None:
        get_statement, execute = asyncpg.Connection._get_statement, asyncpg.Connection.execute

        async def get_statement_and_note(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            self._note(query)
            return await get_statement(connection, query, *args, **options)

        async def execute_and_note(connection: Any, query: str, *args: Any, **options: Any) -> Any:
            self._note(query)
            return await execute(connection, query, *args, **options)

        asyncpg.Connection._get_statement, asyncpg.Connection.execute = get_statement_and_note, execute_and_note
        sys.setprofile(self._on_call)

    def _note(self, query: str) -> None:
        # A statement that was changed a little before it was sent still begins with its header.
        name = self._files.get(query) or self._by_header.get(query.partition("\n")[0])
        if name:
            self.found.add(name)

    def _on_call(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and (name := self._watched.get(frame.f_code.co_filename)):
            self.found.add(f"{name}:{frame.f_code.co_qualname.partition('.<locals>')[0]}")


class Plugin:
    def __init__(self) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.reached: Reached | None = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Serve commands if the settings have a pipe for them. Only forks return from serving, and run their tests."""
        if "commands" in RUN:
            self._serve(session)
        if RUN.get("watched") is not None:
            self.reached = Reached()
            self.reached.start()

    def _serve(self, session: pytest.Session) -> None:
        items = {item.nodeid: item for item in session.items}
        with os.fdopen(RUN["commands"]) as commands, os.fdopen(RUN["answers"], "w") as answers:
            for line in commands:
                command = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    os.setsid()
                    self._become(session, items, command)
                    return
                answers.write(json.dumps(wait(pid, command["timeout_s"])) + "\n")
                answers.flush()
        os._exit(0)

    def _become(self, session: pytest.Session, items: dict[str, pytest.Item], command: dict[str, Any]) -> None:
        RUN.update(command["run"])
        if "file" in command:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_MAX, MEMORY_MAX))
            file = command["file"]
            if not inplace.install(ROOT, file, command["source"], command["where"]):
                os._exit(CANNOT)
            (ROOT / file).write_text(command["source"])  # processes that tests start import it from here
            session.config.option.maxfail = 1
            session.items = [items[test] for test in command["tests"]]
            for test, limit_s in command["tests"].items():  # an endless loop is found soon
                items[test].add_marker(pytest.mark.timeout(limit_s), append=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: pytest.FixtureRequest) -> object:
        if fixturedef.argname != "postgres" or fixturedef.scope != "session" or fixturedef.baseid not in ("tests", ""):
            return None
        value = shared_databases()
        fixturedef.cached_result = (value, fixturedef.cache_key(request), None)
        return value

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        if self.reached:
            self.reached.found = set()
        start = time.monotonic()
        result = yield
        seen = self.tests.setdefault(item.nodeid, {"outcome": "skipped"})
        seen["seconds"] = round(time.monotonic() - start, 3)
        if self.reached:
            seen["reached"] = sorted(self.reached.found)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        seen = self.tests.setdefault(report.nodeid, {"outcome": "skipped"})
        if report.failed:
            seen["outcome"] = "failed"
            seen["why"] = str(report.longreprtext).strip().splitlines()[-1:]
        elif report.when == "call" and report.passed and seen["outcome"] != "failed":
            seen["outcome"] = "passed"

    def pytest_sessionfinish(self) -> None:
        sys.setprofile(None)
        Path(RUN["result"]).write_text(json.dumps({"tests": self.tests, "databases": len(_made)}))


def shared_databases() -> object:
    """Return a substitute for the fixture `postgres`, on the server of the run, which drops all databases later."""
    from fundledger.ledger.store.accounts import Layout
    from tests.support.database import ONE_SHARD, Databases

    class Shared(Databases):
        def __init__(self) -> None:
            super().__init__(None, ROOT / "postgres.log")  # type: ignore[arg-type]

        def dsn(self, name: str) -> str:
            return urlunsplit(urlsplit(RUN["dsn"])._replace(path="/" + name))

        async def new(self, layout: Layout = ONE_SHARD) -> str:
            name = f"template_{layout.shards}_{layout.platform_slots}"
            if layout not in self._templates and await self._is_there(name):
                self._templates[layout] = name
            return await super().new(layout)

        async def new_fund(self) -> str:
            if self._fund_template is None and await self._is_there("template_fund"):
                self._fund_template = "template_fund"
            return await super().new_fund()

        async def standing(self, layout: Layout | None = ONE_SHARD) -> str:
            """Return one database for all processes, each of which rolls back its changes."""
            template = f"template_{layout.shards}_{layout.platform_slots}" if layout else "template_fund"
            name = f"standing_{template}"
            connection = await asyncpg.connect(self.dsn("postgres"))
            try:
                found = await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", name)
            finally:
                await connection.close()
            if not found:
                await (self.new(layout) if layout else self.new_fund())  # so that the template exists
                await self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            return self.dsn(name)

        async def _is_there(self, template: str) -> bool:
            connection = await asyncpg.connect(self.dsn("postgres"))
            try:
                found = await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", template)
            finally:
                await connection.close()
            # A template that a mutant creates would have its fault, and later mutants would get it.
            assert found or RUN["templates"], f"{template} was not needed without the mutant"
            return bool(found)

        async def empty(self, template: str = "template1") -> str:
            self._made += 1
            name = f"{RUN['prefix']}_{self._made}"
            _made.append(name)
            await self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
            return self.dsn(name)

        async def drop(self, dsn: str) -> None:
            """Do nothing. The run drops all databases at the end: a drop takes a tenth of the time of a test."""

    return Shared()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Plugin(), "mutation-run")
