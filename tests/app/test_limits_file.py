"""A missing `limits.toml` is written anew with the limits in force, and the event is logged."""

import json
import logging
from pathlib import Path

import pytest

from fundledger.app.http.admission.policies import read_policies
from fundledger.ratelimit.quota.policies import default_text, parse
from fundledger.settings import Settings
from tests.support.client import Client
from tests.support.running import RunningService

MINE = """version = 1

[[policy]]
name = "mine"
key = "caller"
rate = "7/s"
burst = 7
"""


def warnings(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [record for record in caplog.records if getattr(record, "event", "") == "limits_file_made"]
    return [(record.source, record.version) for record in found]  # type: ignore[attr-defined]


@pytest.mark.parametrize("mark", ["ledger-id", "postgres", None])
@pytest.mark.parametrize("accepted", [MINE, "broken = ", None])
def test_limits_that_are_gone_are_those_in_force_last_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mark: str | None, accepted: str | None
) -> None:
    if mark is not None:
        (tmp_path / mark).mkdir()
    if accepted is not None:
        (tmp_path / "limits.accepted.toml").write_text(accepted)
    expected, source = default_text(), "the default limits"
    if accepted == MINE:
        expected, source = MINE, "limits.accepted.toml"
    with caplog.at_level(logging.WARNING):
        found = read_policies(Settings(data_dir=tmp_path))
    assert found.version == parse(expected).version
    assert (tmp_path / "limits.toml").read_text() == (tmp_path / "limits.accepted.toml").read_text() == expected
    assert warnings(caplog) == ([] if mark is None else [(source, found.version)])
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["limits.accepted.toml", "limits.toml"]
    caplog.clear()
    assert read_policies(Settings(data_dir=tmp_path)) == found
    assert warnings(caplog) == []


async def test_a_service_that_finds_no_limits_has_those_of_before() -> None:
    async with RunningService(workers=1) as service:
        assert "limits_file_made" not in service.log.read_text()
        assert await service.stop() == 0
        (service.data_dir / "limits.toml").write_text(MINE)
        await service.start()
        assert await service.stop() == 0
        (service.data_dir / "limits.toml").unlink()
        await service.start()
        async with Client(service.base_url, service.token) as client:
            limits = (await client.get("/debug/limits")).json
        assert limits["version"] == parse(MINE).version
        assert [policy["policy"] for policy in limits["policies"]] == ["mine"]
        lines = [json.loads(line) for line in service.log.read_text().splitlines() if "limits_file_made" in line]
        assert [(line["level"], line["version"]) for line in lines] == [("warning", limits["version"])]
