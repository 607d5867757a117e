"""Which addresses may be called: the public internet, and what `[egress] allow` names. Pure.

An operator's URL is configuration that other people write; without this guard it could point into our own network.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# `is_global` knows the registries of special addresses, but passes forms that carry an IPv4 address inside
# (NAT64, 6to4, Teredo) and multicast; whoever routes those may end in the private network after all.
_NEVER_PUBLIC: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)


def parse_address(text: str) -> Address | None:
    """An IP address in its canonical form (an IPv4 address mapped into IPv6 is that IPv4 address); None for a name."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def may_call(address: Address, allow: Sequence[Network]) -> bool:
    """True for the public internet and for what `allow` names."""
    if any(address in network for network in allow if network.version == address.version):
        return True
    return address.is_global and not any(
        address in network for network in _NEVER_PUBLIC if network.version == address.version
    )


def loopback_of(host: str) -> Sequence[Address]:
    """What a name of this machine's own (RFC 6761, section 6.3) stands for; nothing where it is another's."""
    own = host.lower() == "localhost" or host.lower().endswith(".localhost")
    return (IPv4Address("127.0.0.1"), IPv6Address("::1")) if own else ()
