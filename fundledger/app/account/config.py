"""Configuration of an account-service worker, written to the worker's standard input by the supervisor."""

import msgspec


class AccountWorkerConfig(msgspec.Struct, frozen=True):
    """One line of JSON. `settings` are all settings as JSON; `modules` maps each token to its module."""

    ordinal: int
    dsn: str
    run_dir: str
    settings: str
    redis_url: str
    modules: dict[str, str] = {}
