"""How ``naiad pull`` asks the snapshotter to pull: lines of JSON on a socket beside its own.

::

    → {"reference": "HOST/REPO:TAG", "namespace": "default", …}     what to pull
    ← {"said": "layer 1 of 3: nothing to fetch"}                    any number of these
    ← {"digest": "sha256:…"}  or  {"error": "…"}                    and one of these

The snapshotter does the work because it is there: it has containerd's and the registry's clients at
hand, which take longer to load than a lazy pull takes. For the same reason these few values are
written by ``json``, and who asks loads nothing else.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .errors import Declined, NoAnswer

MAX_LINE = 1 << 16
"""Bytes of a line."""


@dataclass(frozen=True, slots=True)
class PullRequest:
    """What is to be pulled."""

    reference: str
    namespace: str = "default"
    snapshotter: str = "naiad"
    """What containerd calls it."""
    platform: str = ""
    """``OS/ARCHITECTURE[/VARIANT]``; empty: this machine's."""
    user: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    def encode(self) -> bytes:
        """Return it as a line."""
        return json.dumps(asdict(self)).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class PullReply:
    """One line of the answer."""

    said: str = ""
    digest: str = ""
    """Of the manifest: it is done."""
    error: str = ""

    def encode(self) -> bytes:
        """Return it as a line."""
        told = {name: text for name, text in asdict(self).items() if text}
        return json.dumps(told).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> PullReply:
        """Read a line; raises ValueError."""
        told = json.loads(line)
        if not isinstance(told, dict):
            raise ValueError("it is no object")
        said, digest, error = (str(told.get(name, "")) for name in ("said", "digest", "error"))
        return cls(said, digest, error)


def control_of(address: Path) -> Path:
    """Return the socket for pulls of the snapshotter at *address*."""
    return address.with_name(f"{address.name}.pull")


def pull(address: Path, request: PullRequest, patience: float) -> Iterator[PullReply]:
    """Have the snapshotter at *address* pull, and yield what it says, the digest last.

    Raises Declined where it cannot, NoAnswer where it is silent for *patience* seconds.
    """
    path = control_of(address)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(patience)
        try:
            caller.connect(os.fspath(path))
            caller.sendall(request.encode())
            with caller.makefile("rb") as lines:
                while line := lines.readline(MAX_LINE):
                    reply = PullReply.decode(line)
                    if reply.error:
                        raise Declined(reply.error)
                    yield reply
                    if reply.digest:
                        return
        except (FileNotFoundError, ConnectionRefusedError) as exc:
            raise NoAnswer(f"{path}: no naiad snapshotter listens there") from exc
        except (OSError, ValueError) as exc:
            raise NoAnswer(f"{path}: {exc}") from exc
    raise NoAnswer(f"{path}: the snapshotter ended")
