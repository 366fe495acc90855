"""Proxies: which proxy, if any, stands before a url.

The rules are those of Go's programs, which most people's ``no_proxy`` was written for: loopback is
never asked through a proxy; an entry is ``*``, an address, a network, or a name that stands for
itself and everything under it; any of them may carry a port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from chunkstore.errors import Malformed

from .url import Url


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies of a system, as its environment names them."""

    http: Url | None = None
    https: Url | None = None
    exceptions: tuple[str, ...] = ()
    """Entries of ``no_proxy``, in lower case."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Proxies:
        """Read the variables that everyone knows; raises Malformed for what is no http(s) url."""
        exceptions = _variable(environment, "no_proxy").lower().split(",")
        return cls(
            _proxy(environment, "http_proxy"),
            _proxy(environment, "https_proxy"),
            tuple(entry.strip() for entry in exceptions if entry.strip()),
        )

    def before(self, url: Url) -> Url | None:
        """Return the proxy to ask for *url*, None to ask its host."""
        proxy = self.https if url.scheme == "https" else self.http
        if proxy is None or self._is_exception(url):
            return None
        return proxy

    def _is_exception(self, url: Url) -> bool:
        address = _address(url.host)
        if url.host == "localhost" or (address is not None and address.is_loopback):
            return True
        return any(_covers(entry, url, address) for entry in self.exceptions)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _covers(entry: str, url: Url, address: _Address | None) -> bool:
    if entry == "*":
        return True
    name, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (":" not in name or name.startswith("[")):
        if int(port) != url.port:
            return False
        entry = name
    if address is None:
        bare = entry.removeprefix("*").removeprefix(".")
        return url.host == bare or url.host.endswith(f".{bare}")
    try:
        return address in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        return False


def _address(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _proxy(environment: Mapping[str, str], name: str) -> Url | None:
    text = _variable(environment, name) or _variable(environment, "all_proxy")
    if not text:
        return None
    try:
        return Url.parse(text if "://" in text else f"http://{text}")
    except Malformed as exc:
        raise Malformed(f"{name}: {exc}") from exc


def _variable(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name) or environment.get(name.upper()) or "").strip()
