"""The policies file of this installation: read at the start, watched while serving; and what a caller's limits are."""

import asyncio
import logging
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fundledger.app.body import ID_PATTERN
from fundledger.app.problems import malformed
from fundledger.app.render import encode
from fundledger.app.reply import Reply
from fundledger.app.settings import PREFIX, BadSetting, Settings
from fundledger.ratelimit.bucket import SPACE
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.counted import Limits
from fundledger.ratelimit.limiter import Limiter
from fundledger.ratelimit.policies import BadPolicies, Policies, default_text, parse
from fundledger.ratelimit.store import Store, StoreAway

if TYPE_CHECKING:
    from fundledger.app.routing import Call
    from fundledger.app.served import Served

LOOK_EVERY_S: Final = 0.3
TYPES_IGNORED: Final = "not used any more, the class of a voucher follows from what it moves; the table may be removed"
_OF_A_LEDGER: Final = ("ledger-id", "postgres")
"""What a data directory has from its first start on."""
_is_id = re.compile(ID_PATTERN).match
_log = logging.getLogger(__name__)


def policies_path(settings: Settings) -> Path:
    """The file of the setting, else `limits.toml` of the data directory."""
    return settings.ratelimit_file or settings.data_dir / "limits.toml"


def read_policies(settings: Settings) -> Policies:
    """The policies of the file, which is made where the data directory has none. Raises BadSetting, in one line."""
    path = policies_path(settings)
    try:
        if settings.ratelimit_file is None and not path.exists():
            _make(settings, path)
        text = path.read_text()
        policies = parse(text, shadow=settings.ratelimit == "shadow")
    except BadPolicies as bad:
        raise BadSetting(f"{path}: {bad}") from None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadSetting(f"{PREFIX}RATELIMIT_FILE={str(path)!r}: {why}, accepted is a file of policies") from None
    _remember(settings, text)
    return policies


def _make(settings: Settings, path: Path) -> None:
    """Make the file of the data directory: from the limits that were in force last, where they are known, else from
    those that an installation begins with. It is a warning where the data directory was used before. Raises OSError.
    """
    used_before = any((settings.data_dir / name).exists() for name in _OF_A_LEDGER)
    text, source = _in_force_last(settings), _remembered(settings).name
    if text is None:
        text, source = default_text(), "the limits that an installation begins with"
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)
    if used_before:
        extra = {"event": "limits_file_made", "version": parse(text).version, "source": source}
        _log.warning("%s was missing and is made from %s: check the limits in it", path, source, extra=extra)


def _in_force_last(settings: Settings) -> str | None:
    try:
        text = _remembered(settings).read_text()
        parse(text)
    except (OSError, UnicodeDecodeError, BadPolicies):
        return None
    return text


def build_limiter(
    settings: Settings, redis_url: str, name: str, workers: int | None = None, space: str = SPACE
) -> Limiter | None:
    """None when limits are off. `name` tells this worker from all others of the store; `workers`, of
    which `space` there, are at first taken to live. Raises BadSetting.

    Nothing is connected yet: the store may be away, for now or for good.
    """
    if settings.ratelimit == "off" or not redis_url:
        return None
    counts = Limits()
    deadline_s = settings.ratelimit_deadline_ms / 1000
    store = Store(redis_url, name, counts, workers or settings.workers, deadline_s, space=space)
    try:
        policies = read_policies(settings)
    except BadSetting as bad:
        # A worker that is started again while the file is bad has the limits that the others have kept.
        try:
            policies = parse(_remembered(settings).read_text(), shadow=settings.ratelimit == "shadow")
        except (OSError, BadPolicies):
            raise bad from None
        counts.reload_failures += 1
        _log.error("the limits are those before: %s", bad)
    if policies.types:
        _log.warning("[types] of the limits: %s", TYPES_IGNORED, extra={"event": "limits_types_ignored"})
    return Limiter(policies, store, counts, shadow=settings.ratelimit == "shadow", space=space)


def _remembered(settings: Settings) -> Path:
    return settings.data_dir / "limits.accepted.toml"


def _remember(settings: Settings, text: str) -> None:
    """What was accepted last, for a worker that is started later; it counts also where it cannot be written."""
    mine = settings.data_dir / f"limits.accepted.{os.getpid()}"
    try:
        mine.write_text(text)
        mine.replace(_remembered(settings))
    except OSError as error:
        _log.warning("the limits cannot be remembered: %s", error)


async def watch_policies(settings: Settings, limiter: Limiter) -> None:
    """For ever: what is written into the file counts within a second; a file with a mistake changes nothing, and is
    counted and logged. A file that is gone is a mistake. Cancelling ends it.
    """
    path = policies_path(settings)
    # Not the stamp of now: what changed since it was read counts, too.
    seen = (-1, 0, 0)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        stamp = _stamp(path)
        if stamp == seen:
            continue
        seen = stamp
        try:
            text = path.read_text()
            policies = parse(text, shadow=settings.ratelimit == "shadow")
            _remember(settings, text)
        except Exception as bad:
            # Whatever is wrong with a file, nothing else of the limiter may end for it.
            limiter.counts.reload_failures += 1
            _log.error("the limits stay as they were: %s: %s", path, bad)
            continue
        if policies.version != limiter.policies.version:
            limiter.replace(policies)
            _log.warning("limits were changed", extra={"version": policies.version})


def check_policies(path: Path, workers: int) -> int:
    """Prints what a file says, or the first thing that is wrong with it; 1 then. Raises BadSetting without a file."""
    try:
        policies = parse(path.read_text())
    except OSError as error:
        raise BadSetting(f"{path}: {error.strerror}") from None
    except (BadPolicies, UnicodeDecodeError) as bad:
        print(f"{path}: {bad}")
        return 1
    for policy in policies.all():
        leased = policy.leased(workers)
        mode = f"leased, {leased} for each of {workers} workers" if leased else "strict"
        whom = "" if policy.only is None else f" of {', '.join(sorted(policy.only))}"
        what = "" if policy.classes is None else f", only {', '.join(sorted(policy.classes))}"
        shadow = ", shadow" if policy.shadow else ""
        rate = f"{policy.rate.per_second:g}/s, burst {policy.rate.burst}"
        print(f"{policy.name}: {rate} for each {policy.kind}{whom}{what}; {mode}{shadow}")
    if policies.types:
        print(f"types: {TYPES_IGNORED}")
    print(f"version {policies.version}: would be taken")
    return 0


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino


async def get_limits(service: "Served", call: "Call") -> Reply:
    """`GET /debug/limits`: which policies such a request meets, what is used of each, and who says so.

    Asks the store, and charges nothing but one query of who asks; while that is away it tells what this worker heard
    last. Raises BadRequest (400).
    """
    query = call.query
    try:
        api_class = ApiClass(query.get("class", "payment"))
    except ValueError:
        raise malformed(f"class is one of {', '.join(ApiClass)}", field="class") from None
    for name in ("caller", "merchant", "account"):
        if name in query and not _is_id(query[name]):
            raise malformed(f"{name} has 1 to 128 of [A-Za-z0-9:_.-]", field=name)
    limiter = service.gate.limiter
    if limiter is None:
        return Reply(200, encode({"mode": "off", "version": "", "policies": []}))
    caller = query.get("caller", call.module)
    chain = limiter.chain(caller, api_class, query.get("merchant"), query.get("account"))
    try:
        known: list[Any] = await limiter.peek(chain)
        source = "store"
    except StoreAway:
        known, source = [None] * len(chain.buckets), "fallback"
    policies = []
    for bucket, told in zip(chain.buckets, known, strict=True):
        rate = bucket.policy.rate
        left, reset_us = (bucket.left(time.monotonic()), bucket.reset_us) if told is None else told
        policies.append(
            {
                "policy": bucket.policy.name,
                "key": bucket.policy.kind,
                "of": bucket.name,
                "rate": rate.per_second,
                "limit": rate.burst,
                "used": rate.burst - left,
                "reset_ms": reset_us // 1000,
                "mode": "strict" if bucket.hold == 0 else "leased",
                "shadow": bucket.shadowed,
                "source": source,
                "held_here": bucket.tokens,
            }
        )
    counts = limiter.counted()
    body = {"mode": counts.mode, "version": counts.version, "class": api_class, "caller": caller, "policies": policies}
    return Reply(200, encode(body))


async def get_limits_of_orders(service: "Served", call: "Call") -> Reply:
    """`get_limits` of the fund service, where `merchant` may be the id of a merchant without its `merchant:`."""
    merchant = call.query.get("merchant")
    if merchant and ":" not in merchant:
        call = msgspec.structs.replace(call, query={**call.query, "merchant": f"merchant:{merchant}"})
    return await get_limits(service, call)
