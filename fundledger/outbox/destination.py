"""Allowed destinations of outbox webhooks: https URLs on the public internet, unless private destinations are enabled.

A host name may resolve to another address than at the registration of its webhook. So for each delivery the host is
resolved, the addresses are checked, and the client connects only to a checked address.
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
"""The first port above the ports of well-known services, for example 22 (SSH) and 25 (SMTP)."""


class Forbidden(OSError):
    """The address of a webhook is not an allowed destination."""


def allows_private(setting: str, profile: str) -> bool:
    """Return whether webhooks may use this machine and its networks. `setting`: on, off, or auto (on in the dev
    profile).
    """
    return setting == "on" or (setting == "auto" and profile == "dev")


def bad_url(url: str, *, private: bool) -> str | None:
    """Return why a URL cannot be registered as a webhook, or None if it can. `private`: the host may be on this machine
    and its networks.
    """
    if len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        return f"the URL must have at most {URL_MAX} characters, all printable ASCII"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the URL is malformed"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "the URL must begin with http:// or https:// and have a host"
    if not private and parts.scheme != "https":
        return "the URL must begin with https://"
    if not private and port is not None and port != HTTPS and port < UNPRIVILEGED:
        return f"the port of the URL must be {HTTPS}, or {UNPRIVILEGED} or higher"
    if parts.username is not None or parts.password is not None:
        return "the URL must not have credentials"
    if parts.fragment:
        return "the URL must not have a fragment"
    literal = address_in(parts.hostname)
    if literal is not None and not may_call(literal, private=private):
        return "the URL must not have a private or reserved address"
    return None


def address_in(host: str) -> "ipaddress.IPv4Address | ipaddress.IPv6Address | None":
    """Return the IP address in the host part of a URL, or None if the host is a name. All notations of an address that
    a connection accepts are recognized.
    """
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        # The system's resolver accepts each notation that inet_aton accepts: 127.1, 0x7f000001, 2130706433.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def may_call(address: "ipaddress.IPv4Address | ipaddress.IPv6Address", *, private: bool) -> bool:
    """Return whether a webhook may be sent to an address. An IPv4 address in an IPv6 address has to be allowed, too."""
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
    """A resolver that returns only allowed addresses. The HTTP client connects only to addresses that it returns."""

    def __init__(self, *, private: bool) -> None:
        self._private = private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises Forbidden if one of the addresses is not allowed. Raises OSError."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(RESOLVE_S):
            found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        results: list[ResolveResult] = []
        for family_, _, proto, _, address in found:
            if not may_call(ipaddress.ip_address(str(address[0]).partition("%")[0]), private=self._private):
                raise Forbidden(f"{host} resolves to an address that is not allowed")
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
        """Do nothing: there is nothing to close."""
