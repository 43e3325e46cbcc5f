"""Policies file for the admission of HTTP requests: path, creation, reading, and a copy of the last valid policies."""

import logging
import os
import re
from pathlib import Path
from typing import Final

from fundledger.json_values import ID_PATTERN
from fundledger.ratelimit.quota.policies import BadPolicies, Policies, default_text, parse
from fundledger.settings import PREFIX, BadSetting, Settings

TYPES_IGNORED: Final = "no longer used: the class of a voucher follows from its accounts; the table may be removed"
_MADE_AT_FIRST_START: Final = ("ledger-id", "postgres")
"""Names of files that a data directory contains after the first start of `serve`."""
_is_id = re.compile(ID_PATTERN).match
_log = logging.getLogger(__name__)


def policies_path(settings: Settings) -> Path:
    """Return the path of the policies file: FUNDLEDGER_RATELIMIT_FILE, else `limits.toml` in the data directory."""
    return settings.ratelimit_file or settings.data_dir / "limits.toml"


def read_policies(settings: Settings) -> Policies:
    """Return the policies of the policies file. Create the file in the data directory if missing. Raises BadSetting."""
    path = policies_path(settings)
    try:
        if settings.ratelimit_file is None and not path.exists():
            _make(settings, path)
        text = path.read_text()
        policies = parse(text, shadow=settings.ratelimit == "shadow")
    except BadPolicies as bad:
        raise BadSetting(f"{path}: {bad}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BadSetting(f"{PREFIX}RATELIMIT_FILE={str(path)!r}: {why}; accepted: a policies file") from None
    save_accepted(settings, text)
    return policies


def _make(settings: Settings, path: Path) -> None:
    """Create the policies file from the policies accepted last, else from the default limits. Raises OSError.

    Logs a warning if the data directory was used before.
    """
    used_before = any((settings.data_dir / name).exists() for name in _MADE_AT_FIRST_START)
    text, source = _last_accepted(settings), accepted_path(settings).name
    if text is None:
        text, source = default_text(), "the default limits"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
    if used_before:
        extra = {"event": "limits_file_made", "version": parse(text).version, "source": source}
        _log.warning("%s was missing and has been created from %s: check its limits", path, source, extra=extra)


def _last_accepted(settings: Settings) -> str | None:
    try:
        text = accepted_path(settings).read_text()
        parse(text)
    except (OSError, UnicodeDecodeError, BadPolicies):
        return None
    return text


def accepted_path(settings: Settings) -> Path:
    """Return the path of the copy of the policies that were accepted last."""
    return settings.data_dir / "limits.accepted.toml"


def save_accepted(settings: Settings, text: str) -> None:
    """Save a copy of accepted policies, for workers that start later. A failure is logged and not raised."""
    mine = settings.data_dir / f"limits.accepted.{os.getpid()}"
    try:
        mine.write_text(text)
        mine.replace(accepted_path(settings))
    except OSError as error:
        _log.warning("the accepted limits cannot be saved: %s", error, extra={"event": "limits_not_saved"})
