"""The URL of a webhook: read once, by the parser of the library that will connect to it, and checked."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from yarl import URL

from gristmill.notify.addresses import AllowedHosts, as_address, is_name

#: Below 1024, those that speak HTTP. A request to a mail server's port can be read as mail.
_WEB_PORTS = (80, 443)
_LOOPBACK = (ip_address("127.0.0.1"), ip_address("::1"))


class TargetRefused(Exception):
    """In a sentence."""


class Target(NamedTuple):
    """``url`` is what is requested. ``host`` is in lower case, without brackets; ``origin`` scheme, host and port."""

    url: str
    host: str
    port: int

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host.removesuffix(".")
        return f"{self.url.partition(':')[0]}://{host}:{self.port}"


def read(given: str) -> Target:
    """Raises TargetRefused for what is no URL of a webhook."""
    if not given.isprintable() or " " in given or "\\" in given:
        raise TargetRefused("it holds spaces, backslashes or characters that no URL has.")
    try:
        url = URL(given)
        host, port = (url.raw_host or "").lower(), url.port
    except ValueError:
        raise TargetRefused("it is no URL.") from None
    if url.scheme not in ("http", "https") or not host:
        raise TargetRefused("it must begin with https:// or http:// and a host.")
    if url.raw_user is not None or url.raw_password is not None:
        raise TargetRefused("a name and a password in it are not sent: what is sent is signed instead.")
    if url.raw_fragment or "#" in given:
        raise TargetRefused("the part from # on is never sent: leave it out.")
    if not port:
        raise TargetRefused("it has no port that could be asked.")
    if as_address(host) is None and not is_name(host.removesuffix(".")):
        raise TargetRefused(
            "its host is neither a name nor an address in its usual form, such as 192.0.2.1 or [2001:db8::1]."
        )
    if "%" in host:
        raise TargetRefused("its address names an interface of this machine.")
    return Target(str(url), host, port)


def check(target: Target, allowed: AllowedHosts) -> None:
    """What can be said before the name is resolved. Raises TargetRefused."""
    if allowed.name(target.host, target.port):
        return
    address = as_address(target.host)
    if address is not None and allowed.address(address, target.port):
        return
    name = target.host.removesuffix(".")
    if address is not None:
        reachable = allowed.reaches(address, target.port)
    elif name == "localhost" or name.endswith(".localhost"):
        reachable = any(allowed.reaches(each, target.port) for each in _LOOPBACK)
    else:
        reachable = True
    if not reachable:
        raise not_public(target.host)
    if target.port < 1024 and target.port not in _WEB_PORTS:
        raise TargetRefused(
            f"port {target.port} is not one that webhooks go to: use 443, 80 or one above 1023, or have the server "
            f"started with --allow-webhook-host {_entry(target)}."
        )


def not_public(host: str) -> TargetRefused:
    return TargetRefused(
        f"{host} is not on the public internet. Whoever runs the server can allow it, with --allow-webhook-host {host}."
    )


def shown(url: str) -> str:
    """As it may be shown: what follows the ? may be a password."""
    path, question, _ = url.partition("?")
    return f"{path}{question}{'...' if question else ''}"


def _entry(target: Target) -> str:
    return f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
