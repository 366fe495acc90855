"""What of cache files is let go of after it was pushed."""

from __future__ import annotations

from fusefs.pagecache.behind import AGAIN, SLICE, SOON, TRIES, Behind

ROOMY = 1 << 40


def test_a_slice_is_let_go_of_soon_after_its_last_push() -> None:
    behind = Behind()
    behind.pushed(5, 0, SLICE, 0.0)
    behind.pushed(5, SLICE - 4096, SLICE + 4096, 1.0)
    assert behind.due(SOON, ROOMY) == []
    assert behind.due(1.0 + SOON, ROOMY) == [(5, 0), (5, 1)]
    behind.let_go((5, 0), 0, 3.0)
    assert len(behind) == 1


def test_what_stays_is_let_go_of_again_ever_later_and_not_for_ever() -> None:
    behind = Behind()
    behind.pushed(5, 0, SLICE, 0.0)
    now, waits = SOON, []
    while behind:
        assert behind.due(now, ROOMY) == [(5, 0)]
        behind.let_go((5, 0), 4096, now)
        before = now
        while behind and not behind.due(now, ROOMY):
            now += AGAIN / 4
        waits.append(now - before)
    assert waits == [AGAIN * 2**number for number in range(TRIES - 1)] + [0.0]


def test_where_memory_is_short_the_first_go_at_once() -> None:
    behind = Behind()
    for number in range(4):
        behind.pushed(5, number * SLICE, (number + 1) * SLICE, 0.0)
    assert behind.due(0.0, 3 * SLICE) == [(5, 0)]
    behind.let_go((5, 0), SLICE, 0.0)
    assert behind.due(0.0, 3 * SLICE) == [(5, 1)], "the first was told already"
    assert behind.due(0.0, 0) == [(5, 1), (5, 2), (5, 3)]


def test_what_is_pushed_again_is_let_go_of_again() -> None:
    behind = Behind()
    behind.pushed(5, 0, SLICE, 0.0)
    behind.let_go((5, 0), 4096, SOON)
    behind.pushed(5, 0, 4096, 10.0)
    assert behind.due(11.0, ROOMY) == []
    behind.let_go((6, 0), 0, 11.0)
    assert behind.due(10.0 + SOON, ROOMY) == [(5, 0)]
