"""The bearer tokens with which the fund service calls its channels: files of the data directory."""

from pathlib import Path

from fundledger.app.settings import SIMULATOR, SIMULATOR_TOKEN, Settings
from fundledger.security.tokens import module_token, read_token


def simulator_token_file(settings: Settings) -> Path:
    """Where the token of the simulator is that `serve` starts."""
    return settings.data_dir / SIMULATOR_TOKEN


def make_simulator_token(settings: Settings) -> None:
    """Make the token of the simulator where there is none and a simulator is used. Raises KeyFault, as `read_token`."""
    if settings.fund == "on" and not settings.channels:
        module_token(simulator_token_file(settings), SIMULATOR)


def channel_tokens(settings: Settings) -> dict[str, str]:
    """Return the tokens by name of the channel: of the simulator, or of each configured channel that has a file
    `channel-NAME-token`. Raises KeyFault, as `read_token`.
    """
    if not settings.channels:
        token = read_token(simulator_token_file(settings))
        return {} if token is None else {SIMULATOR: token}
    found = {name: read_token(settings.data_dir / f"channel-{name}-token") for name in settings.channel_urls()}
    return {name: token for name, token in found.items() if token is not None}
