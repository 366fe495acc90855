"""Tensors: where they lie in a model's file, read from its own index. Pure; trusts nothing.

safetensors: a length of 8 bytes, JSON ``{name: {"data_offsets": [start, stop], …}, …}`` of that
length, then the data that the offsets count in. GGUF: magic, version, counts, key-value pairs, then
per tensor a name, dimensions, type and an offset in the data, which begins behind all that at the
alignment. An index that lies is one that is not used: nothing here is more than a hint.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from chunkstore import Buffer

LARGEST = 32 << 20
"""Bytes of an index that is read; one of 18,000 tensors has 2 MiB."""

_TENSORS = 1 << 20
_PAIRS = 1 << 16
_NAME = 1 << 16
"""Bytes of a name: GGUF allows 65535."""

_ALIGNMENT = 32
_GGUF = b"GGUF"


class BadIndex(Exception):
    """An index is not what its format says."""


@dataclass(frozen=True, slots=True)
class More:
    """An index that goes on: so many bytes from the file's first on are needed."""

    size: int


class _Tensor(msgspec.Struct):
    data_offsets: tuple[int, int]


def bounds(head: Buffer, size: int) -> Sequence[int] | More:
    """Return in order where the tensors of a file of *size* bytes begin, and the last one ends.

    *head* is the file's beginning; where that is too short, say how much is needed, or at least
    worth a try. Raises BadIndex.
    """
    view = memoryview(head).cast("B")
    found = _gguf(view, size) if view[:4] == _GGUF else _safetensors(view, size)
    if isinstance(found, More) and found.size > min(size, LARGEST):
        raise BadIndex(f"an index of {found.size} bytes")
    return found


def _safetensors(view: memoryview, size: int) -> Sequence[int] | More:
    if len(view) < 8:
        return More(8)
    data = 8 + int.from_bytes(view[:8], "little")
    if len(view) < data:
        return More(data)
    try:
        told = msgspec.json.decode(view[8:data], type=dict[str, msgspec.Raw])
        told.pop("__metadata__", None)
        tensors = [msgspec.json.decode(raw, type=_Tensor).data_offsets for raw in told.values()]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise BadIndex(str(exc)) from exc
    return _ordered([data + start for start, _ in tensors], data, size)


def _ordered(starts: Sequence[int], data: int, size: int) -> Sequence[int]:
    if len(starts) > _TENSORS or any(not data <= start <= size for start in starts):
        raise BadIndex("tensors outside the file")
    return array("Q", sorted({data, size, *starts}))


def _gguf(view: memoryview, size: int) -> Sequence[int] | More:
    reader = _Reader(view)
    try:
        return reader.index(size)
    except _Short as exc:
        # How long it is, nobody says; twice as much is worth a try.
        wanted = max(exc.wanted, 2 * len(view))
        if len(view) >= min(size, LARGEST):
            raise BadIndex("an index without an end") from exc
        return More(min(wanted, size, LARGEST))


class _Short(Exception):
    def __init__(self, wanted: int) -> None:
        super().__init__(wanted)
        self.wanted = wanted


_STRING, _ARRAY = 8, 9
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type: u8 i8 u16 i16 u32 i32 f32 bool, then u64 i64 f64."""

_UINT32 = 4


class _Reader:
    """Reads a GGUF index from its first byte on."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 4
        self._alignment = _ALIGNMENT

    def index(self, size: int) -> Sequence[int]:
        version = self._number("<I")
        if version not in (2, 3):
            raise BadIndex(f"GGUF version {version}")
        tensors, pairs = self._number("<Q"), self._number("<Q")
        if tensors > _TENSORS or pairs > _PAIRS:
            raise BadIndex(f"{tensors} tensors, {pairs} pairs")
        for _ in range(pairs):
            self._pair()
        offsets = [self._tensor() for _ in range(tensors)]
        data = -(-self._at // self._alignment) * self._alignment
        return _ordered([data + offset for offset in offsets], data, size)

    def _pair(self) -> None:
        key, kind = self._string(), self._number("<I")
        if key == b"general.alignment" and kind == _UINT32:
            self._alignment = self._number("<I")
            if not 0 < self._alignment <= 1 << 20:
                raise BadIndex(f"alignment {self._alignment}")
        else:
            self._skip_value(kind)

    def _skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self._string(limit=LARGEST)
        elif kind == _ARRAY:
            inner, count = self._number("<I"), self._number("<Q")
            if inner in _SIZES:
                self._skip(count * _SIZES[inner])
            elif inner == _STRING and count <= LARGEST // 8:
                self._skip_strings(count)
            else:
                raise BadIndex(f"an array of {count} values of type {inner}")
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise BadIndex(f"a value of type {kind}")

    def _skip_strings(self, count: int) -> None:
        """Skip a tokenizer's words, of which there may be 200,000."""
        length, at = struct.Struct("<Q").unpack_from, self._at
        try:
            for _ in range(count):
                at += 8 + length(self._view, at)[0]
        except struct.error:
            pass  # behind the end, as the skip will find
        self._skip(max(at, self._at + 8 * count) - self._at)

    def _tensor(self) -> int:
        self._string()
        dimensions = self._number("<I")
        if dimensions > 8:
            raise BadIndex(f"a tensor of {dimensions} dimensions")
        self._skip(8 * dimensions + 4)
        return self._number("<Q")

    def _string(self, limit: int = _NAME) -> bytes:
        size = self._number("<Q")
        if size > limit:
            raise BadIndex(f"a string of {size} bytes")
        start = self._at
        self._skip(size)
        return bytes(self._view[start : self._at])

    def _number(self, form: str) -> int:
        start = self._at
        self._skip(struct.calcsize(form))
        (number,) = struct.unpack_from(form, self._view, start)
        return int(number)

    def _skip(self, count: int) -> None:
        if self._at + count > LARGEST:
            raise BadIndex("an index without an end")
        self._at += count
        if self._at > len(self._view):
            raise _Short(self._at)
