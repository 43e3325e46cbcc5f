"""Configuration of an account-service worker, written to the worker's standard input by the supervisor."""

import msgspec


class AccountWorkerConfig(msgspec.Struct, frozen=True):
    """Configuration of one worker, sent as one line of JSON.

    `settings`: all settings as JSON. `modules`: by API token, the name of the module to which the token belongs.
    """

    ordinal: int
    dsn: str
    run_dir: str
    settings: str
    redis_url: str
    modules: dict[str, str] = {}
