"""Trust: which authorities vouch for a server, and what we show it of ourselves.

Besides what a caller names, the folders are looked at in which Docker, Podman and skopeo are told:
``certs.d/HOST:PORT`` (``HOST`` for port 443) holds authorities as ``*.crt``, and certificates of
ours as ``NAME.cert`` with ``NAME.key``.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from chunkstore.errors import Malformed

from .url import Url

_MOST = 64
"""Servers whose contexts are kept, those met last: each holds all of the system's authorities, and
who reads for others may be led to any number of servers."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate of ours, with its key."""

    certificate: Path
    """PEM, with what is between it and its authority."""
    key: Path | None = None
    """None where it is in the same file."""


class Trust:
    """What TLS connections are made with. Files are read when a server is met first."""

    def __init__(
        self,
        *,
        ca_file: Path | None = None,
        identity: Identity | None = None,
        folders: Sequence[Path] = (),
        is_nobody: bool = False,
    ) -> None:
        """Trust *ca_file* besides the system's authorities; be *identity* where asked who we are.

        *folders* are such ``certs.d``; who *is_nobody* is so in spite of what lies there.
        """
        self._ca_file = ca_file
        self._identity = identity
        self._folders = folders
        self._is_nobody = is_nobody
        self._made: dict[tuple[str, int, bool], ssl.SSLContext] = {}

    async def context(self, url: Url, *, is_meant: bool = True) -> ssl.SSLContext:
        """Return what to meet *url*'s host with; raises Malformed for files that are of no use.

        Who is not *is_meant*, but was redirected to, is shown no identity but one that its own
        folder has.
        """
        key = url.host, url.port, is_meant
        found = self._made.get(key)
        if found is None:
            # Reading the system's CAs takes 60 ms, which is too long for an event loop.
            found = self._made[key] = await trio.to_thread.run_sync(self._make, url, is_meant)
            if len(self._made) > _MOST:
                del self._made[next(iter(self._made))]
        return found

    def _make(self, url: Url, is_meant: bool) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.set_alpn_protocols(["http/1.1"])
        identity = self._identity if is_meant else None
        if self._ca_file is not None:
            _vouch(context, self._ca_file)
        for folder in self._of(url):
            for path in sorted(folder.glob("*.crt")):
                _vouch(context, path)
            for path in sorted(folder.glob("*.cert")):
                identity = Identity(path, path.with_suffix(".key"))
        if identity is not None and not self._is_nobody:
            _become(context, identity)
        return context

    def _of(self, url: Url) -> Iterator[Path]:
        names = [f"{url.host}:{url.port}", *([url.host] if url.port == 443 else [])]
        for folder in self._folders:
            yield from (folder / name for name in names)


def _vouch(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except OSError as exc:
        raise Malformed(f"{path}: no certificates of authorities: {_reason(exc)}") from exc


def _become(context: ssl.SSLContext, identity: Identity) -> None:
    try:
        # Without the last argument OpenSSL would ask the terminal for an encrypted key's password.
        context.load_cert_chain(identity.certificate, identity.key, lambda: "")
    except OSError as exc:
        key = identity.key or identity.certificate
        raise Malformed(
            f"{identity.certificate} with {key}: no certificate with its key: {_reason(exc)}"
        ) from exc


def _reason(exc: OSError) -> str:
    return exc.reason if isinstance(exc, ssl.SSLError) and exc.reason else exc.strerror or str(exc)
