"""Values of the query parameters of an HTTP request."""

from collections.abc import Mapping

from fundledger.app.http.problems import malformed


def number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """Return an integer query parameter, or `default` if the parameter is absent.

    Raises BadRequest (400) if the value is not an integer from `least` to `most`.
    """
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19 or not least <= int(text) <= most:
        raise malformed(f"{name} must be an integer from {least} to {most}", field=name)
    return int(text)
