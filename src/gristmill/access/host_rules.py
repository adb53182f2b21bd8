"""The Host and Origin rules, which keep other web pages out of a server, whether it asks for a key or not. Pure.

A browser lets any page send requests to an address of this machine or its network, and says in ``Origin`` which page it
was. A page can also point its own host name at this machine (DNS rebinding): such a request carries the page's name in
``Host``. An IP address in ``Host`` cannot be pointed anywhere, so it is always accepted.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from starlette.datastructures import Headers

from gristmill.wire.errors import ApiError, clip

#: Accepts whatever is sent, as the value of either option.
ANY = "*"
_HOST = re.compile(r"(\[[0-9a-f:.%]+\]|[^:\[\]/@]+)(?::\d{1,5})?")
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class AccessRules(NamedTuple):
    """Host names by which this server may be addressed, and origins of web pages that may call it; all lower case.

    A host name that begins with a dot stands for every name below it.
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    @classmethod
    def of(cls, address: str, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> AccessRules:
        """The rules for a server on ``address``: this machine's own names, and what the user allows besides."""
        machine = socket.gethostname().lower()
        short = machine.partition(".")[0]
        own = {"localhost", ".localhost", machine, short, f"{short}.local", address}
        allowed_hosts = {name.lower().removeprefix("*") or ANY for name in hosts}
        allowed_origins = {origin.lower().rstrip("/") for origin in origins}
        return cls(frozenset(own | allowed_hosts), frozenset(allowed_origins))

    def refusal(self, headers: Headers) -> ApiError | None:
        """Why a request with these headers is not answered; None where it is."""
        given = headers.getlist("host")
        # HTTP/1.0 need not send one, and no browser leaves it out.
        if len(given) > 1 or (given and not self._knows(given[0].lower())):
            return _unknown_host(", ".join(given))
        origins = headers.getlist("origin")
        if origins and not self._welcomes(origins, given[0].lower() if given else ""):
            return _foreign_origin(", ".join(origins))
        return None

    def is_own_page(self, headers: Headers) -> bool:
        """Whether a page of this server itself sent the request. Every browser says so of what may change something."""
        origins, given = headers.getlist("origin"), headers.getlist("host")
        return len(origins) == len(given) == 1 and _same_site(origins[0].lower(), given[0].lower())

    def _knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].rstrip(".")
        return ANY in self.hosts or name in self.hosts or _is_address(name) or self._is_below(name)

    def _is_below(self, name: str) -> bool:
        return any(known.startswith(".") and name.endswith(known) for known in self.hosts)

    def _welcomes(self, origins: list[str], host: str) -> bool:
        if len(origins) > 1:
            return False
        origin = origins[0].lower()
        if ANY in self.origins or origin in self.origins:
            return True
        return _same_site(origin, host)


def _same_site(origin: str, host: str) -> bool:
    """Whether a page that this server has sent itself has this ``Origin``."""
    scheme, _, site = origin.partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    return port is not None and bool(host) and site.removesuffix(port) == host.removesuffix(port)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _unknown_host(given: str) -> ApiError:
    message = (
        f"This server is not known by the host name '{clip(given)}'. If it is one of its names, start it with "
        "--allowed-host NAME (without the port)."
    )
    return ApiError(403, message, param="host", code="host_not_allowed")


def _foreign_origin(given: str) -> ApiError:
    message = (
        f"Web pages of '{clip(given)}' may not call this server. To let them, start it with --allowed-origin ORIGIN, "
        "for example --allowed-origin http://localhost:3000."
    )
    return ApiError(403, message, param="origin", code="origin_not_allowed")
