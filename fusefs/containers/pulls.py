"""How ``naiad pull`` asks the snapshotter to pull: lines of JSON on a socket beside its own.

::

    → {"reference": "HOST/REPO:TAG", "namespace": "default", …}     what to pull (`PullRequest`)
    ← {"said": "layer 1 of 3: nothing to fetch"}                    any number of these
    ← {"digest": "sha256:…"}  or  {"error": "…"}                    and one of these

The snapshotter does the work because it is there: it has containerd's and the registry's clients at
hand, which take longer to load than a lazy pull takes. For the same reason who asks loads nothing
but this, which has no dataclass and no path: those would double the time in which it is loaded.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Mapping

from fusefs.errors import Declined, NoAnswer

MAX_LINE = 1 << 16
"""Bytes of a line."""


class Unheard(NoAnswer):
    """Nobody has heard the request."""


SUFFIX = ".pull"
"""What the name of the snapshotter's socket has behind it in this one's."""

Reply = Mapping[str, str]
"""A line of the answer: ``said``, or ``digest``, that of the manifest: it is done."""


def pull(address: str, request: Mapping[str, str], patience: float) -> Iterator[Reply]:
    """Have the snapshotter at *address* pull, and yield what it says, the digest last.

    Raises Declined where it cannot, NoAnswer where it is silent for *patience* seconds.
    """
    path = address + SUFFIX
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(patience)
        _connect(caller, path)
        try:
            caller.sendall(json.dumps(request).encode() + b"\n")
            with caller.makefile("rb") as lines:
                while line := lines.readline(MAX_LINE):
                    reply = _decoded(line)
                    if "error" in reply:
                        raise Declined(reply["error"])
                    yield reply
                    if "digest" in reply:
                        return
        except (OSError, ValueError) as exc:
            raise NoAnswer(f"{path}: {exc}") from exc
    raise NoAnswer(f"{path}: the snapshotter ended")


def _connect(caller: socket.socket, path: str) -> None:
    try:
        caller.connect(path)
    except (FileNotFoundError, ConnectionRefusedError) as exc:
        raise Unheard(f"{path}: no naiad snapshotter listens there") from exc
    except OSError as exc:
        raise Unheard(f"{path}: {exc}") from exc


def _decoded(line: bytes) -> Reply:
    """Read a line; raises ValueError."""
    told = json.loads(line)
    if not isinstance(told, dict):
        raise ValueError("it is no object")
    return {name: str(told[name]) for name in ("said", "digest", "error") if told.get(name)}
