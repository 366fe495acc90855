"""Helper processes that read and pack small files.

A small file costs seven system calls and library calls that let go of the interpreter's lock, and
with two threads taking it from each other they do little more than one alone: 1.5 s against 1.6 s
for 65,000 files, where two processes take 0.9 s. So trees of many small files are read by a
process per thread; data comes back over a pipe. Large chunks need none of this.

The protocol, over the child's stdin and stdout: the parent sends a pickled ``Rules`` once, then
pickled lists of ``Files``; the child answers each with two lengths, a pickle (``Read`` without its
data, or a ``BadSource``), and the data. It ends when its stdin does, however that came about.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from rafs.errors import BadSource
from rafs.packing import Rules

from .files import Files, Read, read_files
from .xattrs import Attributes

MANY = 4000
"""Files from which on processes are worth starting: they take 0.1 s to be ready."""

LENGTH = 8

_PIPE = 1 << 20
"""Bytes a pipe may hold: what unprivileged users are allowed."""

_HOME = str(Path(__file__).parents[2])
"""Where this package lies: an editable install finds it by a hook that the child does without."""

_CODE = """\
import sys
sys.path[:] = sys.argv[1:]
from rafs.sources.helper import serve
serve()
"""


class Helpers:
    """Reads small files in processes of its own if there are many, else in the caller's thread.

    A thread keeps its helper, so a helper meets tasks in their order; so it may leave out the data
    of a chunk that it has sent before, and the first one is always the one that is stored.
    """

    def __init__(self, rules: Rules, attributes: Attributes, files: int) -> None:
        self._rules = rules
        self._attributes = attributes
        self._useful = files >= MANY
        self._own = threading.local()
        self._lock = threading.Lock()
        self._all: list[_Helper] | None = []
        """None once they must end; guarded by the lock, as are new processes."""

    def read(self, parts: Sequence[Files]) -> Read:
        """Read and pack the files of *parts*; any thread may call. Raises BadSource."""
        if not self._useful:
            return read_files(parts, self._rules, self._attributes)
        helper: _Helper | None = getattr(self._own, "helper", None)
        if helper is None:
            helper = self._own.helper = self._start()
        read, left = helper.read(parts)
        self._attributes.left |= left
        return read

    def _start(self) -> _Helper:
        with self._lock:
            if self._all is None:
                raise RuntimeError("a task that came after its build had ended")
            helper = _Helper(self._rules)
            self._all.append(helper)
            return helper

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        with self._lock:
            helpers, self._all = self._all or [], None
        for helper in helpers:
            helper.end()


class _Helper:
    """The parent's end of one process."""

    def __init__(self, rules: Rules) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _CODE, _HOME, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pipesize=_PIPE,
        )
        self._send(replace(rules, known=()))

    def read(self, parts: Sequence[Files]) -> tuple[Read, set[bytes]]:
        """Have *parts* read; returns xattr names that were left out, too. Raises BadSource."""
        self._send(parts)
        lengths = self._receive(2 * LENGTH)
        answer = pickle.loads(self._receive(int.from_bytes(lengths[:LENGTH], "little")))
        data = memoryview(self._receive(int.from_bytes(lengths[LENGTH:], "little")))
        if isinstance(answer, BadSource):
            raise answer
        read, sizes, left = answer
        read.packed.stored = [data[a:b] for a, b in pairwise(accumulate(sizes, initial=0))]
        return read, left

    def end(self) -> None:
        """End the process, whatever it is at: nothing on the disk is its own."""
        self._process.kill()
        with suppress(BrokenPipeError), self._process:
            pass

    def _send(self, value: object) -> None:
        data = pickle.dumps(value)
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(len(data).to_bytes(LENGTH, "little") + data)
        stdin.flush()

    def _receive(self, size: int) -> bytes:
        stdout = self._process.stdout
        assert stdout is not None
        data = stdout.read(size)
        if len(data) != size:
            raise ChildProcessError("a helper process has died")
        return data
