from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from fusefs.prefetch import FILES, FIRST_WINDOW, LAST_WINDOW, Streams

MIB = 1 << 20
SIZE = 200 * MIB


def _asked(streams: Streams, reads: list[tuple[int, int]], node: int = 5) -> list[tuple[int, int]]:
    found = (streams.read(node, start, stop, SIZE) for start, stop in reads)
    return [window for window in found if window is not None]


def test_first_read_asks_for_nothing() -> None:
    assert _asked(Streams(), [(0, MIB)]) == []


def test_window_grows_by_doubling_up_to_its_limit() -> None:
    reads = [(start, start + MIB) for start in range(0, 100 * MIB, MIB)]
    asked = _asked(Streams(), reads)
    assert asked[0] == (2 * MIB, 3 * MIB)
    sizes = [stop - start for start, stop in asked]
    assert sizes[0] == FIRST_WINDOW
    assert max(sizes) <= LAST_WINDOW
    assert sizes[-1] >= LAST_WINDOW // 2, "half a window at a time"
    assert all(before[1] == after[0] for before, after in itertools.pairwise(asked))
    assert len(asked) < len(reads) / 4, "asking is rare"


def test_random_reads_ask_for_nothing() -> None:
    draw = random.Random(1)
    starts = [draw.randrange(SIZE // (8 * MIB)) * 8 * MIB for _ in range(200)]
    distinct = list(dict.fromkeys(starts))
    assert _asked(Streams(), [(start, start + 4096) for start in distinct]) == []


def test_several_streams_of_one_file_are_told_apart() -> None:
    streams = Streams()
    bases = [0, 50 * MIB, 100 * MIB]
    asked = [
        streams.read(5, base + step, base + step + MIB, SIZE)
        for step in range(0, 8 * MIB, MIB)
        for base in bases
    ]
    for base in bases:
        mine = [window for window in asked if window and base < window[0] < base + 40 * MIB]
        assert mine
        assert mine[0] == (base + 2 * MIB, base + 3 * MIB)


def test_reads_out_of_order_stay_one_stream() -> None:
    order = [0, 2, 1, 4, 3, 5, 7, 6, 8]
    asked = _asked(Streams(), [(place * MIB, (place + 1) * MIB) for place in order])
    assert asked
    assert asked == sorted(asked)


def test_end_of_the_file_is_the_end_of_the_window() -> None:
    streams = Streams()
    streams.read(5, 0, MIB, 5 * MIB)
    last = 0
    for start in range(MIB, 5 * MIB, MIB):
        window = streams.read(5, start, start + MIB, 5 * MIB)
        last = window[1] if window else last
    assert last == 5 * MIB


def test_files_read_long_ago_are_forgotten() -> None:
    streams = Streams()
    for node in range(FILES + 1):
        streams.read(node, 0, MIB, SIZE)
    assert _asked(streams, [(MIB, 2 * MIB)], node=0) == []
    assert _asked(streams, [(MIB, 2 * MIB)], node=FILES) == [(2 * MIB, 3 * MIB)]


@given(
    st.lists(st.tuples(st.integers(0, SIZE), st.integers(1, MIB)), max_size=100),
    st.integers(1, SIZE),
)
def test_windows_lie_in_the_file_and_behind_the_read(
    reads: list[tuple[int, int]], size: int
) -> None:
    streams = Streams()
    for start, length in reads:
        window = streams.read(5, start, start + length, size)
        if window is not None:
            assert start < window[0] < window[1] <= size
            assert window[1] - window[0] <= LAST_WINDOW
