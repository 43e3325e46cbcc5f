"""`fundledger payouts`: an operator exports payout files and imports their results from the command line."""

import subprocess
from pathlib import Path

import pytest

from tests.app.fund.test_payout_files_http import Exports, exports, place, running
from tests.app.fund.test_people import Place
from tests.support.fund_http import TOKEN
from tests.support.fund_payees import iban
from tests.support.running import run

__all__ = ["place", "running"]  # fixtures


class Console:
    """A folder in which commands run. `token`: that of a module."""

    def __init__(self, bank: Exports, folder: Path) -> None:
        self.bank = bank
        self.folder = folder
        (folder / "token").write_text(f"{TOKEN}\n")

    async def __call__(self, command: str, *more: str) -> "subprocess.CompletedProcess[str]":
        port = self.bank.place.tests.base_url.rpartition(":")[2]
        given = ("payouts", command, self.bank.channel, *more, "--token-file", "token")
        return await run(*given, env={"FUNDLEDGER_FUND_PORT": port}, cwd=self.folder)


@pytest.fixture
async def console(place: Place, tmp_path: Path) -> Console:
    return Console(await exports(place), tmp_path)


async def test_an_operator_exports_downloads_and_imports(console: Console) -> None:
    bank, folder = console.bank, console.folder
    paid, other = await bank.withdraw("1", 100), await bank.withdraw("2", 200)
    made = await console("export", "--currency", "CNY", "--file-no", "1")
    assert made.returncode == 0, made
    path = folder / f"{bank.channel}-1.csv"
    assert f"saved {path.name}" in made.stdout
    assert "2 payouts  3.00 CNY" in made.stdout
    assert iban(1) not in made.stdout + made.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    assert iban(1) in content.decode()
    again = await console("export", "--currency", "CNY", "--file-no", "1")
    assert (again.returncode, path.read_bytes()) == (0, content)
    copied = await console("download", "1", "--output", "copy.csv")
    assert (copied.returncode, (folder / "copy.csv").read_bytes()) == (0, content)
    listed = await console("list")
    assert listed.stdout.startswith(f"{bank.channel} 1  csv  2 payouts")
    (folder / "results.csv").write_text(f"ref,state,amount\n{paid},paid,1.00\n{other},paid,2.01\n")
    imported = await console("import", "results.csv", "--file-no", "1")
    assert imported.returncode == 1, imported
    assert imported.stdout.splitlines() == ["1 recorded, 1 amount", f"line 2: amount: {other} paid"]
    replay = await console("import", "results.csv", "--file-no", "1")
    assert replay.stdout.startswith("1 recorded, 1 amount, as before")
    assert [await bank.state(id_) for id_ in (paid, other)] == ["paid", "sent"]


async def test_what_the_service_refuses_is_printed_and_nothing_is_saved(console: Console) -> None:
    nothing = await console("export", "--currency", "CNY")
    assert nothing.returncode == 1
    assert "nothing-to-export" in nothing.stdout
    assert (await console("download", "7")).returncode == 1
    assert (await console("list")).stdout == "no payout files\n"
    assert sorted(one.name for one in console.folder.iterdir() if one.suffix) == []


async def test_a_file_of_another_content_is_not_overwritten(console: Console) -> None:
    await console.bank.withdraw("1", 100)
    path = console.folder / "mine.csv"
    path.write_text("mine")
    made = await console("export", "--currency", "CNY", "--output", path.name)
    assert made.returncode == 1, made
    assert path.read_text() == "mine"
    assert (await console("download", "1")).returncode == 0


async def test_a_service_that_does_not_answer_and_a_missing_file_are_faults(console: Console) -> None:
    console.folder.joinpath("token").write_text("wrong\n")
    for more in (("list",), ("import", "none.csv", "--file-no", "1")):
        done = await console(*more)
        assert done.returncode == 2, done
        assert len(done.stderr.splitlines()) == 1, done
