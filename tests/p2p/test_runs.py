from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkstore.errors import Malformed
from p2p import runs

sets = st.sets(st.integers(0, 300)) | st.sets(st.integers(0, 1 << 14), min_size=40)


@given(sets)
def test_a_set_comes_back_from_its_runs(pieces: set[int]) -> None:
    bits = runs.of(pieces)
    flat = runs.encode(bits)
    assert runs.decode(flat, (1 << 14) + 1) == bits
    assert list(runs.numbers(bits)) == sorted(pieces)
    assert [n for a, b in zip(flat[::2], flat[1::2], strict=True) for n in range(a, b)] == sorted(
        pieces
    )


@given(sets, st.integers(2, 9))
def test_parts_are_short_and_add_up(pieces: set[int], most: int) -> None:
    bits = runs.of(pieces)
    lists = list(runs.parts(bits, most))
    assert all(len(part) <= most and len(part) % 2 == 0 for part in lists)
    total = 0
    for part in lists:
        total |= runs.decode(part, 1 << 15)
    assert total == bits


@given(sets, st.integers(0, 400))
def test_the_lowest_are_the_lowest(pieces: set[int], count: int) -> None:
    bits = runs.of(pieces)
    assert list(runs.numbers(runs.lowest(bits, count))) == sorted(pieces)[:count]
    assert runs.first(bits) == min(pieces, default=-1)


@pytest.mark.parametrize(
    "flat",
    [[1], [1, 1], [2, 1], [0, 2, 2, 3], [0, 3, 2, 4], [-1, 2], [0, 11], [5, 6, 1, 2]],
)
def test_what_is_no_runs_is_refused(flat: list[int]) -> None:
    with pytest.raises(Malformed):
        runs.decode(flat, 10)


def test_no_runs_are_the_empty_set() -> None:
    assert runs.decode([], 0) == 0
    assert runs.encode(0) == []
    assert list(runs.parts(0)) == [[]]
    assert runs.full(3) == 0b111


def test_many_runs_of_a_large_task_are_cheap() -> None:
    flat = list(range(1 << 16))
    spread = [n * 200 for n in flat]
    bits = runs.decode(spread, 1 << 24)
    assert bits.bit_count() == 200 * len(spread) // 2
    assert runs.encode(bits) == spread
