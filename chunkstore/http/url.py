"""Url: where a request goes, and what of it may be shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote, urlencode, urljoin, urlsplit

from chunkstore.errors import Malformed

_PORTS = {"http": 80, "https": 443}

_LONGEST = 16 << 10
"""Characters of a url; signed ones of object stores stay under 4 KiB."""

_AS_SENT = "%/:=&?~#+!$,;'@()*[]|"
"""What a target may hold besides letters and digits without being quoted."""


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https url; its text leaves out the query and the password, which may be secret."""

    scheme: str
    host: str
    """Lower case; an IPv6 address without its brackets."""
    port: int
    target: str = field(repr=False)
    """Path and query, quoted as they are sent."""
    userinfo: str | None = field(default=None, repr=False)
    """``USER:PASSWORD``, unquoted."""

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read an absolute url; raises Malformed, whose message shows no secret."""
        try:
            parts = urlsplit(text)
            port = parts.port
            host = (parts.hostname or "").encode("idna").decode("ascii")
        except ValueError:
            raise Malformed("not a url: its host or port cannot be read") from None
        if parts.scheme not in _PORTS or not host or len(text) > _LONGEST:
            raise Malformed(f"not an http or https url: {parts.scheme}://{host}")
        userinfo = unquote(parts.netloc.rpartition("@")[0]) or None
        path = quote(parts.path or "/", safe=_AS_SENT)
        query = f"?{quote(parts.query, safe=_AS_SENT)}" if parts.query else ""
        return cls(parts.scheme, host, port or _PORTS[parts.scheme], path + query, userinfo)

    @property
    def site(self) -> tuple[str, str, int]:
        """Scheme, host and port: what credentials and connections belong to."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """The host, bracketed where it must be, and the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def absolute(self) -> str:
        """The url as a proxy is asked for it: with the query, without the password."""
        return f"{self.scheme}://{self.authority}{self.target}"

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def join(self, location: str) -> Url:
        """Return where *location*, absolute or not, leads from here; raises Malformed."""
        try:
            return Url.parse(urljoin(self.absolute, location))
        except ValueError as exc:
            raise Malformed(f"{self}: a redirect that leads nowhere") from exc

    def child(self, name: str) -> Url:
        """Return the url of *name*, a relative path, in this folder; a query stays behind it."""
        path, mark, query = self.target.partition("?")
        return replace(self, target=f"{path.rstrip('/')}/{quote(name)}{mark}{query}")

    def with_query(self, parameters: Sequence[tuple[str, str]]) -> Url:
        """Return this url with *parameters* behind whatever its query already says."""
        mark = "&" if "?" in self.target else "?"
        return replace(self, target=f"{self.target}{mark}{urlencode(parameters)}")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"
