"""Who is who: mutual TLS 1.3 between hosts, and the roles that certificates carry.

A role is a URI among the certificate's subject alternative names, ``naiad:role:seed``: every tool
shows it, any CA can write it, and the standard library reads it, so that a mount needs no other
one. Names are not compared with addresses: hosts come and go with addresses that nobody knows
beforehand, and what a host may say depends on its role alone. So the CA is the cluster's own and
signs for nothing else.

There is no session resumption, so each connection shows certificates that are valid now. Files
that were renewed are used from the next connection on.
"""

from __future__ import annotations

import enum
import ipaddress
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from .errors import BadPapers, Unsafe, Untrusted
from .tls import TlsStream

logger = logging.getLogger(__name__)

HANDSHAKE = 5.0
"""Seconds in which both sides must have agreed."""

_ROLE = "naiad:role:"


class Role(enum.Enum):
    """What a host may do in the swarm."""

    SCHEDULER = "scheduler"
    SEED = "seed"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class Remote:
    """Whom we talk to."""

    name: str
    """The certificate's common name; empty without one."""
    roles: frozenset[Role]
    expires: float | None = None
    """When the certificate does, seconds since 1970; None without one."""

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Remote:
        """Read a verified certificate as ``getpeercert`` returns it; raises Untrusted."""
        names = dict(pair for part in facts.get("subject", ()) for pair in part)
        name = str(names.get("commonName", ""))[:200]
        said = [str(text) for kind, text in facts.get("subjectAltName", ()) if kind == "URI"]
        known = {_ROLE + role.value: role for role in Role}
        roles = frozenset(known[text] for text in said if text in known)
        if not roles:
            raise Untrusted(f"the certificate of {name or 'somebody'} carries no role")
        return cls(name, roles, float(ssl.cert_time_to_seconds(facts["notAfter"])))

    def require(self, role: Role) -> None:
        """Raise Untrusted unless the other side has *role*."""
        if role not in self.roles:
            has = ", ".join(sorted(each.value for each in self.roles))
            raise Untrusted(f"{self.name} is no {role.value}: its certificate says {has}")

    def __str__(self) -> str:
        return self.name or "a host without a certificate"


ANYBODY = Remote("", frozenset(Role))
"""A host on loopback, or where ``--insecure`` was said: it has every role."""


@dataclass(frozen=True, slots=True)
class Papers:
    """A host's certificate with its chain, its key, and the CAs that it trusts; PEM files."""

    certificate: Path
    key: Path
    ca: Path

    def version(self) -> tuple[tuple[int, int, int], ...]:
        """Return what differs when a file was replaced; raises BadPapers."""
        try:
            facts = [path.stat() for path in (self.certificate, self.key, self.ca)]
        except OSError as exc:
            raise BadPapers(f"{exc.filename}: {exc.strerror}") from exc
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in facts)

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Return what one side of a connection needs; raises BadPapers."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET
        if server:
            context.num_tickets = 0
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as exc:
            raise BadPapers(f"{self.ca}: no CA certificate: {_words(exc)}") from exc
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as exc:
            both = f"{self.certificate} with {self.key}"
            raise BadPapers(f"{both}: no certificate and its key: {_words(exc)}") from exc
        return context


class Identity:
    """Who this host is, as its papers say now.

    Tasks: of the event loop; no method awaits.
    """

    def __init__(self, papers: Papers) -> None:
        """Load *papers*; raises BadPapers."""
        self._papers = papers
        self._version = papers.version()
        self._contexts = {side: papers.context(server=side) for side in (True, False)}
        self._complained: object = None

    def context(self, *, server: bool) -> ssl.SSLContext:
        """Return what the next connection needs, from files that may have been renewed.

        While they cannot be used, mostly in the middle of being replaced, the last ones are.
        """
        try:
            version = self._papers.version()
            if version != self._version:
                self._contexts = {side: self._papers.context(server=side) for side in (True, False)}
                self._version = version
                logger.info("certificate renewed file=%s", self._papers.certificate)
        except BadPapers as exc:
            if self._complained != str(exc):
                logger.warning("renewed certificate cannot be used, the old one stays: %s", exc)
            self._complained = str(exc)
        return self._contexts[server]

    def __repr__(self) -> str:
        return f"Identity({str(self._papers.certificate)!r})"


class Security:
    """How this host's connections are secured; handed to servers and clients alike."""

    def __init__(self, identity: Identity | None = None, *, insecure: bool = False) -> None:
        self.identity = identity
        self.insecure = insecure
        """Plain connections beyond loopback are wanted."""

    def check(self, host: str, *, to: str = "listen on") -> None:
        """Raise Unsafe unless *host* may be listened on, or dialled."""
        if not permitted(host, tls=self.identity is not None, insecure=self.insecure):
            raise Unsafe(
                f"will not {to} {host or 'every address'} without TLS: give --certificate, --key "
                "and --ca (see naiad pki), or --insecure"
            )

    async def accepted(self, stream: trio.abc.Stream) -> tuple[trio.abc.Stream, Remote]:
        """Return a connection that was accepted, secured.

        Raises Untrusted, or trio.BrokenResourceError when the other side has gone. The stream is
        the caller's to close, also when this raises.
        """
        return await self._secured(stream, server=True)

    async def dialled(
        self, stream: trio.abc.Stream, role: Role | None = None
    ) -> tuple[trio.abc.Stream, Remote]:
        """Return a connection that was dialled, secured; the other side must have *role*.

        In TLS 1.3 the dialler is done before the other side has seen its certificate: a refusal
        comes as Untrusted from the first receive.
        """
        secured, remote = await self._secured(stream, server=False)
        if role is not None:
            remote.require(role)
        return secured, remote

    async def _secured(
        self, stream: trio.abc.Stream, *, server: bool
    ) -> tuple[trio.abc.Stream, Remote]:
        if self.identity is None:
            return stream, ANYBODY
        secured = TlsStream(stream, self.identity.context(server=server), server=server)
        try:
            with trio.fail_after(HANDSHAKE):
                facts = await secured.shake_hands()
        except trio.TooSlowError:
            raise Untrusted(f"no TLS handshake within {HANDSHAKE:g} s") from None
        return secured, Remote.of(facts)

    def __repr__(self) -> str:
        return f"Security({self.identity!r}, insecure={self.insecure})"


def permitted(host: str, *, tls: bool, insecure: bool) -> bool:
    """Say whether connections on *host* may be: loopback, TLS, or what was asked for."""
    return tls or insecure or is_loopback(host)


def is_loopback(host: str) -> bool:
    """Say whether nobody else can reach *host*; a name other than localhost is never trusted."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _words(exc: OSError) -> str:
    text = getattr(exc, "reason", None) or exc.strerror or str(exc)
    return str(text).replace("_", " ").lower()
