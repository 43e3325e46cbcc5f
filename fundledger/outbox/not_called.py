"""Networks to which no outbox webhooks are sent, unless private destinations are enabled. Each one has its reason."""

import ipaddress
from typing import Final

NOT_CALLED: Final[dict[str, str]] = {
    # Networks that `is_global` of Python 3.11 classifies as public, or for which it has no entry.
    "64:ff9b:1::/48": "translation to IPv4 inside one network (RFC 8215)",
    "::/96": "IPv4-compatible, which a host may route to the IPv4 address (RFC 4291, deprecated)",
    "::ffff:0:0:0/96": "IPv4-translated, which a translator maps to the IPv4 address (RFC 2765)",
    "100::/64": "discarded (RFC 6666)",
    "2001::/23": "reserved for protocols (RFC 2928)",
    "2001:db8::/32": "documentation (RFC 3849)",
    "3fff::/20": "documentation (RFC 9637)",
    "5f00::/16": "segment identifiers inside one network (RFC 9602)",
    "fec0::/10": "site-local, which old hosts still route inside (RFC 3879)",
    "fc00::/7": "unique local (RFC 4193)",
    "fe80::/10": "link-local (RFC 4291)",
    "ff00::/8": "multicast (RFC 4291)",
    "168.63.129.16/32": "the metadata service of Azure's hosts",
    "100.100.100.200/32": "the metadata service of Alibaba's hosts",
    "169.254.0.0/16": "link-local, and the metadata services of most clouds (RFC 3927)",
    "192.0.0.0/24": "reserved for protocols, and the metadata service of Oracle's hosts (RFC 6890)",
    "192.88.99.0/24": "relays of 6to4 (RFC 7526, deprecated)",
    "192.31.196.0/24": "AS112 sinks (RFC 7535)",
    "192.52.193.0/24": "multicast tunnels (RFC 7450)",
    "192.175.48.0/24": "AS112 sinks (RFC 7534)",
    "224.0.0.0/4": "multicast (RFC 5771)",
    "240.0.0.0/4": "reserved, and the broadcast address (RFC 1112)",
}
NETWORKS: Final = [ipaddress.ip_network(text) for text in NOT_CALLED]
"""Networks that are checked in addition to `is_global`, which rejects the networks for loopback, private use, shared
address space and benchmarks.
"""
