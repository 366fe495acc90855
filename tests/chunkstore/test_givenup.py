"""Who is given the same answer again."""

from __future__ import annotations

from chunkstore import Unreachable
from chunkstore.givenup import SOON, GivenUp
from chunkstore.wanted import Key


def key(index: int) -> Key:
    return "blob", index, b"", 0, 0


GONE = Unreachable("nothing came")


def test_who_asks_at_once_for_a_part_of_it_gets_the_same_answer() -> None:
    given_up = GivenUp()
    given_up.note([key(1), key(2)], GONE, 10.0)
    assert given_up.find([key(2)], 10.0 + SOON / 2) is GONE
    assert given_up.find([key(3)], 10.0 + SOON / 2) is None


def test_who_asks_later_gets_a_new_try() -> None:
    given_up = GivenUp()
    given_up.note([key(1)], GONE, 10.0)
    given_up.note([key(2)], GONE, 11.0)
    assert given_up.find([key(1)], 11.1) is None
    assert given_up.find([key(2)], 11.1) is GONE


def test_while_nothing_comes_the_next_reader_does_not_find_out_anew() -> None:
    given_up = GivenUp()
    assert given_up.patience(30.0, 5.0, 0.0) == 30.0
    given_up.note([key(1)], GONE, 40.0)
    assert given_up.patience(30.0, 39.0, 10.0) == 30.0, "it came before"
    assert given_up.patience(30.0, 40.1, 10.0) == 3.0
    assert given_up.patience(30.0, 41.0, 40.5) == 30.0, "something has come since"
    assert given_up.patience(30.0, 70.0, 10.0) == 30.0, "that was long ago"
