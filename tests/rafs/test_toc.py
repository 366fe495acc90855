"""Bootstraps found at the end of a blob, and tables of contents that lie."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkstore import Codec, Digest
from chunkstore.digest import Algorithm
from fixtures.foreign import tar_header, with_bootstrap
from rafs import BadImage, Unsupported
from rafs.toc import contents, inline_bootstrap
from rafs.toc import tar_header as parsed_header

_BOOTSTRAP = b"bootstrap" * 10_000
_BLOB = b"chunks" * 1000


class _File:
    """A blob file that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def read(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(self.data)
        self.reads.append((start, stop))
        return self.data[start:stop]


def _found(data: bytes) -> bytes | None:
    file, out = _File(data), io.BytesIO()
    digest = inline_bootstrap(len(data), file.read, out)
    assert (digest is None) == (not out.getvalue())
    if digest is not None:
        assert digest == Digest.of(out.getvalue(), Algorithm.SHA256)
    return out.getvalue() if digest else None


@pytest.mark.parametrize(
    "data",
    [
        with_bootstrap(_BLOB, _BOOTSTRAP),
        with_bootstrap(_BLOB, _BOOTSTRAP, codec=Codec.NONE),
        with_bootstrap(_BLOB, _BOOTSTRAP, contents=False),
        with_bootstrap(b"", _BOOTSTRAP),
    ],
    ids=["zstd", "plain", "without contents", "nothing before it"],
)
def test_a_bootstrap_is_found_at_the_end_of_a_blob(data: bytes) -> None:
    assert _found(data) == _BOOTSTRAP


def test_only_the_end_is_read_to_find_it() -> None:
    file = _File(with_bootstrap(bytes(1 << 20), b"b" * 5000))
    inline_bootstrap(len(file.data), file.read, io.BytesIO())
    assert sum(stop - start for start, stop in file.reads) < 2000


def test_a_bootstrap_larger_than_a_step_is_read_in_steps() -> None:
    big = b"".join(b"%d" % number for number in range(600_000))
    for codec in (Codec.NONE, Codec.ZSTD):
        file, out = _File(with_bootstrap(_BLOB, big, codec=codec)), io.BytesIO()
        assert inline_bootstrap(len(file.data), file.read, out)
        assert out.getvalue() == big
        assert max(stop - start for start, stop in file.reads) <= 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 511,
        bytes(512),
        _BLOB,
        _BLOB + tar_header(b"image.blob", len(_BLOB)),
        _BLOB + tar_header(b"image.boot", 100)[:257] + bytes(255),
    ],
)
def test_a_blob_without_one_says_so(data: bytes) -> None:
    assert _found(data) is None
    assert contents(len(data), _File(data).read) == ()


def test_the_contents_are_listed() -> None:
    data = with_bootstrap(_BLOB, _BOOTSTRAP)
    listed = contents(len(data), _File(data).read)
    assert [(entry.name, entry.offset, entry.size) for entry in listed] == [
        ("image.blob", 0, len(_BLOB)),
        ("image.boot", len(_BLOB), len(_BOOTSTRAP)),
    ]
    assert listed[1].codec is Codec.ZSTD


def test_a_wrong_place_for_the_data_harms_nobody() -> None:
    data = bytearray(with_bootstrap(_BLOB, _BOOTSTRAP))
    struct.pack_into("<Q", data, len(data) - 512 - 256 + 56, len(data))
    assert _found(bytes(data)) == _BOOTSTRAP


_ENTRY = -512 - 128
"""Where the entry of ``image.boot`` starts, from the end."""


def _patch(place: int, layout: str, *values: object) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(layout, data, len(data) + place, *values)


_LIES = [
    (_patch(_ENTRY, "<I", 8), BadImage, "flags 0x8"),
    (_patch(_ENTRY, "<I", 4), Unsupported, "stored in LZ4"),
    (_patch(_ENTRY, "<I", 1), BadImage, "image.boot"),
    (_patch(_ENTRY + 8, "<16s", b"\xff"), BadImage, "table of contents"),
    (_patch(_ENTRY + 24, "<32s", b"other"), BadImage, "digest does not match"),
    (_patch(_ENTRY + 56, "<Q", 1 << 63), BadImage, "image.boot"),
    (_patch(_ENTRY + 56, "<Q", 0), BadImage, "not zstd"),
    (_patch(_ENTRY + 64, "<Q", 1 << 63), BadImage, "image.boot"),
    (_patch(_ENTRY + 64, "<Q", 10), BadImage, "of 90000"),
    (_patch(_ENTRY + 72, "<Q", 0), BadImage, "0 bytes"),
    (_patch(_ENTRY + 72, "<Q", 1 << 40), BadImage, "are the most"),
    (_patch(_ENTRY + 72, "<Q", 89_999), BadImage, "more than the 89999"),
    (_patch(_ENTRY + 72, "<Q", 90_001), BadImage, "90000 bytes of 90001"),
    (_patch(-512 + 124, "<12s", b"00000000100\0"), BadImage, "64 bytes are none"),
    (_patch(-512 + 124, "<12s", b"77777777777\0"), BadImage, "are none"),
]


@pytest.mark.parametrize(("change", "error", "message"), _LIES)
def test_contents_that_lie_are_one_error(
    change: Callable[[bytearray], None], error: type[BadImage], message: str
) -> None:
    data = bytearray(with_bootstrap(_BLOB, _BOOTSTRAP))
    change(data)
    with pytest.raises(error, match=message) as caught:
        _found(bytes(data))
    assert "byte" in str(caught.value)


def test_a_bootstrap_that_would_fill_the_disk_is_stopped_at_its_size() -> None:
    data = bytearray(with_bootstrap(_BLOB, bytes(64 << 20)))
    _patch(_ENTRY + 72, "<Q", 1000)(data)
    out = io.BytesIO()
    with pytest.raises(BadImage, match="more than the 1000 bytes"):
        inline_bootstrap(len(data), _File(bytes(data)).read, out)
    assert len(out.getvalue()) <= 1000


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1400), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_give_the_bootstrap_or_one_error(flips: list[tuple[int, int]]) -> None:
    data = bytearray(with_bootstrap(_BLOB, b"boot" * 300))
    for place, bit in flips:
        data[-place] ^= 1 << bit
    try:
        found = _found(bytes(data))
    except BadImage:
        return
    assert found in (None, b"boot" * 300)


@given(st.binary(max_size=1100))
def test_a_tar_header_is_known_or_not(block: bytes) -> None:
    assert parsed_header(block) is None
