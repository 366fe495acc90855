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
