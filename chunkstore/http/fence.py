"""Fence: where a client may go that reads for others what they name.

Who can have this machine read any url could read what only this machine reaches: services on its
loopback, and what clouds tell their machines at addresses of the link. So a name is looked up and
refused where any of its addresses is one of those, before a connection is made and again by the
address that it was made to, wherever redirects lead. Private networks are not refused: registries
stand there. A list of patterns bounds what may be named at all; a host that one of them names in
full is asked wherever it lives.

What is asked through a proxy is looked up by the proxy, and is the proxy's to refuse.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import trio

from chunkstore.errors import Malformed, Refused

from .proxies import Proxies
from .url import Url
from .wire import Socket, dial_tcp

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"))
)
"""Where clouds answer their machines besides 169.254.169.254: Alibaba, Azure, AWS, Google."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

LookUp = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns a name's addresses; raises OSError."""


@dataclass(frozen=True, slots=True)
class UrlPattern:
    """``SCHEME://HOST[:PORT][/PATH]``, where ``*`` stands for anything, in HOST within a name."""

    scheme: str
    authority: str
    path: str

    @classmethod
    def parse(cls, text: str) -> UrlPattern:
        """Read a pattern; no path means any. Raises Malformed."""
        scheme, mark, rest = text.partition("://")
        authority, slash, path = rest.partition("/")
        if not mark or scheme not in ("http", "https", "*") or not authority or "@" in authority:
            raise Malformed(f"no pattern of urls: {text[:100]!r}")
        return cls(scheme, _without_port(scheme, authority.lower()), f"/{path}" if slash else "/*")

    @property
    def host(self) -> str:
        """The one host that is meant; empty where there may be several."""
        name = self.authority.rpartition(":")[0] or self.authority
        if self.authority.endswith("]") or ":" not in self.authority:
            name = self.authority
        return "" if "*" in name else name.strip("[]")

    def fits(self, url: Url) -> bool:
        """Say whether *url* is meant; one that climbs in its path never is."""
        if self.scheme not in ("*", url.scheme) or ".." in unquote(url.path).split("/"):
            return False
        authority = _without_port(url.scheme, url.authority)
        return _like(self.authority, authority, "[^/:]*") and _like(self.path, url.path, ".*")


def _without_port(scheme: str, authority: str) -> str:
    usual = {"http": ":80", "https": ":443"}.get(scheme)
    return authority.removesuffix(usual) if usual else authority


def _like(pattern: str, text: str, anything: str) -> bool:
    parts = map(re.escape, pattern.split("*"))
    return re.fullmatch(anything.join(parts), text, re.DOTALL) is not None


class Fence:
    """A ``Dial`` that refuses; and the list of what may be named."""

    def __init__(
        self,
        patterns: Sequence[UrlPattern] = (),
        *,
        local: bool = False,
        proxies: Proxies | None = None,
        dial: Callable[[Url], Awaitable[Socket]] = dial_tcp,
        look_up: LookUp | None = None,
    ) -> None:
        """Allow what *patterns* name, anything where there are none; loopback only if *local*."""
        self._patterns = tuple(patterns)
        self._local = local
        proxies = proxies or Proxies()
        self._proxies = {proxy for proxy in (proxies.http, proxies.https) if proxy is not None}
        self._hosts = {pattern.host for pattern in patterns} - {""}
        self._dial = dial
        self._look_up = look_up or _look_up

    def check(self, url: Url) -> None:
        """Raise Refused where *url* may not be named."""
        if self._patterns and not any(pattern.fits(url) for pattern in self._patterns):
            raise Refused(f"{url}: not among the origins that are read here")
        address = _parsed(url.host)
        if address is not None and url.host not in self._hosts:
            self._check_address(url, address)

    async def __call__(self, url: Url) -> Socket:
        """Connect to *url*'s host; raises Refused, OSError."""
        if url in self._proxies or url.host in self._hosts:
            return await self._dial(url)
        for found in await self._look_up(url.host, url.port):
            self._check_address(url, _parsed(found))
        made = await self._dial(url)
        try:
            self._check_address(url, _parsed(made.peer))
        except BaseException:
            made.close()
            raise
        return made

    def _check_address(self, url: Url, address: _Address | None) -> None:
        why = "no address" if address is None else self._forbidden(_plain(address))
        if why:
            raise Refused(f"{url}: {url.host} is {why}, which is not read for others")

    def _forbidden(self, address: _Address) -> str:
        """Return what is wrong with an address; empty: nothing."""
        if address.is_loopback or address.is_unspecified:
            return "" if self._local else "this machine itself"
        if address.is_link_local:
            return "an address of the link"
        if address in _METADATA:
            return "where a cloud answers its machines"
        return "no address of a server" if address.is_multicast else ""


def _parsed(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _plain(address: _Address) -> _Address:
    """Return the IPv4 address that an IPv6 one leads to, where it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address.sixtofour or address
    return address


async def _look_up(host: str, port: int) -> Sequence[str]:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]
