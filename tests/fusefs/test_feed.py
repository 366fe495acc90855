from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fusefs.pagecache.feed import (
    ASKED,
    DROPPED,
    FIRST_LEVEL,
    LAST_LEVEL,
    PAGE,
    PLACES,
    SETTLED,
    STEP,
    Feed,
)

SIZE = 200 * STEP - 1000


def _fed(feed: Feed, now: float = 0.0) -> list[int]:
    """Take and push until nothing more is wanted; return the steps in order."""
    steps = []
    while (step := feed.take()) is not None:
        feed.landed(step, now)
        feed.pushed()
        feed.settle(step, now)
        steps.append(step)
    return steps


def _read(feed: Feed, step: int, now: float = 0.0) -> None:
    feed.read(step * STEP, step * STEP + PAGE, now)


def test_nothing_is_brought_beyond_the_level_until_somebody_reads() -> None:
    feed = Feed(SIZE)
    assert _fed(feed) == list(range(FIRST_LEVEL // STEP))
    assert _fed(feed) == []
    _read(feed, 3)
    assert _fed(feed) == list(range(4, 12)), "twice as much"
    _read(feed, 3)
    assert len(_fed(feed)) == 8, "who stays where he is gets no more"


def test_the_level_grows_to_its_limit_and_to_what_memory_allows() -> None:
    feed = Feed(8 * LAST_LEVEL, level=LAST_LEVEL)
    assert len(_fed(feed)) == LAST_LEVEL // STEP
    _read(feed, LAST_LEVEL // STEP - 1)
    assert len(_fed(feed)) == LAST_LEVEL // STEP
    feed.limit = 3 * STEP
    _read(feed, 0)
    assert len(_fed(feed)) == 3
    feed.limit = 0
    _read(feed, 1)
    assert _fed(feed) == []


def test_few_steps_are_under_way_at_once() -> None:
    feed = Feed(SIZE, level=LAST_LEVEL)
    taken = list(iter(feed.take, None))
    assert taken == list(range(ASKED))
    feed.landed(0, 0.0)
    assert feed.take() is None, "on its way to the kernel, it still is under way"
    feed.pushed()
    assert feed.take() == ASKED


def test_a_page_is_left_out_now_and_then() -> None:
    feed = Feed(SIZE, level=LAST_LEVEL)
    whole = 0
    for step in range(150):
        assert feed.take() == step
        (pushed,) = feed.landed(step, 0.0)
        feed.pushed()
        whole += pushed == feed.span(step)
        assert pushed in (feed.span(step), (step * STEP, (step + 1) * STEP - PAGE))
    assert whole == 150 - 150 // (LAST_LEVEL // 4 // STEP)


def test_what_reads_have_asked_for_is_not_pushed_again() -> None:
    feed = Feed(SIZE)
    feed.read(STEP // 2, STEP + 100, 0.0)
    feed.read(STEP + 5000, STEP + 6000, 0.0)
    assert feed.take() == 0
    feed.read(0, PAGE, 0.0)
    assert feed.landed(0, 0.0) == [(PAGE, STEP // 2)]
    assert feed.take() == 1
    assert feed.landed(1, 0.0)[:2] == [(STEP + 100, STEP + 5000), (STEP + 6000, 2 * STEP)]


def test_distant_readers_are_followed_in_turn_up_to_the_ends_of_their_tensors() -> None:
    bounds = [20 * STEP, 24 * STEP, 100 * STEP, 103 * STEP - 5]
    feed = Feed(SIZE, level=LAST_LEVEL)
    feed.bound(bounds)
    _read(feed, 20)
    _read(feed, 100)
    order = [step for _ in range(9) if (step := feed.take()) is not None]
    assert sorted(order[:7]) == [20, 21, 22, 23, 100, 101, 102]
    assert set(order[:2]) == {20, 100}
    assert order[7:] == [103, 104], "then where the latest goes on"


def test_places_are_bounded_and_the_latest_are_kept() -> None:
    feed = Feed(SIZE, level=LAST_LEVEL)
    for step in range(0, 4 * PLACES + 4, 4):
        _read(feed, step)
    first = {feed.take() for _ in range(PLACES)}
    assert first == set(range(4, 4 * PLACES + 4, 4))


def test_what_lies_before_is_brought_last() -> None:
    feed = Feed(10 * STEP, level=LAST_LEVEL)
    _read(feed, 6)
    assert _fed(feed) == [6, 7, 8, 9, 0, 1, 2, 3, 4, 5]
    assert not feed.starves


def test_what_was_read_before_is_left_alone() -> None:
    feed = Feed(10 * STEP, level=LAST_LEVEL, begin=6 * STEP + 5)
    assert _fed(feed) == [6, 7, 8, 9]
    feed.read(STEP, 2 * STEP, 100.0)
    assert _fed(feed) == []


def test_what_is_read_directly_is_fetched_ahead_and_never_pushed() -> None:
    feed = Feed(10 * STEP, level=LAST_LEVEL, pushes=False)
    for step in range(10):
        assert feed.take() == step
        feed.read(step * STEP, step * STEP + 100, 0.0)
        assert feed.landed(step, 0.0) == []
        feed.pushed()
    feed.read(0, STEP, 100.0)
    assert feed.take() is None, "it is read again, and was dropped by nobody"


def test_a_failure_stops_it_until_somebody_reads() -> None:
    feed = Feed(SIZE)
    assert feed.take() == 0
    feed.put_back(0, failed=True)
    assert feed.take() is None
    assert not feed.starves
    _read(feed, 0)
    assert feed.take() == 0


def test_a_feed_that_was_halted_goes_on_where_it_was() -> None:
    feed = Feed(SIZE)
    assert feed.take() == 0
    feed.halt()
    assert feed.take() is None
    feed.resume()
    assert feed.take() == 1


def test_what_found_no_room_is_asked_for_again() -> None:
    feed = Feed(SIZE)
    assert feed.take() == 0
    feed.put_back(0)
    assert feed.starves
    assert feed.take() == 0


def test_what_the_kernel_has_dropped_is_brought_again() -> None:
    feed = Feed(10 * STEP, level=LAST_LEVEL)
    assert len(_fed(feed, now=0.0)) == 10
    feed.read(3 * STEP, 4 * STEP, SETTLED / 2)
    assert _fed(feed) == [], "it had been on its way"
    _read(feed, 3, 5 * SETTLED)
    assert _fed(feed) == [], "a page that was left out"
    feed.read(4 * STEP - PAGE, 4 * STEP + PAGE, 5 * SETTLED)
    assert _fed(feed) == [], "and one before it"
    feed.read(3 * STEP, 3 * STEP + DROPPED, 5 * SETTLED)
    assert _fed(feed) == [], "a few that somebody faulted for at once"
    feed.read(3 * STEP, 3 * STEP + DROPPED + PAGE, 5 * SETTLED)
    assert _fed(feed) == [3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


def test_what_is_still_on_its_way_to_the_kernel_was_not_dropped() -> None:
    feed = Feed(2 * STEP, level=LAST_LEVEL, again=True)
    assert [feed.take(), feed.take()] == [0, 1]
    for step in (0, 1):
        feed.landed(step, 0.0)
        feed.pushed()
    feed.read(0, STEP, 5 * SETTLED)
    assert feed.take() is None, "the machine is busy, and the push waits"
    feed.settle(0, 5 * SETTLED)
    feed.settle(1, 5 * SETTLED)
    feed.read(0, STEP, 5 * SETTLED)
    assert feed.take() is None
    feed.read(0, STEP, 7 * SETTLED)
    assert feed.take() == 0


@given(
    size=st.integers(1, 60 * STEP),
    bounds=st.lists(st.integers(0, 60 * STEP), max_size=20).map(sorted),
    moves=st.lists(
        st.tuples(st.sampled_from("rrtlfn"), st.integers(0, 1 << 30), st.integers(1, 2 * STEP)),
        max_size=120,
    ),
)
def test_each_step_is_under_way_once_and_in_the_end_pushed_or_read(
    size: int, bounds: list[int], moves: list[tuple[str, int, int]]
) -> None:
    feed = Feed(size, level=LAST_LEVEL)
    feed.bound(bounds)
    read: list[tuple[int, int]] = []
    pushed: list[tuple[int, int]] = []
    flying: list[int] = []

    def land(step: int) -> None:
        ranges = feed.landed(step, 0.0)
        for start, stop in ranges:
            assert feed.span(step)[0] <= start < stop <= feed.span(step)[1]
        pushed.extend(ranges)
        feed.pushed()

    for what, number, length in moves:
        if what == "r":
            start = number % size
            read.append((start, min(start + length, size)))
            feed.read(*read[-1], 0.0)
        elif what == "t" and (step := feed.take()) is not None:
            assert step not in flying
            flying.append(step)
        elif flying:
            step = flying.pop(number % len(flying))
            if what == "l":
                land(step)
            else:
                feed.put_back(step, failed=what == "f")
        assert feed.asked == len(flying) <= ASKED
    for step in flying:
        land(step)
    feed.read(0, 1, 0.0)
    read.append((0, 1))
    while (left := feed.take()) is not None:
        land(left)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(sorted(pushed))), "nothing twice"
    holes = size - sum(stop - start for start, stop in pushed)
    assert holes <= sum(stop - start for start, stop in read) + PAGE * (size // STEP + 1)
