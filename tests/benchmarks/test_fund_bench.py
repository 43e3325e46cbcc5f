"""Small runs of the benchmarks of both services: the end-to-end path, and concurrent refunds."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import bench, refund_race, whole
from tests.support.length import unless_long
from tests.support.running import short_folder

pytestmark = pytest.mark.drill

BRIEF = unless_long("0.4", "2")


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = short_folder()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def report_of(folder: Path, *options: str) -> tuple[int, dict]:
    where = ["--data-root", str(folder), "--out", str(folder / "out"), "--setting", "POSTGRES_MEMORY_MB=128"]
    status = bench.main([*options, *where, "--driver", "own", "--rounds", "1"])
    return status, json.loads(next((folder / "out").glob("bench-*.json")).read_text())


def test_the_whole_way_is_measured_beside_the_account_service_and_proved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "MERCHANTS", 20)
    status, kept = report_of(folder, "--only", "whole", "--seconds", BRIEF, "--warm-up-seconds", BRIEF)
    assert status == 0
    proof = kept["proofs"]["whole way"]
    assert proof["ok"] and proof["vouchers"] >= proof["acknowledged"] > 0
    assert {run["contender"] for run in kept["runs"]} == {"payment", "voucher"}
    assert len(kept["figures"]) == 3


def test_a_hundred_concurrent_refunds_never_exceed_the_payment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refund_race, "ROUNDS", unless_long(10, 1000))
    status, kept = report_of(folder, "--only", "refund-race")
    assert status == 0
    assert all(figure["met"] for figure in kept["figures"])
    page = kept["pages"]["refund-race"]
    assert page["orders"] == page["rounds"] + page["rounds"] // 5 * (100 + 76 + 33 + 12 + 4)
