"""Scraping of workers by the supervisor: if a worker dies or hangs, the page is answered, and no counter decreases."""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from fundledger.app.account.metrics import Snapshot
from fundledger.app.host.processes import scrape
from fundledger.app.host.processes.scrape import ACCOUNT, Scraper, Source
from fundledger.app.host.socket_folder import run_dir
from fundledger.app.http.admission.hot_keys import Window
from fundledger.app.http.sockets import (
    HOT_KEYS,
    METRICS,
    ask,
    framed,
    fund_socket,
    fund_supervisor_socket,
    supervisor_socket,
    worker_socket,
)
from fundledger.faults import Unavailable
from tests.support.answers import is_problem
from tests.support.client import Client
from tests.support.length import unless_long
from tests.support.pages import Numbers, counters, gauges, gone_back
from tests.support.running import RunningService, short_folder
from tests.support.waiting import eventually

KILLS = unless_long(5, 100)
WORKERS = 3
GROWTH_BYTES_MAX = 8 << 20
BROKEN = Path(__file__).parents[1] / "adversity" / "broken"


# --- With artificial workers ----------------------------------------------------------------------------------------


class FakeWorker:
    """A worker that answers with `snapshot` while `may_answer`. It counts requests, and the most concurrent ones."""

    def __init__(self, name: str, folder: Path, ordinal: int) -> None:
        self.snapshot = Snapshot(worker=name)
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.asked = 0
        self.at_once = self.at_once_max = 0
        self.half = False
        self._path = worker_socket(folder, ordinal)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._answer, str(self._path))

    def count(self) -> None:
        self.snapshot.requests["/v1/vouchers POST 201 false"] = (
            self.snapshot.requests.get("/v1/vouchers POST 201 false", 0) + 1
        )

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        told = msgspec.json.encode(self.snapshot)
        await self.may_answer.wait()
        self.at_once -= 1
        writer.write(told[: len(told) // 2] if self.half else told)
        writer.close()

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.may_answer.set()


class Scene:
    """The scraper of the supervisor with two artificial workers. It scrapes only when the test calls it."""

    def __init__(self) -> None:
        self.folder = short_folder()
        self.workers = [FakeWorker(name, self.folder, ordinal) for ordinal, name in enumerate("ab")]
        self.scraper = Scraper(self.folder, 2, ACCOUNT)

    async def page(self) -> bytes:
        return await ask(supervisor_socket(self.folder), METRICS)

    async def requests(self) -> float:
        found = counters(await self.page())
        return sum(value for name, value in found.items() if name.startswith("fundledger_http_requests_total"))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the time limit of a scrape, because an artificial worker in this process may be slow on a busy machine."""
    monkeypatch.setattr(scrape, "WORKER_S", 60.0)


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(scrape, "EVERY_S", 1e6)
    scene = Scene()
    for worker in scene.workers:
        await worker.start()
    await scene.scraper.open()
    await eventually(lambda: [worker.asked for worker in scene.workers] == [1, 1], "the first round is over")
    yield scene
    await scene.scraper.close()
    for worker in scene.workers:
        worker.stop()
    shutil.rmtree(scene.folder)


class Orders(msgspec.Struct):
    """The snapshot of another service's workers."""

    worker: str = ""
    posted: int = 0

    def add(self, other: "Orders") -> None:
        self.posted += other.posted

    def forget_gauges(self) -> None:
        """Do nothing: there are no gauges."""


async def test_another_service_is_asked_at_its_own_sockets_for_what_it_counts():
    folder = short_folder()
    answers = {METRICS: lambda orders: f"{orders.posted} orders".encode()}
    scraper = Scraper(folder, 1, Source(Orders, fund_socket, fund_supervisor_socket, answers))

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(msgspec.json.encode(Orders("a", 3)))
        writer.close()

    worker = await asyncio.start_unix_server(tell, str(fund_socket(folder, 0)))
    await scraper.open()
    try:
        assert await ask(fund_supervisor_socket(folder), METRICS) == b"3 orders"
        scraper.ended(0)
        worker.close()
        assert await ask(fund_supervisor_socket(folder), METRICS) == b"3 orders"
        with pytest.raises(Unavailable):
            await ask(fund_supervisor_socket(folder), HOT_KEYS)
    finally:
        await scraper.close()
        worker.close()
        shutil.rmtree(folder)


async def test_the_page_has_what_all_workers_counted_until_it_was_asked_for(scene: Scene):
    for expected in (2, 4, 6):
        for worker in scene.workers:
            worker.count()
        assert await scene.requests() == expected
    assert gauges(await scene.page())["fundledger_workers[]"] == 2


async def test_however_many_requests_wait_only_one_scrape_is_out_and_no_answer_is_older_than_its_request(scene: Scene):
    worker = scene.workers[0]
    worker.may_answer.clear()
    asked = worker.asked
    first = asyncio.create_task(scene.requests())
    await eventually(lambda: worker.asked == asked + 1, "the first one is being asked for")
    worker.count()
    others = [asyncio.create_task(scene.requests()) for _ in range(50)]
    await eventually(lambda: scene.scraper._next is not None, "the others wait for the next round")
    worker.may_answer.set()
    assert await first == 0
    assert await asyncio.gather(*others) == [1] * 50
    assert worker.asked <= asked + 3
    assert worker.at_once_max == 1


async def test_a_loop_of_pages_asks_the_workers_ten_times_a_second_at_most(scene: Scene):
    worker = scene.workers[0]
    await scene.page()
    asked, began = worker.asked, time.monotonic()
    for _ in range(5):
        await asyncio.gather(*(scene.page() for _ in range(20)))
    took_s = time.monotonic() - began
    assert worker.asked - asked <= took_s / scrape.PAUSE_S + 1


async def test_a_worker_that_hangs_is_shown_with_its_last_snapshot(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    for worker in scene.workers:
        worker.count()
    assert await scene.requests() == 2
    scene.workers[0].may_answer.clear()
    scene.workers[1].count()
    monkeypatch.setattr(scrape, "WORKER_S", 0.01)

    async def the_other_one_is_shown() -> bool:
        return await scene.requests() == 3 and gauges(await scene.page())["fundledger_workers[]"] == 1

    await eventually(the_other_one_is_shown, "the other worker answers in time")


async def test_half_an_answer_is_none(scene: Scene):
    worker = scene.workers[0]
    worker.count()
    assert await scene.requests() == 1
    worker.count()
    worker.half = True
    assert await scene.requests() == 1
    assert gauges(await scene.page())["fundledger_workers[]"] == 1
    worker.half = False
    assert await scene.requests() == 2


async def test_one_that_ends_while_it_is_being_asked_is_not_counted_twice(scene: Scene):
    worker = scene.workers[0]
    worker.count()
    assert await scene.requests() == 1
    worker.may_answer.clear()
    asked = worker.asked
    page = asyncio.create_task(scene.requests())
    await eventually(lambda: worker.asked == asked + 1, "it is being asked")
    scene.scraper.ended(0)
    worker.may_answer.set()
    assert await page == 1
    worker.stop()
    successor = FakeWorker("c", scene.folder, 0)
    await successor.start()
    successor.count()
    assert await scene.requests() == 2
    successor.stop()


async def test_hot_keys_are_those_of_all_workers(scene: Scene):
    for worker in scene.workers:
        worker.snapshot.hot_keys = {"caller": Window(10, {"gateway": 6, worker.snapshot.worker: 4})}
    told = msgspec.json.decode(await ask(supervisor_socket(scene.folder), HOT_KEYS))
    assert told == {
        "kinds": {
            "caller": [
                {"id": "gateway", "rate": 12.0, "share": 0.6},
                {"id": "a", "rate": 4.0, "share": 0.2},
                {"id": "b", "rate": 4.0, "share": 0.2},
            ],
            "merchant": [],
            "account": [],
        },
        "window_s": 1.0,
    }
    page = await scene.page()
    assert b"gateway" not in page
    rates = {name: value for name, value in gauges(page).items() if name.startswith("fundledger_hotkey_rate")}
    assert list(rates.values()) == [12.0, 4.0, 4.0]


@pytest.mark.parametrize("answer", [b"", framed(b"whole")[:-1], b"\0\0"])
async def test_half_a_page_is_never_passed_on(answer: bytes):
    folder = short_folder()

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    with pytest.raises(Unavailable):
        await ask(supervisor_socket(folder), METRICS)
    async with await asyncio.start_unix_server(half, str(supervisor_socket(folder))):
        with pytest.raises(Unavailable):
            await ask(supervisor_socket(folder), METRICS)
    shutil.rmtree(folder)


# --- With a running service -----------------------------------------------------------------------------------------


async def test_without_an_answer_of_the_supervisor_it_is_503_and_come_again(client: Client, service: RunningService):
    assert (await client.get("/metrics")).headers["Content-Type"].startswith("text/plain; version=")
    socket = supervisor_socket(run_dir(service.data_dir))
    socket.rename(socket.with_suffix(".away"))
    try:
        for path in ("/metrics", "/debug/hotkeys"):
            answer = await client.get(path)
            assert is_problem(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
    finally:
        socket.with_suffix(".away").rename(socket)
    assert (await client.get("/metrics")).status == 200


async def test_the_lag_of_event_loops_is_sampled_in_every_worker(client: Client):
    async def sampled() -> float:
        return counters((await client.get("/metrics")).body)["fundledger_event_loop_lag_seconds_count[]"]

    before = await sampled()
    assert await eventually(sampled, "it goes on") >= before
    await eventually(lambda: _is_more(sampled, before), "more samples come")


async def _is_more(sampled, before: float) -> bool:
    return await sampled() > before


class Drill:
    """Kills workers of a service under load, and checks every page."""

    def __init__(self, service: RunningService) -> None:
        self.service = service
        self.shown: Numbers = {}
        self.found: list[str] = []

    async def kill(self, times: int) -> None:
        async with Client(self.service.base_url, self.service.token) as client:
            bank, merchant = await client.bank(), await client.merchant()
        for i in range(times):
            for _ in range(2 * WORKERS):
                # A connection of its own for each client: so all workers get some.
                async with Client(self.service.base_url, self.service.token) as client:
                    assert (await client.pay(bank, merchant, 1)).status == 201
            await self.look()
            killed = self.service.worker_pids()[i % WORKERS]
            os.kill(killed, signal.SIGKILL)
            await eventually(lambda killed=killed: self.all_answer_but(killed), "another one answers", 60)

    async def all_answer_but(self, killed: int) -> bool:
        page = await self.look()
        return killed not in self.service.worker_pids() and gauges(page).get("fundledger_workers[]") == WORKERS

    async def look(self) -> bytes:
        """Return the metrics page, or an empty one if the worker that received the request died meanwhile."""
        try:
            async with Client(self.service.base_url, None) as client:
                answer = await client.get("/metrics")
        except aiohttp.ClientError:
            return b""
        assert answer.status == 200, answer
        now = counters(answer.body)
        self.found += gone_back(self.shown, now)
        self.shown = now
        return answer.body

    def posted(self) -> float:
        return self.shown["fundledger_vouchers_total[('outcome', 'posted')]"]

    def open_files(self) -> int:
        """Return the number of open files of the supervisor, 0 for an ordinary user, from whom it hides them."""
        try:
            return len(list(Path(f"/proc/{self._pid()}/fd").iterdir()))
        except PermissionError:
            if os.geteuid() == 0:
                raise
            return 0

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self._pid()}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def _pid(self) -> int:
        assert self.service.process is not None
        return self.service.process.pid


@pytest.mark.timeout(120 + 15 * KILLS)
async def test_no_counter_goes_back_and_nothing_grows_however_many_workers_are_killed():
    async with RunningService(workers=WORKERS) as service:
        drill = Drill(service)
        await drill.kill(WORKERS)
        files, resident = drill.open_files(), drill.resident_bytes()
        await drill.kill(max(0, KILLS - WORKERS))
        assert drill.found == []
        # Before each kill a page was read, and all payments were answered before that page.
        assert drill.posted() == 2 * WORKERS * max(KILLS, WORKERS)
        await eventually(lambda: drill.open_files() <= files, "sockets are closed")
        assert drill.resident_bytes() <= resident + GROWTH_BYTES_MAX
        assert (await service.verify())["ok"]


async def test_a_supervisor_that_forgets_its_dead_is_noticed():
    environment = {"PYTHONPATH": os.pathsep.join([str(BROKEN), *sys.path]), "PYTHON_BROKEN": "forget the dead"}
    async with RunningService(workers=WORKERS, env=environment) as service:
        drill = Drill(service)
        await drill.kill(1)
        assert drill.found != []
