"""Runs mutants: one Postgres for all of them, and a process for each, forked from one that has imported the libraries.

The tree is copied first, and each job writes its mutants into a copy of its own: subprocesses of tests then have the
fault too, and the working tree is not changed.
"""

import asyncio
import contextlib
import dataclasses
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TextIO

import asyncpg
import pytest

from tests.mutants.inplace import as_loaded
from tests.mutants.mutant import Mutant
from tests.mutants.process import wait

Status = Literal["killed", "survived", "invalid", "not run"]
COPIED = (
    "fundledger",
    "tests",
    "docs",
    "pyproject.toml",
    "README.md",
    "CONTRIBUTING.md",
    "Makefile",
    "requirements.txt",
)
LIBRARIES = (
    "aiohttp",
    "aiohttp.web",
    "hypothesis",
    "msgspec",
    "prometheus_client",
    "pydantic_settings",
    "redis",
    "uvloop",
)
CANNOT = 71
"""The exit code `CANNOT` of plugin.py, which this process cannot import."""
TEST_TIMEOUT_S = 60
TESTS_MAX = 60
"""Maximum number of tests for a mutant of an SQL file, the fastest first. If all of them pass, the mutant survives. A
mutant of Python gets all tests of its target, which are fast.
"""
OVERTIME_S = 12
"""Seconds in addition to five times the time without the mutant. After that time, a mutant counts as a hang."""
BASELINE_TIMEOUT_S = 3600
SLOW_S = 120


@dataclasses.dataclass
class Result:
    """The result of a mutant. `by`: the test that failed, or the reason why no test failed."""

    status: Status
    by: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Baseline:
    """The code that each test reaches without a mutant: `{test: (seconds, statements and functions)}`.

    It contains only tests that passed.
    """

    tests: dict[str, tuple[float, frozenset[str]]]

    def tests_of(self, mutant: Mutant, files: list[str]) -> list[str]:
        """Return the tests of these files or folders that reach the mutated code, the fastest first."""
        wanted = f"{mutant.file}:{mutant.where}" if mutant.where else mutant.file
        found = []
        for test, (seconds, reached) in self.tests.items():
            if not any(test.startswith((f"{file}::", f"{file}/")) for file in files):
                continue
            # A constant of a module may affect any test, also one that runs nothing of the module.
            if wanted in reached or (not mutant.where and mutant.file.endswith(".py")):
                found.append((seconds, test))
        chosen = [test for _, test in sorted(found)]
        return chosen[:TESTS_MAX] if mutant.file.endswith(".sql") else chosen


class Run:
    """A context with a copy of the tree and a Postgres: `with Run(root) as run: run.baseline(...); run.mutant(...)`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made = 0
        self.folder = Path(
            tempfile.mkdtemp(prefix="mutants-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        )
        self.tree = self.folder / "tree"
        self.log = self.folder / "pytest.log"
        self._result = self.folder / "result.json"

    def __enter__(self) -> Self:
        self.folder.chmod(0o711)
        self.tree.mkdir()
        for name in COPIED:
            path = self._root / name
            if path.is_dir():
                shutil.copytree(path, self.tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif path.exists():
                shutil.copy2(path, self.tree / name)
        for library in LIBRARIES:
            importlib.import_module(library)
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.server"],
            cwd=self._root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        self.dsn = self._server.stdout.readline().strip()
        if not self.dsn:
            raise RuntimeError("the Postgres of the run did not start")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Tests ---

    @contextlib.contextmanager
    def group(self, tests: list[str]) -> Iterator["Group"]:
        """Start a process that collects these test files or folders, and forks for each mutant."""
        present = [test for test in tests if (self.tree / test).exists()]
        theirs, commands = os.pipe()
        answers, their_answers = os.pipe()
        settings = {"dsn": self.dsn, "commands": theirs, "answers": their_answers}
        pid = self._fork(present, settings, kept=(theirs, their_answers), closed=(commands, answers))
        try:
            with os.fdopen(commands, "w") as to, os.fdopen(answers) as back:
                yield Group(self, to, back)
        finally:
            wait(pid, 5)  # it ends after its commands; after an error it may be in the middle of one

    def mutant(
        self, group: "Group", mutant: Mutant, tests: list[str], seconds: float, slow: Sequence[str] = ()
    ) -> Result:
        """Run the tests in `seconds` against a mutant until one fails. If none does, run the slow test files."""
        result = self._judged(group, mutant, tests, seconds) if tests else Result("survived", "no test reaches it")
        if result.status == "survived" and slow:
            later = self._judged(None, mutant, list(slow), SLOW_S)
            later.seconds = round(later.seconds + result.seconds, 2)
            return (
                later
                if later.status == "killed"
                else Result("survived", f"{result.by} and the slow ones", later.seconds)
            )
        return result

    def _judged(self, group: "Group | None", mutant: Mutant, tests: list[str], seconds: float) -> Result:
        path = self.tree / mutant.file
        original, stat = path.read_bytes(), path.stat()
        start = time.monotonic()
        timeout_s = OVERTIME_S + 5 * seconds
        try:
            ended, seen = group.run(tests, timeout_s, mutant) if group else (CANNOT, {})
            if ended == CANNOT:
                path.write_text(mutant.source)
                # Compiled files are identified by second and length: no two mutants may have the same.
                os.utime(path, (stat.st_mtime + self._made, int(stat.st_mtime) + self._made))
                with self.process() as settings:
                    ended = wait(self._fork(tests, settings), timeout_s)
                seen = self.seen()
        finally:
            path.write_bytes(original)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        took = round(time.monotonic() - start, 2)
        failed = [test for test, of in seen.items() if of["outcome"] == "failed"]
        if failed:
            return Result("killed", failed[0], took)
        if ended == 0:
            return Result("survived", f"{len(tests)} tests", took)
        return Result("killed", "it does not end" if ended is None else f"pytest ended with {ended}", took)

    @contextlib.contextmanager
    def process(self) -> Iterator[dict[str, Any]]:
        """Yield the settings of one process that runs tests. Remove its databases from the server afterwards."""
        self._result.unlink(missing_ok=True)
        self._made += 1
        prefix = f"m{self._made}"
        try:
            yield {"dsn": self.dsn, "prefix": prefix, "result": str(self._result), "templates": False}
        finally:
            if self._seen().get("databases") != 0:
                asyncio.run(self._drop(prefix))

    def _seen(self) -> dict[str, Any]:
        return json.loads(self._result.read_text()) if self._result.exists() else {}

    def seen(self) -> dict[str, Any]:
        """Return the records of the last process, empty if it wrote none."""
        return self._seen().get("tests", {})

    def _fork(
        self, tests: list[str], settings: dict[str, Any], kept: tuple[int, ...] = (), closed: tuple[int, ...] = ()
    ) -> int:
        """Start a process that runs tests. `kept`: descriptors that it inherits; `closed`: those that it closes."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            for descriptor in closed:  # otherwise it would never see the end of its commands
                os.close(descriptor)
            assert self._server.stdin is not None
            os.close(self._server.stdin.fileno())
            self._become_pytest(tests, settings)
        for descriptor in kept:
            os.close(descriptor)
        return pid

    def _become_pytest(self, tests: list[str], settings: dict[str, Any]) -> None:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(self.tree)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "fundledger")]:
            del sys.modules[name]
        sys.path[:] = [str(self.tree), *[path for path in sys.path if path not in ("", str(self._root))]]
        os.environ |= {"MUTATION_RUN": json.dumps(settings), "PYTHONPATH": str(self.tree)}
        arguments = ["-q", "-s", "-p", "no:randomly", "-p", "no:cacheprovider", "-p", "tests.mutants.plugin"]
        arguments += ["--hypothesis-seed=0", f"--timeout={TEST_TIMEOUT_S}", f"--basetemp={self.folder / 'tmp'}"]
        # The libraries are imported before pytest.
        arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        arguments += [] if "commands" in settings else ["-x"]
        code = 70
        try:
            code = int(pytest.main([*arguments, *tests]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    # --- Databases ---

    async def _drop(self, prefix: str) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            for name in await connection.fetch(
                "SELECT datname FROM pg_database WHERE starts_with(datname, $1) AND NOT datistemplate", f"{prefix}_"
            ):
                await connection.execute(f"DROP DATABASE IF EXISTS {name[0]} WITH (FORCE)")
        finally:
            await connection.close()

    def invalid(self, mutants: Iterable[Mutant]) -> set[str]:
        """Return the keys of mutants that Postgres cannot prepare although it can prepare the original."""
        return asyncio.run(self._invalid([mutant for mutant in mutants if mutant.file.endswith(".sql")]))

    async def _invalid(self, mutants: list[Mutant]) -> set[str]:
        base = self.dsn.replace("/postgres?", "/{}?")
        connections = []
        for name in ("template_fund", "template_1_2"):
            with contextlib.suppress(asyncpg.InvalidCatalogNameError):
                connections.append(await asyncpg.connect(base.format(name), statement_cache_size=0))
        found: set[str] = set()
        originals: dict[str, list[Any]] = {}
        try:
            for mutant in mutants:
                if mutant.file not in originals:
                    text = as_loaded((self.tree / mutant.file).read_text())
                    originals[mutant.file] = [c for c in connections if await _prepares(c, text)]
                able = originals[mutant.file]
                if able and not any([await _prepares(connection, as_loaded(mutant.source)) for connection in able]):
                    found.add(mutant.key)
        finally:
            for connection in connections:
                await connection.close()
        return found


async def _prepares(connection: "asyncpg.Connection[asyncpg.Record]", statement: str) -> bool:
    try:
        await connection.prepare(statement)
    except (asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    return True


class Group:
    """A process that has collected tests. Each run of tests is a fork of the process."""

    def __init__(self, run: Run, commands: TextIO, answers: TextIO) -> None:
        self._run = run
        self._seconds: dict[str, float] = {}
        self._commands = commands
        self._answers = answers

    def baseline(self, watched: list[str]) -> Baseline:
        """Run all tests once, without a mutant. `watched`: modules whose functions are recorded."""
        with self._run.process() as settings:
            self._ask({"run": {**settings, "templates": True, "watched": watched}, "timeout_s": BASELINE_TIMEOUT_S})
        seen = self._run.seen()
        if not seen:
            raise RuntimeError(f"no test ran without a mutant: {self._run.log.read_text()[-4000:]}")
        for test, of in seen.items():
            if of["outcome"] == "failed":
                print(f"left out, as it fails without a mutant: {test} {of.get('why')}", flush=True)
        self._seconds = {test: of["seconds"] for test, of in seen.items()}
        return Baseline(
            {test: (of["seconds"], frozenset(of["reached"])) for test, of in seen.items() if of["outcome"] == "passed"}
        )

    def run(self, tests: list[str], timeout_s: float, mutant: Mutant) -> tuple[int | None, dict[str, Any]]:
        """Run tests. Return `(exit code of pytest or None after a time-out, records of the tests)`."""
        limits = {test: min(TEST_TIMEOUT_S, 5 + 20 * self._seconds.get(test, TEST_TIMEOUT_S)) for test in tests}
        command = {"file": mutant.file, "source": mutant.source, "where": mutant.where, "tests": limits}
        with self._run.process() as settings:
            ended = self._ask({"run": settings, "timeout_s": timeout_s, **command})
        return ended, self._run.seen()

    def _ask(self, command: dict[str, Any]) -> int | None:
        self._commands.write(json.dumps(command) + "\n")
        self._commands.flush()
        answer = self._answers.readline()
        if not answer:
            raise RuntimeError(f"the process that collects tests has ended: {self._run.log.read_text()[-4000:]}")
        return json.loads(answer)
