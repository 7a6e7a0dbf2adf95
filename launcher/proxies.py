"""The proxy between here and an API server, chosen as Go's clients (kubectl) do: golang.org/x/net/http/httpproxy.

The official Python client takes HTTP_PROXY for https too, leaves NO_PROXY out and sends no password; its libraries read
the environment by rules of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit

from launcher.cluster_errors import NoConnection

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Proxy:
    """A proxy.

    Attributes:
        url: scheme, host and port.
        login: ``user:password``; None: it wants none.
    """

    url: str
    login: str | None = field(default=None, repr=False)


def proxy_of(server: str, given: str | None) -> Proxy | None:
    """Return the proxy to a server: the one the kubeconfig gives it, else that of the environment; None: none.

    Raises:
        NoConnection: it is no address of a proxy that can be used; the value is not told, it may hold a password.
    """
    if given:
        return _parsed(given, "proxy-url")
    parts = urlsplit(server)
    for name in (f"{parts.scheme}_proxy".upper(), f"{parts.scheme}_proxy"):
        if value := os.environ.get(name):
            return None if _left_out(parts) else _parsed(value if "://" in value else f"http://{value}", name)
    return None


def _parsed(value: str, origin: str) -> Proxy:
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        host = port = None
    # What stands behind the host belongs to a user or password with a character that has to be escaped.
    if parts.scheme not in _PORTS or not host or not port or parts.path.strip("/") or parts.query or parts.fragment:
        raise NoConnection(
            f"{origin} is no address of a proxy: http:// or https://, host and port, such as http://10.0.0.1:3128; "
            "in a user or password # is written %23, / is %2F and @ is %40"
        )
    login = None if parts.username is None else f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}", login)


def _left_out(server: SplitResult) -> bool:
    host, port = (server.hostname or "").rstrip("."), server.port or _PORTS.get(server.scheme)
    address = _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    given = os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or ""
    return any(_fits(entry, host, port) for entry in _entries(given))


def _entries(given: str) -> Iterator[str]:
    yield from (entry.strip().lower() for entry in given.split(",") if entry.strip())


def _fits(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY means a host: ``*``, a network, or an address or domain that may have a port."""
    if entry == "*":
        return True
    address = _address(host)
    if "/" in entry:
        try:
            return address is not None and address in ip_network(entry, strict=False)
        except ValueError:
            return False
    name, its = entry, None
    if not _address(entry):
        head, colon, tail = entry.rpartition(":")
        if colon and tail.isdigit():
            name, its = head, int(tail)
    if its is not None and its != port:
        return False
    name = name.strip("[]")
    if address is not None:
        return _address(name) == address
    name = name.removeprefix("*")
    return host.endswith(name) if name.startswith(".") else host == name or host.endswith(f".{name}")


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None
