"""The helper process: reads lists of files from stdin, answers on stdout; see ``helpers``."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
from dataclasses import replace

from rafs.errors import BadSource
from rafs.packing import Rules

from .files import Files, read_files
from .xattrs import Attributes

LENGTH = 8

REMEMBERED = 1 << 20
"""Digests that a helper keeps to leave out data it has sent before; 100 MB of memory at most."""


def serve() -> None:
    """Answer until stdin ends."""
    # Ctrl-C goes to the whole group of processes; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()  # nothing here makes cycles
    sent: set[bytes] = set()
    rules: Rules = replace(pickle.loads(_receive() or b""), known=sent)
    attributes = Attributes()
    while request := _receive():
        parts: list[Files] = pickle.loads(request)
        try:
            read = read_files(parts, rules, attributes)
        except BadSource as exc:
            _answer(exc, b"")
            continue
        packed = read.packed
        if len(sent) > REMEMBERED:
            sent.clear()
        sent.update(packed.digests)
        data, sizes = b"".join(packed.stored), list(map(len, packed.stored))
        packed.stored = []
        _answer((read, sizes, attributes.left), data)


def _receive() -> bytes | None:
    length = sys.stdin.buffer.read(LENGTH)
    if len(length) < LENGTH:
        return None
    return sys.stdin.buffer.read(int.from_bytes(length, "little"))


def _answer(value: object, data: bytes) -> None:
    meta = pickle.dumps(value)
    lengths = len(meta).to_bytes(LENGTH, "little") + len(data).to_bytes(LENGTH, "little")
    for part in (lengths + meta, data):
        view = memoryview(part)
        while view:
            view = view[os.write(1, view) :]
