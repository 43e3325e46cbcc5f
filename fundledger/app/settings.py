"""The settings: environment `FUNDLEDGER_*` over `fundledger.toml` over defaults. The one module that reads them."""

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
"""File of the data directory with the token of the simulator that `serve` starts."""
DATA_DIR_BYTES_MAX = 800
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
CHANNEL = re.compile(r"[A-Za-z0-9_.-]{1,32}")
"""What a channel may be called: its name is part of its accounts' ids."""


def url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class BadSetting(Exception):
    """One line: the setting, the value, and what is accepted."""


class Settings(BaseSettings):
    """Every setting with its default and its bounds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, toml_file=TOML, extra="ignore")

    data_dir: Path = Field(Path("data"), description="where the embedded database, keys and the dev token are kept")
    account_dsn: str = Field("", description="account database; empty: the embedded one")
    redis_url: str = Field("", description="Redis or Valkey in which limits are counted; empty: the embedded Valkey")
    host: str = Field("127.0.0.1", description="address to listen on; the dev profile allows loopback only")
    port: int = Field(8080, ge=1, le=65535, description="port of the account service")
    workers: int = Field(2, ge=1, le=256, description="worker processes on the port")
    profile: Literal["dev", "prod"] = Field("dev", description="dev: bearer token made on first start")
    shards: int | None = Field(None, ge=1, le=1024, description="fixed when the ledger is initialised (then: 1)")
    platform_slots: int | None = Field(
        None, ge=1, le=64, description="sub-accounts of a platform account in each shard, fixed likewise (then: 8)"
    )
    posting: Literal["lanes", "direct"] = Field(
        "lanes", description="direct: one transaction a request, the naive baseline"
    )
    batch_size_max: int = Field(2000, ge=1, le=10000, description="vouchers in one transaction")
    buffer_depth_max: int = Field(20000, ge=1, le=1_000_000, description="vouchers waiting in one lane; beyond: 503")
    splitting: Literal["auto", "off"] = Field(
        "auto", description="auto: hot accounts are split and merged by themselves"
    )
    early_release: Literal["on", "off"] = Field(
        "off", description="on: locks that others wait for are free before the disk has the commit; answers are not"
    )
    journal: Literal["summary", "entries"] = Field(
        "summary", description="summary: one entry of a batch on a platform account's slot, however many vouchers"
    )
    buffered_max: int = Field(
        50_000, ge=1, le=1_000_000, description="credits waiting to be folded; beyond: posted directly"
    )
    buffered_lag_max_s: float = Field(
        5.0, ge=0.5, le=3600, description="how long one may wait; beyond: the others are posted directly"
    )
    heat_promote: float = Field(0.5, gt=0, le=100, description="utilisation from which an account becomes hot")
    heat_promote_s: float = Field(3.0, ge=0, le=3600, description="and for how long before it is split")
    heat_demote: float = Field(0.2, ge=0, le=100, description="utilisation below which a hot account cools")
    heat_demote_s: float = Field(600.0, ge=0, le=86400, description="and for how long before it is merged")
    heat_share: float = Field(0.05, ge=0, le=1, description="share of all postings that a hot account has at least")
    ratelimit: Literal["on", "off", "shadow"] = Field(
        "on", description="shadow: what would be refused is counted, nothing is refused"
    )
    ratelimit_file: Path | None = Field(
        None, description="who may do how much; none: limits.toml of the data directory, made on first start"
    )
    ratelimit_deadline_ms: int = Field(
        5, ge=1, le=1000, description="how long a request waits for Redis; beyond: decided from this worker's share"
    )
    shedding: Literal["on", "off"] = Field("on", description="on: too much work is answered 503 early, lowest first")
    latency_target_ms: int = Field(
        1000, ge=10, le=10_000, description="mean latency of a class above which less is let in"
    )
    concurrency_max: int = Field(4000, ge=10, le=100_000, description="requests in flight in one worker")
    connections_max: int = Field(
        10_000, ge=16, le=1_000_000, description="client connections of one worker, fewer where descriptors are few"
    )
    connections_per_peer_max: int = Field(
        5_000, ge=1, le=1_000_000, description="of them, those of one address, which may be a proxy's"
    )
    unauthenticated_per_s: int = Field(
        200, ge=1, le=1_000_000, description="requests without a valid token of one address to one worker in a second"
    )
    bodies_mb_max: int = Field(
        64, ge=1, le=65_536, description="memory of request bodies under way in one worker; beyond: 503"
    )
    accounting_timezone: str = Field("UTC", description="time zone of the accounting date")
    accounting_cut: time = Field(time(0, 0), description="local time at which an accounting date ends")
    read_connections: int = Field(4, ge=1, le=100, description="database connections for reads, per worker")
    drain_s: float = Field(30.0, ge=1, le=600, description="how long a stop waits for what was accepted")
    unresponsive_s: float = Field(
        10.0, ge=2, le=600, description="how long a process may leave its supervisor unanswered before it is replaced"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe record to log")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: lines for people on a terminal, JSON elsewhere"
    )
    log_sample: int = Field(1000, ge=1, description="one in so many successful requests is logged")
    postgres_memory_mb: int = Field(0, ge=0, description="shared memory of the embedded database; 0: by the machine")
    fund: Literal["on", "off"] = Field("on", description="on: `serve` starts the fund service too")
    fund_dsn: str = Field("", description="fund database; empty: the embedded one, beside the account database")
    fund_port: int = Field(8081, ge=1, le=65535, description="port of the fund service")
    fund_workers: int = Field(1, ge=1, le=256, description="worker processes on that port")
    account_url: str = Field("", description="where the fund service finds the account service; empty: this one")
    channels: str = Field(
        "", description="NAME=URL,NAME=URL: where payouts go and statements come from; empty: the simulator"
    )
    simulator_port: int = Field(8082, ge=1, le=65535, description="port of the simulator, a channel to try with")
    webhooks_private: Literal["auto", "on", "off"] = Field(
        "auto", description="on: webhooks may lead to this machine and its networks; auto: in the dev profile only"
    )
    fund_batch_max: int = Field(500, ge=1, le=5000, description="orders in one transaction, and in one call")
    fund_wait_ms: int = Field(
        800, ge=0, le=60_000, description="how long a caller waits for an uncertain posting; beyond: 202"
    )
    recover_after_s: float = Field(
        5.0, ge=0.5, le=3600, description="age from which an order without an outcome is looked after"
    )
    settle_at: time = Field(
        time(2, 0), description="time of day (UTC) from which merchants are settled by themselves, on their days"
    )
    stream: Literal["on", "off"] = Field("off", description="on: events are published to a stream of Redis, too")
    daemons: int = Field(1, ge=0, le=16, description="processes for the daemons of the fund service")

    @field_validator("data_dir")
    @classmethod
    def _path_that_can_be_passed_on(cls, path: Path) -> Path:
        # Postgres is passed it on a command line, and has fixed space for it.
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
        """By name; the simulator when none is configured."""
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
    """The effective settings; `overrides` (of the command line) that are None do not count. Raises BadSetting."""
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
    """`(name, shown value, where it came from)` of each setting; secrets are masked."""
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
            raise BadSetting(f"{PREFIX}{name}={port}: accepted: another port than {PREFIX}{taken[port]}")
        taken[port] = name


def _is_place(url: str, *, port_needed: bool) -> bool:
    """Whether it is http(s)://HOST:PORT and nothing more: what is asked there is ours to say, and who asks, too."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    bare = parts.path in ("", "/") and not (parts.query or parts.fragment) and "@" not in parts.netloc
    port_is_right = port != 0 and not (port_needed and port is None)
    # urlsplit takes blanks and line ends out in silence.
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and bare
        and port_is_right
        and url.isprintable()
        and " " not in url
    )


def _masked(name: str, value: Any) -> Any:
    """What may be shown: a URL is a secret when it carries a password."""
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
