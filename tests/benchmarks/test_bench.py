"""A small run of the whole benchmark: the service accepts its requests, and a failed proof is a failure."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.web_request import BaseRequest

from benchmarks import bench, database, mechanisms, noop, report
from benchmarks.closed_loop import closed_loop
from benchmarks.figures import Floor, rate_figure
from benchmarks.machine import Processors
from benchmarks.progress import Progress
from benchmarks.runs import Run
from benchmarks.service import Service
from benchmarks.traffic import Traffic, merchant, service_traffic, sweep
from benchmarks.wrk import full_speed
from tests.benchmarks.tiny import TinyServer
from tests.support.client import Client
from tests.support.length import unless_long
from tests.support.running import short_folder
from tests.support.waiting import eventually

pytestmark = pytest.mark.drill

SMALL = {"POSTGRES_MEMORY_MB": "256"}
BRIEF = unless_long("0.4", "2")


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def unwatched(items: Iterator[bytes]) -> Iterator[bytes]:
    return items


def body_of(request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    assert int(re.search(rb"Content-Length: (\d+)", head)[1]) == len(body)
    return body


def run_of(rate: float, errors: int = 0) -> Run:
    return Run("own", 1.0, int(rate) + errors, errors, 0, 1.0, 2.0, 3.0)


def test_proof_fails_when_an_acknowledged_voucher_is_missing_and_when_a_row_was_slipped_in(folder: Path) -> None:
    with Service(folder / "books", 1, SMALL) as service:
        service.open_accounts(20, unwatched)
        service.count(closed_loop(service.port, islice(service.traffic(20).requests(), 100), 4))
        service.touch_accounts(20, unwatched)
        honest = service.prove()
        assert honest.why is None
        assert honest.ok
        assert honest.vouchers == service.acknowledged == 120

        service.acknowledged += 1
        assert "121 acknowledged" in (service.prove().why or "")
        service.acknowledged -= 2
        assert not service.prove().ok, "one more than anybody was told of, and none in flight"
        service.acknowledged += 1

        database.fill(service.dsn, 10, lambda count: None)
        forged = service.prove()
        assert not forged.ok
        assert "verify found differences" in (forged.why or "")


def test_bench_measures_proves_and_keeps_what_it_saw(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--only", "single", "--only", "open", "--seconds", BRIEF, "--rounds", "1", "--warm-up-seconds", BRIEF]
    options += ["--open-seconds", BRIEF, "--driver", "own", "--setting", "POSTGRES_MEMORY_MB=256"]
    options += ["--data-root", str(folder), "--out", str(folder / "out")]
    assert bench.main(options) == 0
    printed = capsys.readouterr().out
    assert "single connection: p50 / p50 of a bare insert and commit" in printed
    kept = json.loads(next((folder / "out").glob("bench-*.json")).read_text())
    assert kept["ok"]
    assert {run["contender"] for run in kept["runs"]} == {"service", "bare insert", "no-op"}
    assert kept["proofs"]["one worker"]["vouchers"] == kept["proofs"]["one worker"]["acknowledged"] > 0
    assert not list(folder.glob("fundledger-bench-*")), "its data directories are gone"


def test_mechanisms_are_measured_side_by_side_and_plotted(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mechanisms, "ALL", mechanisms.ALL[:1] + mechanisms.ALL[4:5])
    monkeypatch.setattr(mechanisms, "MANY_WORKERS", 2)
    monkeypatch.setattr(mechanisms, "WORKERS", (1,))
    monkeypatch.setattr(mechanisms, "DELAYS_MS", (0,))
    monkeypatch.setattr(mechanisms, "SPREAD_OVER", 5)
    options = [
        "--only",
        "mechanisms",
        "--seconds",
        BRIEF,
        "--rounds",
        "1",
        "--warm-up-seconds",
        BRIEF,
        "--driver",
        "own",
    ]
    options += ["--setting", "POSTGRES_MEMORY_MB=128", "--data-root", str(folder), "--out", str(folder / "out")]
    assert bench.main(options) == 0
    printed = capsys.readouterr().out
    assert "buffered / direct" in printed
    assert "99 % of the buffered credits were drained within" in printed
    kept = json.loads(next((folder / "out").glob("bench-*.json")).read_text())
    assert len(kept["proofs"]) == 4
    assert all(proof["ok"] for proof in kept["proofs"].values())
    scenarios = {run["scenario"] for run in kept["runs"]}
    assert any(scenario.startswith("refund storm") for scenario in scenarios)
    drawn = next((folder / "out").glob("bench-*.svg")).read_text()
    assert all(scenario in drawn for scenario in scenarios)


@pytest.mark.parametrize("driver", ["wrk", "own"])
def test_shapes_of_traffic(driver: str) -> None:
    if driver == "wrk" and shutil.which("wrk") is None:
        pytest.skip("wrk is not installed: Debian package wrk")

    async def well(request: BaseRequest, number: int) -> web.StreamResponse:
        return web.Response(status=201, body=b"{}")

    for shape in ("zipf", "refund"):
        with TinyServer(well) as server:
            traffic = service_traffic(server.port, "t", 50 if shape == "zipf" else 1, shape=shape)
            full_speed(traffic, 2, 1, driver)
        vouchers = [json.loads(body) for body in server.bodies]
        if shape == "refund":
            share = sum(voucher["type"] == "refund" for voucher in vouchers) / len(vouchers)
            assert 0.3 < share < 0.7
        else:
            paid = Counter(voucher["entries"][1]["account"] for voucher in vouchers)
            ordered = [paid[f"merchant:{number}:available"] for number in range(1, 51)]
            assert ordered[0] > ordered[9] > 0
            assert sum(ordered) == len(vouchers)


def test_a_missing_reference_is_reported_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--reference", "/nowhere.py"]) == 2
    assert "/nowhere.py" in capsys.readouterr().err


async def test_no_op_answers_the_bytes_that_the_service_answers(client: Client) -> None:
    owner = uuid.uuid4().hex
    for id_, type_ in ((f"bank:{owner}", "bank"), (f"m:{owner}", "merchant_available")):
        await client.post("/v1/accounts", {"id": id_, "owner": owner, "type": type_, "currency": "CNY"})
    lines = [(f"bank:{owner}", "debit"), (f"m:{owner}", "credit")]
    entries = [{"account": account, "side": side, "amount": 100} for account, side in lines]
    body = {"id": str(uuid.uuid4()), "type": "pay", "entries": entries}
    answer = await client.post("/v1/vouchers", body)
    assert answer.status == 201
    ours = noop.answer(msgspec.convert(body, noop.Voucher))

    def timeless(text: bytes) -> bytes:
        return re.sub(rb"\d{4}-\d\d-\d\d(T[\d:.]+Z)?\"", b'"', text)

    assert timeless(ours) == timeless(answer.body)
    assert len(ours) == len(answer.body)


async def test_time_of_what_the_bench_started_is_its_own_when_it_has_ended() -> None:
    def used_s() -> float:
        fields = Path(f"/proc/{started.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    processors = Processors()
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as started:
        await eventually(lambda: used_s() > 1, "a second is used")
        while_it_runs = processors.others_s()
        started.kill()
    assert while_it_runs > 0.9
    assert processors.others_s() < while_it_runs


def test_ids_are_never_sent_twice() -> None:
    traffic = service_traffic(1, "t", accounts=10)
    bulk = service_traffic(1, "t", accounts=10, size=7, ids="random")
    ids = [json.loads(body_of(r))["id"] for _ in range(2) for r in islice(traffic.requests(), 50)]
    ids += [v["id"] for _ in range(2) for r in islice(bulk.requests(), 5) for v in json.loads(body_of(r))["vouchers"]]
    assert len(ids) == len(set(ids)) == 170
    assert [str(uuid.UUID(id_)) for id_ in ids] == ids


def test_sweep_pays_each_merchant_once() -> None:
    lists = [json.loads(body_of(request))["vouchers"] for request in sweep("t", accounts=25, size=10)]
    paid = [voucher["entries"][1]["account"] for vouchers in lists for voucher in vouchers]
    assert paid == [merchant(number) for number in range(1, 26)]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="without wrk its script is not used either")
@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("ids", ["ordered", "random"])
def test_script_of_wrk_and_our_own_driver_send_the_same(size: int, ids: str) -> None:
    async def well(request: BaseRequest, number: int) -> web.StreamResponse:
        seen.add((request.method, request.path, request.headers["Authorization"], request.headers["Content-Type"]))
        return web.Response(status=201, body=b"{}")

    def nameless(body: bytes) -> bytes:
        return re.sub(rb'"id":"[0-9a-f-]{36}"', b'"id":""', body)

    seen: set[tuple[str, str, str, str]] = set()
    with TinyServer(well) as server:
        traffic = service_traffic(server.port, "secret", accounts=1, size=size, ids=ids)
        full_speed(traffic, 2, 1, "wrk")
        by_wrk, server.bodies = server.bodies, []
        closed_loop(server.port, islice(traffic.requests(), 10), 2)
    assert len(seen) == 1
    assert {nameless(body) for body in by_wrk} == {nameless(body) for body in server.bodies}
    sent = [id_ for body in by_wrk for id_ in re.findall(rb'"id":"([0-9a-f-]{36})"', body)]
    assert len(sent) == len(set(sent)) >= max(size, 1)
    assert all(str(uuid.UUID(id_.decode())) == id_.decode() for id_ in sent)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="without wrk its script is not used either")
def test_script_of_wrk_spreads_over_all_accounts() -> None:
    async def well(request: BaseRequest, number: int) -> web.StreamResponse:
        return web.Response(status=201, body=b"{}")

    with TinyServer(well) as server:
        traffic: Traffic = service_traffic(server.port, "secret", accounts=3, size=500)
        full_speed(traffic, 1, 1, "wrk")
    paid = {entry for body in server.bodies for entry in re.findall(rb"merchant:\d+:available", body)}
    assert paid == {merchant(number).encode() for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("floor", "ratio", "met"),
    [
        (Floor(0.85), 0.85, True),
        (Floor(0.85), 0.84, False),
        (Floor(2, at_most=True), 2.0, True),
        (Floor(2, at_most=True), 2.01, False),
        (None, 0.1, None),
    ],
)
def test_figure_is_held_against_its_floor(floor: Floor | None, ratio: float, met: bool | None) -> None:
    assert rate_figure("x", [run_of(ratio * 10000)], [run_of(10000)], floor).met is met


def test_figure_is_the_median_of_pairs_not_the_ratio_of_medians() -> None:
    # The speed of the machine falls to a half after the first round.
    ours, theirs = [run_of(900), run_of(500), run_of(300)], [run_of(1000), run_of(500), run_of(600)]
    figure = rate_figure("x", ours, theirs)
    assert figure.measured == pytest.approx(0.9)
    assert figure.spread == (pytest.approx(0.5), pytest.approx(1.0))


def test_runs_with_errors_give_no_verdict() -> None:
    figure = rate_figure("x", [run_of(100, errors=1)], [run_of(100)], Floor(0.1))
    assert figure.no_verdict == "1 requests failed"
    assert figure.met is None


def test_table_keeps_columns_under_each_other() -> None:
    text = report.table(("name", "rate"), [("a", "1,000"), ("long name", "5")])
    assert text.splitlines() == ["name        rate", "---------  -----", "a          1,000", "long name      5"]


def test_progress_off_a_terminal_is_a_line_when_something_is_done() -> None:
    stream = io.StringIO()
    with Progress(stream).step("load", total=10) as step:
        assert list(step.watch(iter([b"a", b"b"]))) == [b"a", b"b"]
        assert "2 of 10" in step.line()
        step.result = "well"
    assert stream.getvalue().startswith("load  well  (")
    assert stream.getvalue().count("\n") == 1


def test_progress_shows_what_was_broken_off() -> None:
    stream = io.StringIO()
    with pytest.raises(ZeroDivisionError), Progress(stream).step("load"):
        _ = 1 / 0
    assert "interrupted" in stream.getvalue()
