"""What can go wrong between hosts, split by who is at fault.

::

    P2pError
    ├── Unsafe      the caller: listening or dialling beyond loopback without TLS
    ├── BadPapers   the caller: a certificate, key or CA file that cannot be used
    ├── Untrusted   the other side: a foreign or expired certificate, or none, or of another role
    ├── Nonsense    the other side: bytes that are no message, or not its to say
    └── Gone        the connection: it could not be made, ended, or stands still
"""

from __future__ import annotations


class P2pError(Exception):
    """Something failed between hosts."""


class Unsafe(P2pError):
    """An address beyond loopback, without TLS and without leave."""


class BadPapers(P2pError):
    """A certificate, key or CA file cannot be used."""


class Untrusted(P2pError):
    """The other side is not who it must be."""


class Nonsense(P2pError):
    """What came is no message of the protocol, or was not the sender's to say."""


class Gone(P2pError):
    """There is no connection, or no more."""
