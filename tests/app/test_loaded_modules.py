"""The modules that a process loads: a fund process loads no code that writes balances, directly or indirectly."""

import subprocess
import sys

import pytest

CASES = [
    ("fundledger.app.fund.server", ("ledger", "hotspot", "reconciliation", "app.account", "app.host", "app.commands")),
    ("fundledger.app.fund.jobs", ("ledger", "hotspot", "reconciliation", "app.account", "app.host", "app.commands")),
    ("fundledger.app.account.server", ("fund", "reconciliation", "app.fund", "app.host", "app.commands")),
    ("fundledger.app.http.process", ("fund", "ledger", "hotspot", "reconciliation", "app.account", "app.fund")),
]

LIBRARIES = [
    ("fundledger.app.host.supervisor", ("redis", "aiohttp")),
    ("fundledger.app.commands.cli", ("redis", "aiohttp", "asyncpg")),
    ("fundledger.app.account.server", ("prometheus_client",)),
]
"""Libraries that a process does not use. Loading one of them would make every start 20 to 80 ms longer."""


def loaded_by(module: str) -> set[str]:
    script = f"import sys, {module}; print(*sys.modules)"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize(("module", "never"), CASES)
def test_a_process_loads_nothing_of_another_service(module: str, never: tuple[str, ...]) -> None:
    packages = tuple(f"fundledger.{name}" for name in never)
    found = {
        name for name in loaded_by(module) if name.startswith(tuple(f"{p}." for p in packages)) or name in packages
    }
    assert found == set()


@pytest.mark.parametrize(("module", "never"), LIBRARIES)
def test_a_process_loads_no_library_that_it_does_not_use(module: str, never: tuple[str, ...]) -> None:
    assert loaded_by(module).isdisjoint(never)


def test_what_a_process_loads_is_seen() -> None:
    assert {"fundledger.ledger.posting", "redis", "aiohttp"} <= loaded_by("fundledger.app.account.server")
