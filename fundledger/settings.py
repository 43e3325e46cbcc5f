"""Settings of fundledger: from the environment (`FUNDLEDGER_*`), else from `fundledger.toml`, else the defaults.

No other module reads the environment or the file for settings.
"""

import difflib
import os
import re
import tomllib
from datetime import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

PREFIX = "FUNDLEDGER_"
TOML = Path("fundledger.toml")
SECRET = ("account_dsn", "fund_dsn")
SIMULATOR = "simulator"
SIMULATOR_TOKEN = "simulator-token"  # noqa: S105 - the name of a file
"""Name of a file in the data directory. The file contains the token of the simulator that `serve` starts."""
DATA_DIR_BYTES_MAX = 800
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
CHANNEL = re.compile(r"[A-Za-z0-9_.-]{1,32}")
"""Form of a channel's name. The name is part of the ids of the channel's accounts."""


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class BadSetting(Exception):
    """An invalid setting. The message is one line: the setting, its value, and the accepted values."""


class Settings(BaseSettings):
    """All settings with their defaults and bounds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, toml_file=TOML, extra="ignore")

    data_dir: Path = Field(Path("data"), description="directory of the embedded database, the keys and the dev token")
    account_dsn: str = Field("", description="account database; empty: the embedded one")
    redis_url: str = Field("", description="Redis or Valkey for rate limits; empty: the embedded Valkey")
    host: str = Field("127.0.0.1", description="address to listen on; the dev profile allows loopback only")
    port: int = Field(8080, ge=1, le=65535, description="port of the account service")
    workers: int = Field(2, ge=1, le=256, description="worker processes of the account service")
    profile: Literal["dev", "prod"] = Field("dev", description="dev: a bearer token is created on first start")
    shards: int | None = Field(
        None, ge=1, le=1024, description="number of shards, fixed when the ledger is initialised (none: 1)"
    )
    platform_slots: int | None = Field(
        None,
        ge=1,
        le=64,
        description="sub-accounts of a platform account in each shard, fixed when the ledger is initialised (none: 8)",
    )
    posting: Literal["lanes", "direct"] = Field(
        "lanes", description="direct: one transaction per request, the naive baseline"
    )
    batch_size_max: int = Field(2000, ge=1, le=10000, description="maximum number of vouchers in one transaction")
    buffer_depth_max: int = Field(
        20000, ge=1, le=1_000_000, description="maximum number of vouchers that wait in one lane; beyond: 503"
    )
    splitting: Literal["auto", "off"] = Field(
        "auto", description="auto: hot accounts are split and merged automatically"
    )
    early_release: Literal["on", "off"] = Field(
        "off", description="on: row locks are released before the commit is on disk; answers still wait for the disk"
    )
    journal: Literal["summary", "entries"] = Field(
        "summary", description="summary: one entry per batch and slot of a platform account, for any number of vouchers"
    )
    buffered_max: int = Field(
        50_000,
        ge=1,
        le=1_000_000,
        description="maximum number of buffered credits; beyond: credits are posted directly",
    )
    buffered_lag_max_s: float = Field(
        5.0,
        ge=0.5,
        le=3600,
        description="maximum age of a buffered credit, in seconds; beyond: new credits are posted directly",
    )
    heat_promote: float = Field(0.5, gt=0, le=100, description="utilisation from which an account becomes hot")
    heat_promote_s: float = Field(
        3.0, ge=0, le=3600, description="seconds at that utilisation before the account is split"
    )
    heat_demote: float = Field(0.2, ge=0, le=100, description="utilisation below which a hot account cools")
    heat_demote_s: float = Field(
        600.0, ge=0, le=86400, description="seconds below that utilisation before the account is merged"
    )
    heat_share: float = Field(0.05, ge=0, le=1, description="minimum share of all postings of a hot account")
    ratelimit: Literal["on", "off", "shadow"] = Field(
        "on", description="shadow: requests over a limit are counted and not rejected"
    )
    ratelimit_file: Path | None = Field(
        None, description="policies file; none: limits.toml of the data directory, created on first start"
    )
    ratelimit_deadline_ms: int = Field(
        5,
        ge=1,
        le=1000,
        description="maximum wait of a request for Redis; beyond: the worker decides by its local quota",
    )
    shedding: Literal["on", "off"] = Field(
        "on", description="on: under overload, requests are answered 503 early, the lowest-priority class first"
    )
    latency_target_ms: int = Field(
        1000, ge=10, le=10_000, description="mean latency of a class above which fewer requests are admitted"
    )
    concurrency_max: int = Field(
        4000, ge=10, le=100_000, description="maximum number of requests in flight in one worker"
    )
    connections_max: int = Field(
        10_000,
        ge=16,
        le=1_000_000,
        description="maximum number of client connections of one worker; fewer if file descriptors are few",
    )
    connections_per_peer_max: int = Field(
        5_000,
        ge=1,
        le=1_000_000,
        description="maximum number of these connections of one address, which may be a proxy's",
    )
    unauthenticated_per_s: int = Field(
        200, ge=1, le=1_000_000, description="requests per second without a valid token, of one address to one worker"
    )
    bodies_mb_max: int = Field(
        64, ge=1, le=65_536, description="memory of request bodies in progress in one worker, in MB; beyond: 503"
    )
    accounting_timezone: str = Field("UTC", description="time zone of the accounting date, for both services")
    accounting_cut: time = Field(
        time(0, 0), description="local time at which an accounting date ends, in whole minutes, for both services"
    )
    read_connections: int = Field(4, ge=1, le=100, description="database connections for reads, per worker")
    drain_s: float = Field(
        30.0, ge=1, le=600, description="maximum wait of a stopping process for accepted requests, in seconds"
    )
    unresponsive_s: float = Field(
        10.0, ge=2, le=600, description="seconds without an answer to its supervisor after which a process is replaced"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level that is logged"
    )
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, JSON elsewhere")
    log_sample: int = Field(1000, ge=1, description="one in this many successful requests is logged")
    postgres_memory_mb: int = Field(
        0, ge=0, description="shared memory of the embedded database; 0: chosen from the machine's memory"
    )
    fund: Literal["on", "off"] = Field("on", description="on: `serve` also starts the fund service")
    fund_dsn: str = Field("", description="fund database; empty: the embedded one, beside the account database")
    fund_port: int = Field(8081, ge=1, le=65535, description="port of the fund service")
    fund_workers: int = Field(1, ge=1, le=256, description="worker processes of the fund service")
    account_url: str = Field(
        "", description="URL of the account service for the fund service; empty: the one that `serve` starts"
    )
    channels: str = Field("", description="NAME=URL,NAME=URL: channels of payouts and statements; empty: the simulator")
    simulator_port: int = Field(8082, ge=1, le=65535, description="port of the simulator, a channel for development")
    webhooks_private: Literal["auto", "on", "off"] = Field(
        "auto", description="on: webhooks may point to this machine and its networks; auto: in the dev profile only"
    )
    fund_batch_max: int = Field(
        500,
        ge=1,
        le=5000,
        description="maximum number of orders in one transaction, and in one call of the account service",
    )
    fund_wait_ms: int = Field(
        800, ge=0, le=60_000, description="maximum wait of a request for an uncertain posting; beyond: 202"
    )
    recover_after_s: float = Field(
        5.0, ge=0.5, le=3600, description="age from which an order without an outcome is recovered"
    )
    settle_at: time = Field(
        time(2, 0),
        description="local time of the accounting time zone from which merchants are settled on their settlement days",
    )
    weekend: str = Field(
        "sat,sun", description="days of the week that are no working days, for settlements after working days"
    )
    payee_cooling_h: float = Field(
        24.0, ge=0, le=720, description="hours from the approval of a payee until withdrawals to it are accepted"
    )
    stream: Literal["on", "off"] = Field("off", description="on: events are also published to a Redis stream")
    daemons: int = Field(1, ge=0, le=16, description="processes for the background jobs of the fund service")

    @field_validator("data_dir")
    @classmethod
    def _path_that_can_be_passed_on(cls, path: Path) -> Path:
        # The path is passed to Postgres on its command line, for which Postgres has a buffer of fixed size.
        if not str(path).isprintable() or len(os.fsencode(path)) > DATA_DIR_BYTES_MAX:
            raise ValueError(f"a path of printable characters, at most {DATA_DIR_BYTES_MAX} bytes of UTF-8")
        return path

    @field_validator("accounting_timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("a time zone name such as UTC or Asia/Shanghai") from None
        return name

    @field_validator("accounting_cut")
    @classmethod
    def _whole_minutes(cls, cut: time) -> time:
        if cut.second or cut.microsecond or cut.tzinfo is not None:
            raise ValueError("a local time of day in whole minutes such as 23:00")
        return cut

    @field_validator("settle_at")
    @classmethod
    def _local(cls, at: time) -> time:
        if at.tzinfo is not None:
            raise ValueError("a local time of day such as 02:00")
        return at

    @field_validator("weekend")
    @classmethod
    def _days_of_the_week(cls, text: str) -> str:
        names = [name.strip() for name in text.lower().split(",") if name.strip()]
        if len(set(names)) < len(names) or not set(names) <= set(WEEKDAYS) or len(names) == len(WEEKDAYS):
            raise ValueError(f"at most six of {', '.join(WEEKDAYS)}, separated by commas, or nothing")
        return ",".join(names)

    def weekend_days(self) -> frozenset[int]:
        """Return the days of the weekend: 0 for Monday, 6 for Sunday."""
        return weekend_of(self.weekend)

    @field_validator("redis_url")
    @classmethod
    def _redis_at_a_place(cls, url: str) -> str:
        accepted = ValueError("redis://HOST:PORT/DATABASE, rediss://... or unix:///PATH")
        try:
            parts = urlsplit(url)
            place = parts.path if parts.scheme == "unix" and not parts.hostname else parts.hostname
            known = url.startswith(REDIS_SCHEMES) and parts.port != 0
        except ValueError:
            raise accepted from None
        if url and not (known and place):
            raise accepted
        return url

    @field_validator("account_url")
    @classmethod
    def _url_of_a_service(cls, url: str) -> str:
        if not url:
            return url
        if not _is_place(url, port_needed=False):
            raise ValueError("http://HOST:PORT or https://HOST:PORT")
        return url.rstrip("/")

    @field_validator("channels")
    @classmethod
    def _channels_at_places(cls, text: str) -> str:
        accepted = ValueError("NAME=http://HOST:PORT or NAME=https://HOST:PORT, separated by commas, each name once")
        names = []
        for item in text.split(",") if text.strip() else []:
            name, _, url = item.strip().partition("=")
            if not (CHANNEL.fullmatch(name) and _is_place(url, port_needed=True)):
                raise accepted
            names.append(name)
        if len(set(names)) < len(names):
            raise accepted
        return text.strip()

    def channel_urls(self) -> dict[str, str]:
        """Return the URL of each channel by its name. If no channel is configured, return the URL of the simulator."""
        pairs = [item.strip().partition("=") for item in self.channels.split(",") if item.strip()]
        found = {name: url.rstrip("/") for name, _, url in pairs}
        if found:
            return found
        return {SIMULATOR: url_of(self.host, self.simulator_port)}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - by keyword, from pydantic-settings
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


def read_settings(**overrides: Any) -> Settings:
    """Return the effective settings. Raises BadSetting.

    `overrides` are the settings from the command line. Overrides that are None are ignored.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    _refuse_unknown()
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise BadSetting(f"{PREFIX}{name.upper()}={_masked(name, first['input'])!r}: {_accepted(first)}") from None
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"{TOML}: {error}") from None
    if settings.heat_demote >= settings.heat_promote:
        accepted = f"accepted: less than {PREFIX}HEAT_PROMOTE ({settings.heat_promote})"
        raise BadSetting(f"{PREFIX}HEAT_DEMOTE={settings.heat_demote}: {accepted}")
    if settings.profile == "dev" and settings.host not in ("127.0.0.1", "::1", "localhost"):
        raise BadSetting(f"{PREFIX}HOST={settings.host!r}: the dev profile listens on loopback only (127.0.0.1)")
    _refuse_shared_ports(settings)
    return settings


def sources(settings: Settings) -> list[tuple[str, str, str]]:
    """Return `(name, displayed value, source)` of each setting. Secrets are masked."""
    in_toml = _toml()
    rows = []
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        value = getattr(settings, name)
        shown = "(default)" if value is None else str(_masked(name, value))
        where = f"environment {variable}" if variable in os.environ else f"{TOML}" if name in in_toml else "default"
        rows.append((name, shown, where))
    return rows


def _refuse_shared_ports(settings: Settings) -> None:
    if settings.fund == "off":
        return
    taken = {settings.port: "PORT"}
    mine = [("FUND_PORT", settings.fund_port)]
    if not settings.channels:
        mine.append(("SIMULATOR_PORT", settings.simulator_port))
    for name, port in mine:
        if port in taken:
            raise BadSetting(f"{PREFIX}{name}={port}: accepted: a port other than {PREFIX}{taken[port]}")
        taken[port] = name


def weekend_of(names: str) -> frozenset[int]:
    """Return the days of the week that the setting `weekend` names: 0 for Monday, 6 for Sunday."""
    return frozenset(WEEKDAYS.index(name) for name in names.split(",") if name)


def _is_place(url: str, *, port_needed: bool) -> bool:
    """Return whether the text is http(s)://HOST:PORT without a path or credentials, which the service adds."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    bare = parts.path in ("", "/") and not (parts.query or parts.fragment) and "@" not in parts.netloc
    port_is_right = port != 0 and not (port_needed and port is None)
    # urlsplit removes blanks and line ends without an error.
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and bare
        and port_is_right
        and url.isprintable()
        and " " not in url
    )


def _masked(name: str, value: Any) -> Any:
    """Return the value to display. A URL is a secret if it contains a password."""
    may_carry_one = name in ("redis_url", "account_url", "channels")
    is_secret = name in SECRET or (may_carry_one and ("@" in str(value) or "password" in str(value)))
    return "****" if is_secret and value else value


def _accepted(error: Any) -> str:
    if error["type"].startswith("time_"):
        return "accepted: a time of day such as 23:00"
    if error["type"] == "value_error":
        return f"accepted: {error['ctx']['error']}"
    return f"accepted: {error['msg'].removeprefix('Input should be ')}"


def _toml() -> dict[str, Any]:
    try:
        return tomllib.loads(TOML.read_text()) if TOML.exists() else {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"{TOML}: {error}") from None


def _refuse_unknown() -> None:
    known = {name.upper() for name in Settings.model_fields}
    given = [(name.removeprefix(PREFIX), "environment") for name in os.environ if name.startswith(PREFIX)]
    given += [(name.upper(), str(TOML)) for name in _toml()]
    for name, where in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {PREFIX}{near[0]}?" if near else "see `fundledger settings`"
            raise BadSetting(f"{PREFIX}{name} ({where}): there is no such setting; {hint}")
