"""Where a webhook may lead: https, to the public internet only, unless private destinations are allowed. What it
resolves to is checked, and then connected to, at each delivery: a name that was harmless when it was registered may
lead elsewhere now.
"""

import asyncio
import ipaddress
import socket
from typing import Final
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult

from fundledger.outbox.not_called import NETWORKS

URL_MAX: Final = 2048
RESOLVE_S: Final = 5.0
HTTPS: Final = 443
UNPRIVILEGED: Final = 1024
"""From here on a port is no well-known service's, such as 22 or 25."""


class Forbidden(OSError):
    """The address is not one that is called."""


def allows_private(setting: str, profile: str) -> bool:
    """Whether webhooks may lead to this machine and its networks: `setting` is on, off, or auto (the dev profile)."""
    return setting == "on" or (setting == "auto" and profile == "dev")


def bad_url(url: str, *, private: bool) -> str | None:
    """Why this is no URL to register, None if it is one. `private`: may lead to this machine and its networks."""
    if len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        return f"a URL has at most {URL_MAX} printable ASCII characters"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "that is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "a URL begins with http:// or https:// and names a host"
    if not private and parts.scheme != "https":
        return "a URL begins with https://"
    if not private and port is not None and port != HTTPS and port < UNPRIVILEGED:
        return f"a URL has the port {HTTPS}, or one from {UNPRIVILEGED} on"
    if parts.username is not None or parts.password is not None:
        return "a URL carries no credentials"
    if parts.fragment:
        return "a URL has no fragment"
    literal = address_in(parts.hostname)
    if literal is not None and not may_call(literal, private=private):
        return "a URL leads to the public internet"
    return None


def address_in(host: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    """The address that a host part spells, in any of the forms that a connection would take."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # 127.1, 0x7f000001, 2130706433: what inet_aton takes, the resolver of the system takes too.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def may_call(address: "ipaddress.IPv4Address | ipaddress.IPv6Address", *, private: bool) -> bool:
    """Whether a webhook may be sent to an address: one that carries an IPv4 address, only if to that one, too."""
    if private:
        return True
    if any(address in network for network in NETWORKS):
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is not None:
            return may_call(inner, private=private)
        if address in ipaddress.IPv6Network("64:ff9b::/96"):
            return may_call(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF), private=private)
    return address.is_global and not address.is_multicast


class PublicResolver(AbstractResolver):
    """Resolves, and answers only addresses that may be called: the client connects to just those."""

    def __init__(self, *, private: bool) -> None:
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises Forbidden, OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for family_, _, proto, _, address in found:
            if not may_call(ipaddress.ip_address(str(address[0]).partition("%")[0]), private=self._private):
                raise Forbidden(f"{host} leads to an address that is not called")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=family_,
                    proto=proto,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        return results

    async def close(self) -> None:
        """Nothing to close."""
