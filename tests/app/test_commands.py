"""The command line as programs use it: versions, and every list as JSON."""

import json
import re

import pytest

from tests.support.running import RunningService, run


async def test_the_version_names_the_build_and_what_it_runs_on(service: RunningService) -> None:
    done = await run("--version", env=service.environment, cwd=service.folder)
    assert done.returncode == 0
    wanted = r"fundledger \d+\.\d+\.\d+ \(([0-9a-f]{12}|unknown)\), Python 3\.\d+\.\d+, embedded Postgres 18[.\d]*\n"
    assert re.fullmatch(wanted, done.stdout), done.stdout


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (["doctor"], "checks"),
        (["hot", "list"], "accounts"),
        (["jobs", "list"], "jobs"),
        (["verify"], "checks"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_a_list_is_json_on_request(service: RunningService, command: list[str], key: str) -> None:
    done = await run(*command, "--json", env=service.environment, cwd=service.folder)
    assert isinstance(json.loads(done.stdout)[key], list), done


async def test_stuck_orders_are_json_on_request(platform: RunningService) -> None:
    done = await run("orders", "stuck", "--json", env=platform.environment, cwd=platform.folder)
    assert isinstance(json.loads(done.stdout)["orders"], list), done


async def test_settings_as_json_hide_secrets(service: RunningService) -> None:
    secret = {"FUNDLEDGER_FUND_DSN": "postgresql://me:hidden@/x"}
    done = await run("settings", "--json", env={**service.environment, **secret}, cwd=service.folder)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["port"] == {"name": "port", "value": str(service.port), "from": "environment FUNDLEDGER_PORT"}
    assert "hidden" not in done.stdout
