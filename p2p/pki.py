"""A small certificate authority: one CA per cluster, leaf certificates that live for days.

::

    DIR/ca.pem, ca.key          the cluster's CA; the key never leaves this folder
    OUT/NAME.pem, NAME.key      a host's certificate and key, renewed in place

Keys are P-256: a handshake costs 0.3 ms, and every TLS library knows them. The CA signs leaves
only (path length 0), and what it signs cannot sign.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import BadPapers
from .security import Papers, Role

CA_DAYS = 3650
LEAF_DAYS = 30
"""Long enough to survive a holiday of whatever renews them, short enough to need no revocation."""

_SKEW = timedelta(minutes=5)
"""Clocks of hosts may differ by this."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]{0,62}[A-Za-z0-9])?")
_DNS = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")


@dataclass(frozen=True, slots=True)
class Wish:
    """What a leaf certificate shall say."""

    name: str
    """A host's name or address; also the names of its files."""
    roles: Collection[Role]
    lifetime: timedelta = timedelta(days=LEAF_DAYS)


def init(folder: Path, now: datetime) -> Path:
    """Make a CA in *folder*; return its certificate's path. Raises BadPapers where there is one."""
    folder.mkdir(0o700, parents=True, exist_ok=True)
    for path in (folder / "ca.pem", folder / "ca.key"):
        if path.exists():
            raise BadPapers(f"{path} is there already, and stays")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "naiad swarm CA")])
    builder = (
        _dated(now, timedelta(days=CA_DAYS))
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    _write(folder / "ca.key", _pem(key), 0o600)
    certificate = builder.sign(key, hashes.SHA256())
    _write(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return folder / "ca.pem"


def issue(folder: Path, wish: Wish, out: Path, now: datetime) -> Papers:
    """Sign a certificate with the CA in *folder*; what *out* has under that name is replaced.

    Raises BadPapers.
    """
    if not _NAME.fullmatch(wish.name) or wish.name == "ca":
        raise BadPapers(f"{wish.name[:100]!r} cannot be a host's name: letters, digits, . : - _")
    authority, signer = _authority(folder)
    if authority.not_valid_after_utc < now + wish.lifetime:
        raise BadPapers(f"{folder / 'ca.pem'} expires on {authority.not_valid_after_utc:%Y-%m-%d}")
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        _dated(now, wish.lifetime)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wish.name)]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(wish)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    certificate = builder.sign(signer, hashes.SHA256())
    made = Papers(out / f"{wish.name}.pem", out / f"{wish.name}.key", folder / "ca.pem")
    out.mkdir(0o700, parents=True, exist_ok=True)
    _write(made.key, _pem(key), 0o600)
    _write(made.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return made


def roles_of(certificate: Path) -> frozenset[Role]:
    """Return the roles that the certificate in a PEM file carries; raises BadPapers."""
    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except OSError as exc:
        raise BadPapers(f"{certificate}: {exc.strerror}") from exc
    except ValueError as exc:
        raise BadPapers(f"{certificate}: no certificate: {exc}") from exc
    except x509.ExtensionNotFound:
        return frozenset()
    said = set(names.get_values_for_type(x509.UniformResourceIdentifier))
    return frozenset(role for role in Role if f"naiad:role:{role.value}" in said)


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except OSError as exc:
        raise BadPapers(f"{exc.filename}: {exc.strerror}; naiad pki init makes a CA") from exc
    except (ValueError, TypeError) as exc:
        raise BadPapers(f"{folder}: no CA certificate and key: {exc}") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadPapers(f"{folder / 'ca.key'}: not a key that naiad pki init made")
    if key.public_key() != certificate.public_key():
        raise BadPapers(f"{folder}: ca.key is not the key of ca.pem")
    return certificate, key


def _names(wish: Wish) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(wish.name)))
    except ValueError:
        if _DNS.fullmatch(wish.name):
            names.append(x509.DNSName(wish.name))
    roles = sorted(set(wish.roles), key=lambda role: role.value)
    names += (x509.UniformResourceIdentifier(f"naiad:role:{role.value}") for role in roles)
    return names


def _dated(now: datetime, lifetime: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _SKEW)
        .not_valid_after(now.astimezone(UTC) + lifetime)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Put *data* under its name, whole and durable, never readable by more than *mode*."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
