"""Reference: an image or artifact in a registry, as people write it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from chunkstore.digest import Digest
from chunkstore.errors import Malformed

_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::[0-9]{1,5})?")
_PORT = re.compile(r":[0-9]{1,5}$")
_LONGEST = 255
"""Characters of host and repository together, as registries bound them."""

_HUB, _HUB_SERVER = "docker.io", "registry-1.docker.io"
"""The one registry whose name is not the host that serves it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """``HOST[:PORT]/REPO[:TAG][@sha256:HEX]``."""

    host: str
    """With the port, as it was written; what credentials are kept under."""
    repository: str
    tag: str | None = None
    digest: Digest | None = None
    """Of the manifest or index; it decides, whatever the tag says."""

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read a reference; raises Malformed. The registry's host is never guessed."""
        host, slash, rest = text.partition("/")
        if not slash or not _HOST.fullmatch(host) or not _is_host(host):
            raise Malformed(f"a reference begins with its registry, HOST/REPO: {text[:100]!r}")
        rest, at, digest = rest.partition("@")
        repository, colon, tag = rest.partition(":")
        if host == _HUB and "/" not in repository:
            repository = f"library/{repository}"
        if not _REPOSITORY.fullmatch(repository) or len(host) + len(repository) > _LONGEST:
            raise Malformed(f"not a repository's name: {repository[:100]!r}")
        if colon and not _TAG.fullmatch(tag):
            raise Malformed(f"not a tag: {tag[:100]!r}")
        return cls(host, repository, tag or None, Digest.parse(digest) if at else None)

    @property
    def server(self) -> str:
        """The host and port that answer for it."""
        return _HUB_SERVER if self.host == _HUB else self.host

    @property
    def is_local(self) -> bool:
        """Whether its registry is on this machine: such speak HTTP, unless it is their port 443."""
        name = _PORT.sub("", self.host)
        if self.host == f"{name}:443":
            return False
        if name == "localhost":
            return True
        try:
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def name(self) -> str:
        """What is asked for: the digest, else the tag, else ``latest``."""
        return str(self.digest) if self.digest else self.tag or "latest"

    def pinned(self, digest: Digest) -> Reference:
        """Return the reference to exactly what *digest* names."""
        return replace(self, digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.host}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def _is_host(text: str) -> bool:
    return "." in text or ":" in text or text == "localhost"
