"""Short runs of the chaos tests of both services: the connection between them is cut, and processes are killed."""

from pathlib import Path

import pytest

from benchmarks import cut, fund_kill
from tests.benchmarks.test_fund_bench import folder, report_of  # noqa: F401 - a fixture
from tests.support.length import unless_long

pytestmark = pytest.mark.drill


def test_a_cut_of_the_link_strands_no_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name, seconds in (("RATE", 60.0), ("BEFORE_S", 2.0), ("CUT_S", unless_long(2.0, 30.0)), ("AFTER_S", 2.0)):
        monkeypatch.setattr(cut, name, seconds)
    status, kept = report_of(folder, "--only", "cut")
    assert status == 0, kept["pages"]["cut"]
    for found in kept["pages"]["cut"]["cuts"]:
        assert found["known_s"] is not None
        assert found["doubtful_at_healing"] > 0, "the cut hit nothing"
        assert found["differences"] == {}


def test_a_cut_shows_where_no_job_recovers_orders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name, seconds in (
        ("RATE", 60.0),
        ("BEFORE_S", 1.0),
        ("CUT_S", 2.0),
        ("AFTER_S", 0.5),
        ("KNOWN_S", 2.0),
        ("AGAIN_S", 2.0),
    ):
        monkeypatch.setattr(cut, name, seconds)
    monkeypatch.setattr(cut, "FORMS", ("reset",))
    status, kept = report_of(folder, "--only", "cut", "--setting", "DAEMONS=0")
    assert status == 1
    assert kept["pages"]["cut"]["cuts"][0]["differences"]["stuck"] > 0


def test_killing_any_process_loses_and_doubles_no_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name, value in (
        ("ROUNDS", unless_long(1, None)),
        ("EVERY_S", unless_long(1.5, 8.0)),
        ("ENDED_S", unless_long(5.0, 900.0)),
    ):
        monkeypatch.setattr(fund_kill, name, value)
    status, kept = report_of(folder, "--only", "fund-kill", "--seconds", unless_long("60", "600"))
    assert status == 0, kept["pages"]["fund-kill"]
    assert len(kept["pages"]["fund-kill"]["kills"]) == 6
