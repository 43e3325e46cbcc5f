"""Small runs of the overload benchmark and of the chaos test of limits: complete reports, without bounds on numbers."""

import asyncio
import json
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.web_request import BaseRequest

from benchmarks import bench, limits_drill, overload
from benchmarks.limits_drill import MODE, recovery_s
from benchmarks.mix import SHARES, Mix
from benchmarks.mixed_loop import Answer, MixedRun, mixed_loop
from benchmarks.open_loop import steady
from benchmarks.outcomes import jain, outcomes_of, served_shares
from benchmarks.plot_lines import lines
from benchmarks.service import accepted
from benchmarks.watch import Watch, series
from tests.benchmarks.tiny import TinyServer
from tests.support.length import unless_long
from tests.support.running import short_folder

pytestmark = pytest.mark.drill

MS = 1_000_000


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def answer(status: int, *, ms: int = 1, merchant: int = 1, due_ms: int = 0) -> Answer:
    return Answer(due_ms * MS, ms * MS, "payment", merchant, 1, status)


async def well(request: BaseRequest, number: int) -> web.StreamResponse:
    return web.Response(status=201, body=b"{}")


# --- Parts ----------------------------------------------------------------------------------------------------------


def test_a_mix_has_the_shares_that_were_asked_for_and_says_how_patient_it_is() -> None:
    asked = list(islice(Mix("t", [9.0, 1.0], 2.5).requests(seed=1), 10_000))
    kinds = Counter(asking.kind for asking in asked)
    assert all(abs(kinds[kind] - 100 * share) < 200 for kind, share in SHARES.items())
    assert 8500 < Counter(asking.merchant for asking in asked)[1] < 9500
    ids = re.findall(rb'"id":"([0-9a-f-]{36})"', b"".join(asking.request for asking in asked))
    assert len(ids) == len(set(ids)) == sum(asking.vouchers for asking in asked)
    assert all(b"\r\nX-Request-Timeout-Ms: 2500\r\n" in asking.request for asking in asked)
    types = {asking.kind: re.search(rb'"type":"(\w+)"', asking.request) for asking in asked}
    assert {kind: found and found[1] for kind, found in types.items()} == {
        "refund": b"refund",
        "withdraw": b"withdraw",
        "payment": b"pay",
        "batch": b"pay",
        "query": None,
        "list": None,
    }


def test_outcomes_are_reported_by_class_and_refusals_by_their_problem() -> None:
    async def moody(request: BaseRequest, number: int) -> web.StreamResponse:
        status = (201, 429, 503, 500)[number % 4]
        theirs, ours = "https://iana.org/assignments/http-problem-types#quota-exceeded", "urn:fundledger:problem:busy"
        kind = theirs if status == 429 else ours
        headers = {"Retry-After": "1"} if status == 429 else {}
        return web.Response(status=status, body=b'{"type":"%s"}' % kind.encode(), headers=headers)

    with TinyServer(moody) as server:
        run = mixed_loop(server.port, Mix("t", [1.0], 1).requests(1), steady(200), 1.0, rate=200)
    of = outcomes_of(run.answers)
    assert of.offered == len(run.answers) == len(server.bodies)
    assert 45 < of.limited_429 < 55 and 45 < of.shed_503 < 55 and 45 < of.other < 55
    assert run.problems == {"429 quota-exceeded": of.limited_429, "503 busy": of.shed_503, "500 busy": of.other}
    assert run.without_retry_after == of.shed_503
    assert run.acknowledged == sum(one.vouchers for one in run.answers if one.status == 201)
    assert (run.uncertain, run.no_verdict) == (0, None)


def test_clients_that_have_waited_too_long_hang_up_and_what_they_asked_for_is_uncertain() -> None:
    async def never(request: BaseRequest, number: int) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    mix = Mix("t", [1.0], 1, {"payment": 1.0})
    with TinyServer(never) as server:
        run = mixed_loop(server.port, mix.requests(1), steady(50), 0.5, rate=50, connections=8, patience_s=0.3)
    of = outcomes_of(run.answers)
    assert (of.well, of.gave_up) == (0, of.offered)
    assert of.offered >= 8
    assert run.uncertain == run.problems["hung up"] >= 8
    assert run.problems["hung up"] + run.problems["never sent"] == of.offered


def test_in_a_closed_loop_each_connection_asks_again_when_it_has_its_answer() -> None:
    with TinyServer(well) as server:
        run = mixed_loop(server.port, Mix("t", [1.0], 1).requests(1), None, 0.3, connections=4)
    assert outcomes_of(run.answers).well == len(run.answers) == len(server.bodies) > 8


def test_index_of_jain() -> None:
    assert jain([0.5, 0.5, 0.5]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([]) == jain([0, 0]) == 1
    answers = [answer(201, merchant=1), answer(503, merchant=1), answer(201, merchant=2)]
    assert served_shares(answers, [1, 2, 3]) == [0.5, 1.0]


def test_outcomes_of_no_requests_have_no_latencies() -> None:
    assert outcomes_of([]).p99_ms is None
    assert outcomes_of([answer(429)]).share_well == 0
    assert outcomes_of([answer(201, ms=3), answer(201, ms=5)]).p50_ms == 3


def modes(*values: float) -> list[tuple[int, dict[str, float]]]:
    """Return samples of the number of workers that use local quotas, one every 500 ms."""
    return [(number * 500 * MS, {f'{MODE}{{mode="fallback"}}': value}) for number, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ((0, 2, 1, 0, 0, 0, 0), 1.0),
        ((1, 0, 0, 0, 0, 0, 0), 0.0),
        ((1, 0, 1, 0, 0, 0, 1), 1.0),
        ((1, 1, 1, 1, 1, 1, 0), 2.5),
        ((1, 1, 0, 1, 0, 1, 0), 2.5),
    ],
)
def test_recovery_is_when_no_worker_is_in_fallback_any_more(values: tuple[float, ...], seconds: float) -> None:
    assert recovery_s(modes(*values), 500 * MS, 3000 * MS) == pytest.approx(seconds)


def test_a_mode_is_found_whatever_its_labels_and_a_missing_one_is_no_recovery() -> None:
    by_worker = {f'{MODE}{{worker="0",mode="fallback"}}': 0.0, f'{MODE}{{worker="1",mode="fallback"}}': 1.0}
    assert limits_drill.in_fallback([(1, by_worker), (2, {})]) == [(1, True)]
    assert recovery_s([(1, {})], 0, 1000 * MS) is None


def test_a_fallback_is_an_alarm_unless_valkey_was_away() -> None:
    samples = modes(0, 1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 1)
    assert limits_drill.alarms(samples, []) == 4
    assert limits_drill.alarms(samples, [(1000 * MS, 2000 * MS)]) == 3


def test_an_outage_is_reported_as_the_admitted_share_of_the_limit_and_the_errors() -> None:
    """1,000 requests a second arrive for 12 s. Half of them are admitted, from 4 s to 8 s nine tenths of that number.

    One request is answered 500.
    """

    def status(ms: int) -> int:
        if ms == 5001:
            return 500
        share = 0.45 if 4000 <= ms < 8000 else 0.5
        return 201 if int(ms * share) != int((ms - 1) * share) else 429

    late = dict.fromkeys(range(4000, 5000), 9)
    answers = [answer(status(ms), ms=late.get(ms, 1), due_ms=ms) for ms in range(12_000)]
    run = MixedRun(1000.0, 0, 12_000 * MS, answers)
    watch = Watch(lambda _: "", (), 1.0)
    watch.samples = [(at * MS, {f'{MODE}{{mode="fallback"}}': float(at < 8500)}) for at in range(4000, 12_000, 100)]
    seen = limits_drill._outage("stopped", run, watch, 4000 * MS, 8000 * MS, 12_000 * MS)
    assert seen.admitted_meanwhile == pytest.approx(0.9, abs=0.01)
    assert seen.recovered_s == pytest.approx(0.5)
    assert seen.admitted_first_second == 500
    assert seen.server_errors == 1
    assert (seen.p99_before_ms, seen.p99_first_second_ms, seen.p99_later_ms) == (1, 9, 1)
    figures = {figure.name: figure for figure in limits_drill._figures(run, [seen], None)}
    assert figures["limits: answers with 5xx"].met is False
    assert figures["limits, Valkey stopped: admitted / limit, at least"].met
    assert figures["limits, Valkey stopped: recovered after"].met
    assert not figures["limits, Valkey stopped: p99 of the first second, above that before"].met


def test_metrics_are_watched_and_an_answer_that_does_not_come_is_no_sample() -> None:
    texts = iter(['a_level 1\na_total{c="x y"} 2\nb 3\n', None, "a_level 5\n"])

    def read(within_s: float) -> str:
        text = next(texts, "a_level 0\n")
        if text is None:
            raise bench.BenchFault("no answer")
        return text

    with Watch(read, ("a_",), 0.005) as watch:
        give_up_at = time.monotonic() + 10
        while len(watch.samples) < 3 and time.monotonic() < give_up_at:
            pass
    assert watch.samples[0][1] == {"a_level": 1, 'a_total{c="x y"}': 2}
    assert watch.greatest("a_level") == 5
    assert watch.greatest("a_total") == 2
    assert watch.greatest("c_level") is None
    assert series("b 3\n", ("a_",)) == {}


@pytest.mark.parametrize("log", [False, True])
def test_lines_are_drawn_also_where_there_is_nothing(log: bool) -> None:
    drawn = lines("a & b", ["1", "2"], {"one": [0.5, 100.0], "none": [None, None], "zero": [0.0, 0.0]}, "ms", log=log)
    assert drawn.count("<polyline") == 3
    assert "a &amp; b" in drawn and "nan" not in drawn


def test_settings_that_this_version_does_not_know_are_left_out_and_bad_values_are_reported() -> None:
    assert accepted({"WORKERS": "3", "NO_SUCH_SETTING": "1"}) == {"WORKERS": "3"}
    with pytest.raises(bench.BenchFault, match="FUNDLEDGER_WORKERS"):
        accepted({"WORKERS": "many"})


# --- The whole bench ------------------------------------------------------------------------------------------------


def options(folder: Path, what: str) -> list[str]:
    each = unless_long("0.4", "2")
    short = ["--seconds", each, "--rounds", "1", "--warm-up-seconds", each, "--open-seconds", each, "--driver", "own"]
    where = ["--data-root", str(folder), "--out", str(folder / "out")]
    return ["--only", what, *short, *where, "--setting", "POSTGRES_MEMORY_MB=128"]


def kept(folder: Path) -> dict:
    return json.loads(next((folder / "out").glob("bench-*.json")).read_text())


def test_overload_is_reported_by_class_and_the_books_are_proved(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "MULTIPLES", (0.5, 2))
    monkeypatch.setattr(overload, "CLOSED", (16,))
    monkeypatch.setattr(overload, "CALM_S", 0)
    assert bench.main(options(folder, "overload")) == 0
    printed = capsys.readouterr().out
    assert "one merchant asks 10 x its share: Jain's index of the others" in printed
    report = kept(folder)
    assert {name: proof["ok"] for name, proof in report["proofs"].items()} == {"capacity": True, "overload": True}
    page = report["pages"]["overload"]
    assert page["peak"]["requests"] > page["peak"]["postings"] > 0
    assert [step["name"] for step in page["steps"]] == ["0.5 x", "2 x"]
    assert [step["name"] for step in page["greed"]] == ["all alike", "one greedy"]
    for step in [*page["steps"], *page["greed"]]:
        assert set(step["classes"]) == {*SHARES, "all"}
        assert step["memory_mb_max"] > 10
        asked = step["classes"]["all"]
        outcomes = ("well", "limited_429", "shed_503", "gave_up", "other")
        assert asked["offered"] == sum(asked[name] for name in outcomes) > 0
        assert asked["other"] == 0
    drawn = {path.stem.partition("Z-")[2] for path in (folder / "out").glob("*.svg")}
    assert drawn == {"goodput", "p99"}


def test_limits_drill_reports_the_effect_of_the_limit_and_proves_the_books(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BEFORE_S", "OUTAGE_S", "AFTER_S", "KILLED_S"):
        monkeypatch.setattr(limits_drill, name, 1.0)
    assert bench.main(options(folder, "limits")) == 0
    printed = capsys.readouterr().out
    for figure in ("answers with 5xx", "admitted / limit", "recovered after", "admitted in the first second after"):
        assert figure in printed
    assert "p99 at 60% of the peak: limiter on - off" in printed
    report = kept(folder)
    assert all(proof["ok"] for proof in report["proofs"].values())
    assert set(report["proofs"]) == {"limits", "limiter on", "limiter off"}
    page = report["pages"]["limits"]
    assert len(page["admitted_each_second"]) == 4
    assert [outage["what"] for outage in page["outages"]] == ["stopped", "killed"]
    assert {path.stem.partition("Z-")[2] for path in (folder / "out").glob("*.svg")} == {"", "admitted", "admitted-p99"}
