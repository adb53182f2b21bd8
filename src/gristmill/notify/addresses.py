"""Which addresses a webhook may go to: pure decisions.

A server that posts to URLs which its users name must not become their hand inside its own network (server-side request
forgery). So only addresses of the public internet are targets, and besides them what the operator allows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from gristmill.user_error import UserError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The global unicast addresses that have been given out (RFC 4291, 2.4); all others are reserved or local.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: Addresses that stand for an IPv4 address in their last four bytes (RFC 6052) or behind their first two (RFC 3056).
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")
#: Of the public ranges, but answered by the machine's own cloud (Azure's WireServer).
_CLOUD_OWN = frozenset({IPv4Address("168.63.129.16")})

#: What IANA lists as special and Python, depending on its version, does not.
_SPECIAL: tuple[Network, ...] = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")))

#: Allows everything, as a value of the option.
ANY = "*"
_ENTRY = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")
_NAME = re.compile(
    r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)


def plain(address: Address) -> Address:
    """The address that is reached by an address: of one that stands for an IPv4 address, that."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _6TO4 and address.sixtofour is not None:
            return address.sixtofour
    return address


def is_public(address: Address) -> bool:
    """Whether an address belongs to somebody on the public internet, by IANA's registries of special addresses."""
    reached = plain(address)
    if any(reached in network for network in _SPECIAL):
        return False
    if isinstance(reached, IPv6Address):
        return reached in _GLOBAL_UNICAST and reached.is_global
    special = reached.is_multicast or reached.is_reserved or reached in _CLOUD_OWN
    return reached.is_global and not special


def is_name(host: str) -> bool:
    """Of a host in lower case. What ends in a number is read as an address by some, in octal or as a single number, and
    is no name (WHATWG URL, "ends in a number")."""
    last = host.rpartition(".")[2]
    return _NAME.fullmatch(host) is not None and re.fullmatch(r"\d+|0x[0-9a-f]*", last) is None


class AllowedHosts(NamedTuple):
    """What webhooks may go to besides the public internet: names, and networks, each with a port or None for all."""

    names: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[tuple[Network, int | None], ...] = ()
    everything: bool = False

    @classmethod
    def of(cls, entries: Iterable[str]) -> AllowedHosts:
        """Of NAME, ADDRESS or NETWORK/BITS, the first two also with :PORT; "*" allows everything. Raises UserError."""
        names: set[tuple[str, int | None]] = set()
        networks: list[tuple[Network, int | None]] = []
        everything = False
        for entry in entries:
            given = entry.strip().lower()
            if given == ANY:
                everything = True
                continue
            host, port = _split(given, entry)
            try:
                networks.append((ip_network(host), port))
            except ValueError:
                name = host.rstrip(".")
                if not is_name(name):
                    raise _no_host(entry) from None
                names.add((name, port))
        return cls(frozenset(names), tuple(networks), everything)

    def name(self, host: str, port: int) -> bool:
        """Whether a host may be asked whatever its addresses are."""
        found = host.rstrip(".")
        return self.everything or (found, port) in self.names or (found, None) in self.names

    def address(self, address: Address, port: int) -> bool:
        reached = plain(address)
        return self.everything or any(
            each in network
            for network, of_port in self.networks
            if of_port in (None, port)
            for each in (address, reached)
        )

    def reaches(self, address: Address, port: int) -> bool:
        """Whether a webhook may go there: in public, or because it is allowed."""
        return is_public(address) or self.address(address, port)


NO_OTHER_HOSTS = AllowedHosts()


def as_address(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _split(given: str, entry: str) -> tuple[str, int | None]:
    if given.count(":") > 1 and not given.startswith("["):
        # An IPv6 address or network, which has no port.
        return given, None
    found = _ENTRY.fullmatch(given)
    if found is None:
        raise _no_host(entry)
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 65536:
        raise _no_host(entry)
    return found["v6"] or found["host"], port


def _no_host(entry: str) -> UserError:
    return UserError(
        f"'{entry}' is no host that webhooks could go to: --allow-webhook-host takes a name, an address (both also "
        "with :PORT) or a network, such as receiver.example, 127.0.0.1:9000 or 10.0.0.0/8."
    )
