from __future__ import annotations

import pytest

from chunkstore.width import LARGEST, LEAST, MOST, SMALLEST, START, START_SIZE, Width

GBIT = 125e6


def _settled(rate: float, wait: float) -> Width:
    """Return the numbers after two seconds on a link."""
    width, now = Width(), 100.0
    for _ in range(200):
        now += 0.01
        width.answered(wait)
        width.landed(int(rate * 0.01), now)
    return width


@pytest.mark.parametrize(
    ("rate", "wait", "fetches", "size"),
    [
        (GBIT, 0.018, 5, 2_250_000),  # 1 Gbit/s, 10 ms
        (GBIT, 0.001, LEAST, SMALLEST),  # the same next door
        (10 * GBIT, 0.012, MOST, LARGEST),  # 10 Gbit/s, 10 ms
        (8 * GBIT, 0.001, LEAST, LARGEST),  # loopback
        (GBIT / 100, 0.9, 5, SMALLEST),
    ],
)
def test_what_is_let_out_fills_the_link(rate: float, wait: float, fetches: int, size: int) -> None:
    width = _settled(rate, wait)
    assert width.now == fetches
    assert width.size == pytest.approx(size, rel=0.3)
    assert width.now * width.size >= rate * wait


def test_before_anything_is_known_a_few_are_let_out() -> None:
    width = Width()
    assert (width.now, width.size) == (START, START_SIZE)
    width.landed(1 << 20, 5.0)
    assert width.now == START


def test_waits_in_a_queue_of_ones_own_do_not_make_it_longer() -> None:
    width, now = Width(), 0.0
    for number in range(500):
        now += 0.0084
        width.answered(0.018 if number == 0 else width.now * width.size / GBIT)
        width.landed(1 << 20, now)
    assert width.now < MOST


def test_who_asks_for_little_says_little_of_the_link() -> None:
    width, now = Width(), 100.0
    for _ in range(100):
        now += 0.0135
        width.answered(0.0125)
        width.landed(1 << 20, now, full=False)
    assert (width.now, width.size) == (START, START_SIZE)
    for _ in range(300):
        now += 0.001
        width.landed(1 << 20, now)
    assert width.now > START
    widest = width.now
    for _ in range(20):
        now += 0.0135
        width.landed(1 << 20, now, full=False)
    assert width.now == widest
