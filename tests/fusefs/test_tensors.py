from __future__ import annotations

import itertools
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.weights import gguf, header, safetensors
from fusefs.pagecache.tensors import LARGEST, BadIndex, More, bounds

SHAPES = [(10, 20), (3,), (4, 5, 6)]
SIZES = [400, 6, 240]


def _starts(data: int, sizes: list[int]) -> list[int]:
    return [data + sum(sizes[:count]) for count in range(len(sizes) + 1)]


def _bounds(head: bytes, size: int) -> list[int]:
    found = bounds(head, size)
    assert not isinstance(found, More)
    return list(found)


def test_safetensors_tells_where_tensors_begin() -> None:
    model = safetensors(SHAPES)
    data = len(header(SHAPES))
    assert _bounds(model, len(model)) == _starts(data, SIZES)
    assert _bounds(model[:data], len(model)) == _starts(data, SIZES), "no data is needed"


def test_safetensors_says_how_much_of_it_is_needed() -> None:
    model = safetensors(SHAPES)
    assert bounds(model[:5], len(model)) == More(8)
    assert bounds(model[:9], len(model)) == More(len(header(SHAPES)))


def test_gguf_tells_where_tensors_begin() -> None:
    model = gguf(SIZES, words=["a", "bc", "d" * 300])
    found = _bounds(model, len(model))
    assert len(found) == 4
    assert found[0] % 32 == 0
    assert [b - a for a, b in itertools.pairwise(found)] == [416, 32, 240]
    assert found[-1] == len(model)


def test_gguf_alignment_is_what_it_says() -> None:
    model = gguf(SIZES, alignment=256)
    assert [at % 256 for at in _bounds(model, len(model))[:3]] == [0, 0, 0]


def test_gguf_is_asked_for_more_until_it_ends() -> None:
    model = gguf(SIZES, words=[str(number) for number in range(5000)])
    have, rounds = 64, 0
    while isinstance(found := bounds(model[:have], len(model)), More):
        assert found.size > have
        have, rounds = found.size, rounds + 1
    assert len(found) == 4
    assert rounds < 14


def _safetensors_of(document: object) -> bytes:
    text = json.dumps(document).encode()
    return struct.pack("<Q", len(text)) + text


HOSTILE = {
    "a header beyond the file": struct.pack("<Q", 1 << 40) + b"{",
    "a huge header": struct.pack("<Q", LARGEST + 1) + b"{",
    "no JSON": struct.pack("<Q", 4) + b"{{{{",
    "no object": _safetensors_of([1]),
    "no offsets": _safetensors_of({"a": {"dtype": "F16"}}),
    "offsets of words": _safetensors_of({"a": {"data_offsets": ["1", "2"]}}),
    "an offset before the data": _safetensors_of({"a": {"data_offsets": [-1, 2]}}),
    "an offset behind the file": _safetensors_of({"a": {"data_offsets": [1 << 62, 2]}}),
    "deep JSON": struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995,
    "a GGUF of another version": b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
    "a GGUF of too many tensors": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0),
    "a GGUF of too many pairs": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60),
    "a GGUF of a long name": b"GGUF" + struct.pack("<IQQQ", 3, 1, 0, 1 << 60),
    "a GGUF of a long array": b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 1 << 62),
    "a GGUF of an array of arrays": b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1),
    "a GGUF of an unknown type": b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77),
    "a GGUF without an end": b"GGUF" + struct.pack("<IQQ", 3, 5, 5),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_index_that_lies_is_refused(name: str) -> None:
    head = HOSTILE[name]
    with pytest.raises(BadIndex):
        bounds(head, max(len(head), 64 << 20 if "huge" in name else 0))


@given(head=st.binary(max_size=300), size=st.integers(0, 1 << 33), magic=st.booleans())
def test_any_bytes_are_bounds_or_refused(head: bytes, size: int, magic: bool) -> None:
    head = b"GGUF\3\0\0\0" + head if magic else head
    try:
        found = bounds(head, size)
    except BadIndex:
        return
    if isinstance(found, More):
        assert len(head) < found.size <= LARGEST
    else:
        assert list(found) == sorted(found)
        assert all(0 <= at <= size for at in found)


@given(sizes=st.lists(st.integers(1, 1000), max_size=30))
def test_what_is_cut_short_asks_for_more(sizes: list[int]) -> None:
    model = gguf(sizes)
    whole = bounds(model, len(model))
    assert not isinstance(whole, More)
    for length in range(0, whole[0], 7):
        found = bounds(model[:length], len(model))
        assert isinstance(found, More) or list(found) == list(whole)
