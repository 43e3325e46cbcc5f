"""What the supervisor tells a process of the fund service."""

import msgspec


class FundOrder(msgspec.Struct, frozen=True):
    """One line of JSON on the standard input of a fund worker, and of a process of daemons. The input stays open for as
    long as the supervisor lives.

    `settings` are all settings as JSON; where `fund_dsn`, `redis_url`, `account_url` or `channels` are set to nothing
    there, they are what was chosen instead here. `token` is that of the module `fund` at the account service.
    `channel_tokens` are the bearer tokens of channels by name, of those that have one. `api_token` is what callers of
    the fund service send, empty for a process that has no callers.
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
