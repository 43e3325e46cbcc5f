"""Folders for sockets: their names cannot be guessed by another user, and a planted folder is not used."""

import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from fundledger.app.host.preflight import CannotServe, lock
from fundledger.app.host.socket_folder import FOLDER_BYTES_MAX, fits, run_dir, socket_folder
from fundledger.settings import BadSetting, read_settings
from tests.support.running import short_folder

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user, so it has to be root")
NOBODY = 65534


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = short_folder()
    (folder / "data").mkdir()
    yield folder / "data"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def long_dir(data_dir: Path) -> Path:
    folder = data_dir / ("long" * 25)
    folder.mkdir()
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_short_path_has_its_sockets_in_the_data_directory(data_dir: Path) -> None:
    folder = run_dir(data_dir)
    assert folder == data_dir / "run"
    assert (mode(folder), folder.stat().st_uid) == (0o700, os.geteuid())
    assert run_dir(data_dir) == folder


def test_a_long_path_has_them_in_a_folder_that_cannot_be_guessed(long_dir: Path) -> None:
    folder = run_dir(long_dir)
    assert fits(folder)
    assert (mode(folder), folder.stat().st_uid) == (0o700, os.geteuid())
    assert run_dir(long_dir) == folder
    shutil.rmtree(folder)
    again = run_dir(long_dir)
    assert again != folder
    assert mode(again) == 0o700
    again.rmdir()


@pytest.mark.parametrize("planted", ["link", "mode", "file"])
def test_what_is_found_in_place_of_the_temporary_folder_is_not_used(long_dir: Path, planted: str) -> None:
    folder, elsewhere = run_dir(long_dir), long_dir / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    folder.rmdir()
    if planted == "link":
        folder.symlink_to(elsewhere)
    elif planted == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    before = elsewhere.stat()
    again = run_dir(long_dir)
    assert again != folder
    assert mode(again) == 0o700
    assert elsewhere.stat() == before
    again.rmdir()
    folder.rmdir() if planted == "mode" else folder.unlink()


@AS_ROOT
def test_a_temporary_folder_of_another_user_is_not_used(long_dir: Path) -> None:
    folder = run_dir(long_dir)
    os.chown(folder, NOBODY, NOBODY)
    again = run_dir(long_dir)
    assert again != folder
    assert again.stat().st_uid == 0
    folder.rmdir()
    again.rmdir()


def test_a_copy_of_a_data_directory_has_a_folder_of_its_own(long_dir: Path) -> None:
    folder = run_dir(long_dir)
    copy = long_dir.with_name(long_dir.name[:-1] + "x")
    shutil.copytree(long_dir, copy)
    other = run_dir(copy)
    assert other != folder
    assert run_dir(long_dir) == folder
    folder.rmdir()
    other.rmdir()


@pytest.mark.parametrize("planted", ["link", "file"])
def test_a_link_or_a_file_in_the_data_directory_is_refused(data_dir: Path, planted: str) -> None:
    elsewhere = data_dir / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    if planted == "link":
        (data_dir / "run").symlink_to(elsewhere)
    else:
        (data_dir / "run").write_text("")
    with pytest.raises(CannotServe, match="link or a file"):
        run_dir(data_dir)
    assert mode(elsewhere) == 0o755


@AS_ROOT
def test_a_folder_of_another_user_in_the_data_directory_is_refused(data_dir: Path) -> None:
    (data_dir / "run").mkdir()
    os.chown(data_dir / "run", NOBODY, NOBODY)
    with pytest.raises(CannotServe, match="belongs to user 65534"):
        run_dir(data_dir)


def test_a_mode_that_lets_others_in_is_mended(data_dir: Path) -> None:
    (data_dir / "run").mkdir(mode=0o755)
    assert mode(run_dir(data_dir)) == 0o700


@AS_ROOT
def test_the_folder_for_postgres_belongs_to_its_user(data_dir: Path, long_dir: Path) -> None:
    for folder in (data_dir, long_dir):
        found = socket_folder(folder, "pg", NOBODY)
        assert (found.stat().st_uid, mode(found)) == (NOBODY, 0o700)
        assert socket_folder(folder, "pg", NOBODY) == found
        shutil.rmtree(found)


@pytest.mark.parametrize(
    "text", ["a,b", "a b", "a%20b", "a=b", "a'b", 'a"b', "a\\b", "a#b", "ä", "a?b", "a&b", "a;b", "$HOME"]
)
def test_a_path_that_means_something_else_in_a_syntax_is_passed_on_in_none(data_dir: Path, text: str) -> None:
    odd = data_dir / text
    odd.mkdir()
    folder = run_dir(odd)
    assert fits(folder)
    # The folder is usable in a DSN, in a Redis URL, and for a socket.
    assert parse_qs(urlsplit(f"postgresql://u:p@/d?host={folder}").query)["host"] == [str(folder)]
    assert urlsplit(f"unix://{folder}/valkey.sock").path == f"{folder}/valkey.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "fund-metrics.sock"))
    shutil.rmtree(folder)


def test_the_longest_folder_holds_the_longest_socket(data_dir: Path) -> None:
    longest = data_dir / ("x" * (FOLDER_BYTES_MAX - len(str(data_dir)) - 1))
    longest.mkdir()
    assert fits(longest)
    assert not fits(longest.with_name(longest.name + "x"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(longest / "fund-metrics.sock"))


@pytest.mark.parametrize("text", ["a\nb", "a\tb", "a\x1bb", "x" * 801, "a\udcffb"])
def test_a_path_that_cannot_be_passed_on_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FUNDLEDGER_DATA_DIR", text)
    with pytest.raises(BadSetting, match=r"FUNDLEDGER_DATA_DIR=.*printable"):
        read_settings()


def test_a_data_directory_that_all_may_write_to_is_refused(data_dir: Path) -> None:
    data_dir.chmod(0o777)
    with pytest.raises(CannotServe, match="all users may write"):
        lock(data_dir)


def test_a_planted_lock_empties_no_file(data_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (data_dir / "serve.lock").symlink_to(victim)
    with pytest.raises(CannotServe):
        lock(data_dir)
    assert victim.read_text() == "precious"


@AS_ROOT
def test_another_user_cannot_take_the_place_of_the_sockets_in_advance(long_dir: Path) -> None:
    """Another user creates the folder under its former fixed name in advance, with a link beside it."""
    import hashlib

    name = hashlib.sha256(str(long_dir).encode()).hexdigest()[:12]
    old = Path(f"/tmp/fundledger-{name}")
    plant = ["setpriv", f"--reuid={NOBODY}", "--clear-groups", "mkdir", "-m", "777", str(old)]
    subprocess.run(plant, check=True)
    try:
        folder = run_dir(long_dir)
        assert folder != old
        assert (folder.stat().st_uid, mode(folder)) == (0, 0o700)
        assert (old.stat().st_uid, mode(old)) == (NOBODY, 0o777)
        folder.rmdir()
    finally:
        old.rmdir()
