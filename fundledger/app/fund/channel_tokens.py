"""Bearer tokens that the fund service sends to its channels, kept as files in the data directory."""

from pathlib import Path

from fundledger.security.tokens import module_token, read_token
from fundledger.settings import SIMULATOR, SIMULATOR_TOKEN, Settings


def simulator_token_file(settings: Settings) -> Path:
    """Return the path of the token of the simulator that `serve` starts."""
    return settings.data_dir / SIMULATOR_TOKEN


def make_simulator_token(settings: Settings) -> None:
    """Create the simulator's token if a simulator is used and the token is missing. Raises KeyFault (`read_token`)."""
    if settings.fund == "on" and not settings.channels:
        module_token(simulator_token_file(settings), SIMULATOR)


def channel_tokens(settings: Settings) -> dict[str, str]:
    """Return the tokens by channel name. Raises KeyFault, as `read_token` does.

    If channels are configured, the result has the token of each channel with a file `channel-NAME-token`. Otherwise the
    result has the token of the simulator.
    """
    if not settings.channels:
        token = read_token(simulator_token_file(settings))
        return {} if token is None else {SIMULATOR: token}
    found = {name: read_token(settings.data_dir / f"channel-{name}-token") for name in settings.channel_urls()}
    return {name: token for name, token in found.items() if token is not None}
