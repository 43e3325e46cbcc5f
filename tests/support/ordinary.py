"""Commands as an ordinary user, also if the tests run as root."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class NotPossible(Exception):
    """An ordinary user cannot run the program here; the message states the reason."""


class User(NamedTuple):
    """A user that runs commands. `uid` is None for the user of the tests."""

    uid: int | None
    gid: int | None
    tools: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment with `fundledger` on the path."""
        kept = {name: os.environ[name] for name in ("LANG", "TZ") if name in os.environ}
        path = f"{self.tools}:/usr/local/bin:/usr/bin:/bin"
        return {**kept, "PATH": path, "HOME": str(self.tools), "PYTHONDONTWRITEBYTECODE": "1", **more}

    def as_user(self) -> dict[str, object]:
        return {} if self.uid is None else {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        if self.uid is not None:
            os.chown(path, self.uid, self.gid)


def this_user(folder: Path) -> User:
    """Return the user of the tests, root or not. Install the command `fundledger` in `folder`."""
    return User(None, None, _tools(folder, Path(sys.executable)))


def ordinary_user(folder: Path) -> User:
    """Return the user of the tests if it is an ordinary one, otherwise `nobody`. Raise NotPossible."""
    if os.geteuid() != 0:
        return this_user(folder)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise NotPossible("there is no user nobody") from None
    for path in (ROOT / "fundledger", Path(sysconfig.get_path("purelib"))):
        if not _others_reach(path):
            raise NotPossible(f"{path} is in a private folder: put the clone where others may read")
    folder.chmod(0o755)
    return User(nobody.pw_uid, nobody.pw_gid, _tools(folder, _interpreter(folder, nobody)))


def _tools(folder: Path, interpreter: Path) -> Path:
    """Create a folder with a `fundledger` command that uses this interpreter and the packages of the tests."""
    script = folder / "fundledger"
    packages = f"{ROOT}:{sysconfig.get_path('purelib')}"
    library = f'LD_LIBRARY_PATH="{_library(interpreter)}" '
    script.write_text(f'#!/bin/sh\n{library}PYTHONPATH="{packages}" exec "{interpreter}" -m fundledger "$@"\n')
    script.chmod(0o755)
    return folder


def _interpreter(folder: Path, user: pwd.struct_passwd) -> Path:
    """Return an interpreter of this version that the user can run: this one, the system's, or a copy of this one."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    real = Path(sys.base_prefix, "bin", name)
    for path in (real, Path("/usr/local/bin") / name, Path("/usr/bin") / name):
        if path.exists() and _others_reach(path) and _runs(path, user):
            return path
    copy = folder / "python"
    shutil.copytree(sys.base_prefix, copy, symlinks=True, ignore=shutil.ignore_patterns("site-packages", "test"))
    for path in copy.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    copy.chmod(0o755)
    found = copy / real.relative_to(sys.base_prefix)
    if not _runs(found, user):
        raise NotPossible(f"{user.pw_name} can run neither {real} nor /usr/bin/{name} nor a copy")
    return found


def _library(interpreter: Path) -> Path:
    """Return the folder of an interpreter's shared library: a copied program still refers to the original path."""
    return interpreter.resolve().parent.parent / "lib"


def _runs(path: Path, user: pwd.struct_passwd) -> bool:
    # The lock file's packages differ between patch releases.
    command = [path, "-c", f"import asyncio, ssl, sys; sys.exit(sys.version_info[:3] != {sys.version_info[:3]})"]
    environment = {"LD_LIBRARY_PATH": str(_library(path)), "PATH": "/usr/bin:/bin"}
    try:
        done = subprocess.run(
            command, user=user.pw_uid, group=user.pw_gid, extra_groups=[], cwd="/", env=environment, check=False
        )
        return done.returncode == 0
    except OSError:
        return False


def _others_reach(path: Path) -> bool:
    """Return whether other users may pass through all folders above."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents)
