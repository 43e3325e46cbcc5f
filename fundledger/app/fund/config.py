"""Configuration of a fund service process, which the supervisor writes to the process's standard input."""

import msgspec


class FundProcessConfig(msgspec.Struct, frozen=True):
    """Configuration of a fund worker or a background job process: one line of JSON on its standard input.

    The input stays open as long as the supervisor lives.

    `settings`: all settings as JSON. `fund_dsn`, `redis_url`, `account_url` and `channels` are the effective values:
    if a setting is empty, the supervisor has chosen its value. `token`: the API token that the fund service sends to
    the account service. `channel_tokens`: bearer tokens by channel name, for each channel that has a token.
    `api_token`: the API token that callers send to the fund service, empty for a process without callers.
    """

    ordinal: int
    fund_dsn: str
    run_dir: str
    settings: str
    redis_url: str
    account_url: str
    token: str
    channels: dict[str, str]
    api_token: str = ""
    channel_tokens: dict[str, str] = {}
