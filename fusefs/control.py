"""The control socket's protocol: a line of JSON asks, a line of JSON answers.

===========================  ======================================================
``{"command": "status"}``    ``{"status": {…}}``: see `fusefs.daemon`
``{"command": "stop"}``      ``{"status": {}}``, and the mount ends, in use or not
``{"command": "show", …}``   a session of many images shows the one in ``argument``
``{"command": "hide", …}``   and shows it no more
``{"command": "warm", …}``   fetches the files in ``argument``, or says how far it is
anything else                ``{"error": "…"}``
===========================  ======================================================
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping

import msgspec

from .errors import Declined, NoAnswer
from .mounting.state import Folder

MAX_LINE = 1 << 20
"""Bytes that either side reads before it gives up on the other."""


class Command(enum.Enum):
    """What can be asked."""

    STATUS = "status"
    STOP = "stop"
    SHOW = "show"
    HIDE = "hide"
    WARM = "warm"


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The line that asks."""

    command: Command
    argument: msgspec.Raw = msgspec.Raw(b"null")
    """What the command is about, as whoever carries it out reads it."""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The line that answers."""

    status: Mapping[str, object] | None = None
    error: str = ""


def decode_request(line: bytes) -> Request | Reply:
    """Read the line that asks, or return the answer to one that cannot be read."""
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        return Reply(error=str(exc))


def encode(message: Request | Reply) -> bytes:
    """Return *message* as a line."""
    return msgspec.json.encode(message) + b"\n"


def ask(
    folder: Folder,
    command: Command,
    patience: float,
    argument: msgspec.Raw = msgspec.Raw(b"null"),  # noqa: B008  # immutable
) -> Mapping[str, object]:
    """Ask the daemon that serves *folder*'s mount; raises NoAnswer after *patience* seconds.

    Raises Declined with what the daemon says where it cannot.

    A daemon that dies meanwhile has a successor, which is asked again.
    """
    deadline = time.monotonic() + patience
    line = b""
    try:
        while not line and (left := deadline - time.monotonic()) > 0:
            line = _exchange(folder, encode(Request(command, argument)), left)
        reply = msgspec.json.decode(line, type=Reply)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise NoAnswer(f"the mount's daemon does not answer: {exc}") from exc
    if reply.error:
        raise Declined(reply.error)
    return reply.status or {}


def _exchange(folder: Folder, request: bytes, patience: float) -> bytes:
    line = b""
    with folder.connect(patience) as caller:
        caller.settimeout(patience)
        try:
            caller.sendall(request)
            while not line.endswith(b"\n") and len(line) < MAX_LINE:
                more = caller.recv(1 << 16)
                if not more:
                    break
                line += more
        except (BrokenPipeError, ConnectionResetError):
            return b""
    return line
