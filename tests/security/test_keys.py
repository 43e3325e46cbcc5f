"""Keys and tokens: created once, readable by their owner only, never logged."""

import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path

import pytest

from fundledger.security.keys import FileKeys, KeyFault, make_keys, make_secret, read_keys, read_secret, write_new
from fundledger.security.mac import MacKey
from fundledger.security.tokens import Tokens, module_token, read_token


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest):
    """Set a umask for the test."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path, umask: None) -> None:
    folder = tmp_path / "keys"
    keys = make_keys(folder)
    path = folder / "mac-1.key"
    assert (mode(folder), mode(path)) == (0o700, 0o600)
    assert re.fullmatch(r"[0-9a-f]{64}\n", path.read_text())
    written = path.read_bytes()
    assert FileKeys(folder).current.tag(b"x") == keys.current.tag(b"x")
    assert path.read_bytes() == written


def test_every_installation_has_its_own_key(tmp_path: Path) -> None:
    tags = {make_keys(tmp_path / str(i)).current.tag(b"x") for i in range(5)}
    assert len(tags) == 5


@pytest.mark.parametrize("bad", [0o640, 0o604, 0o644, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, bad: int) -> None:
    make_keys(tmp_path)
    (tmp_path / "mac-1.key").chmod(bad)
    with pytest.raises(KeyFault, match="0600"):
        FileKeys(tmp_path)


@pytest.mark.parametrize("text", ["", "zz" * 32, "00" * 31 + "0", "hello"])
def test_a_key_that_is_none_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    make_keys(tmp_path)
    (tmp_path / "mac-1.key").write_text(text)
    with pytest.raises(KeyFault) as caught:
        FileKeys(tmp_path)
    assert text == "" or text not in str(caught.value)


@pytest.mark.parametrize("text", ["00" * 16, "00"])
def test_a_key_that_is_too_short_is_refused(tmp_path: Path, text: str) -> None:
    make_keys(tmp_path)
    (tmp_path / "mac-1.key").write_text(text)
    with pytest.raises(KeyFault):
        FileKeys(tmp_path)


def test_a_file_name_that_is_no_version_is_a_key_fault(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "mac-old.key").write_text("00" * 32)
    (tmp_path / "mac-old.key").chmod(0o600)
    with pytest.raises(KeyFault):
        FileKeys(tmp_path)


def test_the_newest_key_is_current_and_old_ones_still_verify(tmp_path: Path) -> None:
    old = make_keys(tmp_path).current
    second = tmp_path / "mac-2.key"
    second.write_text("ab" * 32)
    second.chmod(0o600)
    keys = FileKeys(tmp_path)
    assert keys.current.version == 2
    assert keys.by_version(1).tag(b"x") == old.tag(b"x")
    with pytest.raises(KeyFault, match="version 3"):
        keys.by_version(3)


def test_keys_do_not_show_their_secrets(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    secret = (tmp_path / "mac-1.key").read_text().strip()
    for shown in (repr(keys), str(keys), repr(vars(keys)), repr(keys.current)):
        assert secret not in shown
        assert repr(bytes.fromhex(secret))[2:-1] not in shown


def test_the_token_of_a_module_is_made_once_and_only_its_owner_reads_it(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "dev-token"
    token = module_token(path, "dev")
    assert mode(path) == 0o600
    assert len(token) > 40
    assert module_token(path, "dev") == token
    assert module_token(tmp_path / "other", "dev") != token


@pytest.mark.parametrize("bad", [0o640, 0o604, 0o644])
def test_a_token_that_others_can_read_is_refused(tmp_path: Path, bad: int) -> None:
    path = tmp_path / "dev-token"
    token = module_token(path, "dev")
    path.chmod(bad)
    with pytest.raises(KeyFault) as caught:
        module_token(path, "dev")
    assert token not in str(caught.value)


def test_an_empty_token_is_no_token(tmp_path: Path) -> None:
    """A crash between the creation of the file and the write would leave an empty file."""
    path = tmp_path / "dev-token"
    path.touch(mode=0o600)
    with contextlib.suppress(KeyFault):
        assert len(module_token(path, "dev")) > 40


@pytest.mark.parametrize(
    ("header", "module"),
    [
        ("Bearer secret", "dev"),
        ("bearer secret", "dev"),
        ("BEARER  secret ", "dev"),
        ("Bearer secret2", None),
        ("Bearer secre", None),
        ("Bearer ", None),
        ("Bearer", None),
        ("secret", None),
        ("Basic secret", None),
        ("Digest secret", None),
        ("Bearer_secret", None),
        ("", None),
        (None, None),
        ("Bearer \udcff", None),
        ("Bearer sécret", None),
    ],
)
def test_a_header_belongs_to_a_module_or_to_none(header: str | None, module: str | None) -> None:
    assert Tokens.of({"secret": "dev"}).module(header) == module


def test_an_empty_token_opens_nothing() -> None:
    assert Tokens.of({}).module("Bearer ") is None


def test_tokens_are_kept_as_hashes(tmp_path: Path) -> None:
    tokens = Tokens.of({"a-secret-token": "dev"})
    assert "a-secret-token" not in repr(vars(tokens))
    assert hashlib.sha256(b"a-secret-token").digest() in next(iter(vars(tokens).values()))


# --- Files that must not be lost ------------------------------------------------------------------------------------


def test_a_file_is_durable_before_it_has_its_name_and_the_name_before_it_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a key is lost in a crash after rows got MACs with it, these rows can never be verified again."""
    path, done = tmp_path / "mac-1.key", []

    def noted(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object) -> object:
            what = Path(f"/proc/self/fd/{arguments[0]}").readlink() if name == "fsync" else arguments[1]
            done.append((name, str(what), path.exists()))
            return real(*arguments)

        monkeypatch.setattr(os, name, call)

    noted("fsync")
    noted("link")
    write_new(path, "secret\n")
    (file, *_), link, folder = done
    assert (file, link, folder) == ("fsync", ("link", str(path), False), ("fsync", str(tmp_path), True))
    assert done[0][1].startswith(str(tmp_path / ".mac-1.key"))
    assert path.read_text() == "secret\n"


def test_nothing_but_the_file_is_left_and_nothing_stays_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    write_new(tmp_path / "mac-1.key", "secret\n")
    assert [each.name for each in tmp_path.iterdir()] == ["mac-1.key"]
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_secret_is_what_was_written_and_another_one_each_time(tmp_path: Path) -> None:
    secrets = [make_secret(tmp_path / name) for name in ("a", "b")]
    assert [read_secret(tmp_path / name) for name in ("a", "b")] == secrets
    assert [len(secret) for secret in secrets] == [32, 32]
    assert secrets[0] != secrets[1]


def test_a_file_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mac-1.key"
    write_new(path, "first\n")
    with pytest.raises(FileExistsError):
        write_new(path, "second\n")
    assert path.read_text() == "first\n"
    assert [each.name for each in tmp_path.iterdir()] == ["mac-1.key"]


def test_what_a_crash_left_of_an_earlier_attempt_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / f".mac-1.key.{os.getpid()}").write_text("half a sec")
    write_new(tmp_path / "mac-1.key", "secret\n")
    assert (tmp_path / "mac-1.key").read_text() == "secret\n"
    assert mode(tmp_path / "mac-1.key") == 0o600


def a_key(folder: Path, version: int, text: str = "ab" * 32) -> None:
    path = folder / f"mac-{version}.key"
    path.touch(mode=0o600)
    path.write_text(text)


def test_keys_of_other_versions_are_left_out_when_some_are_asked_for(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        a_key(tmp_path, version)
    keys = FileKeys(tmp_path, [1, 2])
    assert keys.current.version == 2
    with pytest.raises(KeyFault, match="no MAC key of version 3"):
        keys.by_version(3)
    with pytest.raises(KeyFault, match="has no key"):
        FileKeys(tmp_path, [4])


def test_a_folder_without_keys_has_none_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="has no key: restore"):
        FileKeys(tmp_path / "keys")
    assert read_keys(tmp_path / "keys") == {}
    assert list(tmp_path.iterdir()) == []


def test_keys_are_made_in_a_folder_of_folders_and_only_where_there_are_none(tmp_path: Path) -> None:
    made = make_keys(tmp_path / "a" / "b")
    assert made.current.version == 1
    a_key(tmp_path / "a" / "b", 2)
    (tmp_path / "a" / "b" / "mac-1.key").unlink()
    assert make_keys(tmp_path / "a" / "b").current.version == 2
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["mac-2.key"]


@pytest.mark.parametrize(
    ("text", "is_key"), [("ab" * 32, True), (f" {'ab' * 32}\n", True), ("ab" * 40, True), ("ab" * 31, False)]
)
def test_a_key_has_32_bytes_at_least(tmp_path: Path, text: str, is_key: bool) -> None:
    a_key(tmp_path, 1, text)
    if is_key:
        assert FileKeys(tmp_path).current.tag(b"x") == MacKey(1, bytes.fromhex(text.strip())).tag(b"x")
    else:
        with pytest.raises(KeyFault, match="64 hexadecimal digits"):
            FileKeys(tmp_path)


@pytest.mark.parametrize("bad", [0o601, 0o602, 0o604, 0o610, 0o620, 0o640])
def test_a_secret_that_another_user_may_touch_is_refused(tmp_path: Path, bad: int) -> None:
    a_key(tmp_path, 1)
    write_new(tmp_path / "token", "secret\n")
    for path in tmp_path.iterdir():
        path.chmod(bad)
    with pytest.raises(KeyFault, match="0600"):
        read_keys(tmp_path)
    with pytest.raises(KeyFault, match="0600"):
        read_token(tmp_path / "token")


@pytest.mark.parametrize("allowed", [0o600, 0o400, 0o700])
def test_a_secret_that_only_its_owner_may_touch_is_read(tmp_path: Path, allowed: int) -> None:
    a_key(tmp_path, 1)
    (tmp_path / "mac-1.key").chmod(allowed)
    assert list(read_keys(tmp_path)) == [1]


def test_a_token_is_read_as_it_was_written_and_named_after_its_module(tmp_path: Path) -> None:
    assert read_token(tmp_path / "token") is None
    token = module_token(tmp_path / "token", "dev")
    assert (tmp_path / "token").read_text() == token + "\n"
    assert re.fullmatch(r"dev_[\w-]{43}", token)
    assert read_token(tmp_path / "token") == token
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(KeyFault, match="is empty"):
        module_token(tmp_path / "token", "dev")
