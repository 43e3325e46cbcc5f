"""The commands of docs/how-to/back-up-and-restore.md, run as they are printed, as root and as an ordinary user."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.ordinary import ROOT, NotPossible, User, ordinary_user, this_user
from tests.support.running import free_port, short_folder
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

PAGE = ROOT / "docs" / "how-to" / "back-up-and-restore.md"
COLD = ("cold backup",)
HOT = ("hot backup 1: tools", "hot backup 2: databases", "hot backup 3: files")
RESTORE = ("restore 1: files", "restore 2: owners", "restore 3: proof")


def blocks() -> dict[str, str]:
    """Return the blocks of commands of the page, by their first line, which is a comment."""
    found = re.findall(r"^ *```sh\n( *)# ([a-z]+ ?[^\n]*)\n(.*?)^ *```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return {name: re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, name, text in found}


class Place:
    """The folders of one backup, and the user that runs the commands."""

    def __init__(self, user: User, folder: Path) -> None:
        self.user = user
        self.folder = folder
        self.data, self.restored = folder / "data", folder / "restored"
        self.backup, self.kept = folder / "backup", folder / "kept"
        self.ports = [free_port() for _ in range(3)]
        self.serving: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        return self.user.environment(
            DATA=str(self.data),
            BACKUP=str(self.backup),
            KEPT=str(self.kept),
            RESTORED=str(self.restored),
            FUNDLEDGER_DATA_DIR=str(self.data),
            FUNDLEDGER_PORT=str(self.ports[0]),
            FUNDLEDGER_FUND_PORT=str(self.ports[1]),
            FUNDLEDGER_SIMULATOR_PORT=str(self.ports[2]),
            FUNDLEDGER_WORKERS="1",
            FUNDLEDGER_POSTGRES_MEMORY_MB="256",
            **more,
        )

    async def follow(self, *names: str) -> str:
        """Run blocks of the page in order, in one shell that ends at the first failure."""
        commands = "".join(blocks()[name] for name in names)
        done = await asyncio.to_thread(self._run, commands)
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def _run(self, commands: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-e", "-u", "-o", "pipefail", "-c", commands],
            env=self.environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            **self.user.as_user(),
        )

    async def serve(self, command: str) -> None:
        """Start a service, and wait until it is ready."""
        log = self.folder / f"serve-{len(self.serving)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {command}"],
                env=self.environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                **self.user.as_user(),
            )
        self.serving.append(process)
        await eventually(
            lambda: process.poll() is not None or "fundledger: ready" in log.read_text(errors="replace"), "ready", 120
        )
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]

    async def stop(self) -> None:
        for process in self.serving:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 90)
            assert process.returncode == 0
        self.serving = []

    async def verify(self, data_dir: Path) -> dict[str, object]:
        command = [self.user.tools / "fundledger", "verify", "--json", "--data", data_dir]
        done = await asyncio.to_thread(
            subprocess.run, command, env=self.environment(), capture_output=True, text=True, **self.user.as_user()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert str(data_dir) in done.stderr
        return dict(json.loads(done.stdout))

    async def pay(self) -> None:
        """Open another account at the running service, and pay money to it."""
        token = (self.data / "dev-token").read_text().strip()
        async with Client(f"http://127.0.0.1:{self.ports[0]}", token) as client:
            await client.merchant(10)


@pytest.fixture(params=["this user", "an ordinary user"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    folder = short_folder()
    tools = folder / "tools"
    tools.mkdir()
    if request.param == "this user":
        user = this_user(tools)
    elif os.geteuid() != 0:
        pytest.skip("the tests run as an ordinary user already: see the other case")
    else:
        try:
            user = ordinary_user(tools)
        except NotPossible as why:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"NOT TESTED as an ordinary user: {why}")
    user.own(folder)
    place = Place(user, folder)
    try:
        yield place
        await place.stop()
    finally:
        for process in place.serving:
            if process.poll() is None:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_hot_backup_is_restored_as_the_page_says_beside_the_original(place: Place) -> None:
    await place.serve("fundledger serve")
    await place.pay()
    await place.follow(*HOT)
    await place.pay()
    said = await place.follow(*RESTORE)
    assert f"database: {place.restored}/postgres" in said
    assert "the books are right: 1 vouchers" in said
    assert (await place.verify(place.data))["vouchers"] == 2
    look = blocks()["restore 4: look"].strip()
    for port, free in (("18080", free_port()), ("18081", free_port()), ("18082", free_port())):
        look = look.replace(port, str(free))
    await place.serve(look)
    assert (await place.verify(place.restored))["vouchers"] == 1


async def test_a_cold_backup_is_restored_as_the_page_says(place: Place) -> None:
    await place.serve("fundledger serve")
    await place.pay()
    await place.stop()
    await place.follow(*COLD)
    assert not list(place.backup.rglob("mac-*.key")), "the keys are kept apart"
    assert "the books are right: 1 vouchers" in await place.follow(*RESTORE)


def test_the_page_has_the_blocks_that_are_tested_and_no_others() -> None:
    assert set(blocks()) == {*COLD, *HOT, *RESTORE, "restore 4: look"}
