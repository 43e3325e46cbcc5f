"""Values of the query parameters of an HTTP request."""

from fundledger.app.http.problems import malformed


def number(text: str | None, name: str, default: int, least: int, most: int) -> int:
    """Parse an integer query parameter; None gives `default`. Raises BadRequest (400)."""
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not least <= int(text) <= most:
        raise malformed(f"{name} must be an integer from {least} to {most}", field=name)
    return int(text)
