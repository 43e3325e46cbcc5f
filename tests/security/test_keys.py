"""Keys and tokens: made once, readable by nobody else, shown to nobody."""

import contextlib
import hashlib
import os
import re
import stat
from pathlib import Path

import pytest

from fundledger.security.keys import FileKeys, KeyFault, make_keys
from fundledger.security.tokens import Tokens, module_token


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest):
    """Whatever the umask of who starts it."""
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
    """What a crash between making the file and writing it would leave."""
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
        ("", None),
        (None, None),
        ("Bearer \udcff", None),
        ("Bearer sécret", None),
    ],
)
def test_a_header_belongs_to_a_module_or_to_nobody(header: str | None, module: str | None) -> None:
    assert Tokens.of({"secret": "dev"}).module(header) == module


def test_an_empty_token_opens_nothing() -> None:
    assert Tokens.of({}).module("Bearer ") is None


def test_tokens_are_kept_as_hashes(tmp_path: Path) -> None:
    tokens = Tokens.of({"a-secret-token": "dev"})
    assert "a-secret-token" not in repr(vars(tokens))
    assert hashlib.sha256(b"a-secret-token").digest() in next(iter(vars(tokens).values()))
