from __future__ import annotations

from fixtures.choosingchild import MIB, PIECES, Child, parent, pieces
from p2p import messages
from p2p.choosing.chooser import AHEAD, READER, Ask


def test_a_grant_from_the_origin_is_read_and_told_at_once() -> None:
    child = Child(bulk=True)
    child.chooser.take(messages.Grant(7, [3, 5], None, 5.0), child.now)
    child.step()
    assert child.origin == [3, 4]
    child.chooser.fetched(3, child.now)
    child.step()
    assert child.heard(messages.Held) == [messages.Held(7, [3, 4])]
    child.chooser.unfetched(4, "500", child.now)
    child.step()
    assert child.heard(messages.Return) == [messages.Return(7, [4, 5], "500")]


def test_a_grant_from_a_seed_is_asked_there_when_the_session_stands() -> None:
    child = Child(bulk=True)
    child.chooser.take(messages.Grant(7, [3, 4], parent(9), 5.0), child.now)
    child.step()
    assert (child.last.connect, child.last.approach) == ([], [parent(9)])
    child.chooser.linked(parent(9).host, child.now)
    (ask,) = child.step()
    assert (ask.host, ask.piece) == (parent(9).host, 3)
    child.answer(ask)
    assert child.heard(messages.Held) == [messages.Held(7, [3, 4])]


def granted(child: Child, piece: int, lasts: float) -> list[Ask]:
    """Give a child a grant from a seed, host 9; return what it asks for."""
    child.chooser.take(messages.Grant(7, [piece, piece + 1], parent(9), lasts), child.now)
    asks = child.step()
    child.chooser.linked(parent(9).host, child.now)
    return asks + child.step()


def test_a_seed_that_reads_first_has_as_long_as_the_grant() -> None:
    child = Child(bulk=True)
    child.parents(1)
    child.answer(child.step()[0], 0.01)  # quick parents are no measure for it
    (ask,) = granted(child, 40, 5.0)
    child.step(4.9)
    assert ask.number in child.asks
    child.step(0.2)
    assert ask.number not in child.asks
    assert child.heard(messages.Return) == [messages.Return(7, [40, 41], "failed")]


def test_a_piece_that_has_begun_to_come_has_the_time_that_it_needs() -> None:
    child = Child(bulk=True)
    child.parents(1)
    child.answer(child.step()[0], 0.01)
    (ask,) = granted(child, 40, 1.0)
    child.step(0.9)
    child.chooser.began(ask.number, MIB, child.now)
    child.step(3.9)  # 1 MiB at 256 KiB/s takes 4 s
    assert ask.number in child.asks
    child.step(0.2)
    assert ask.number not in child.asks


def test_a_grant_whose_source_has_just_failed_goes_back_at_once() -> None:
    child = Child(bulk=True)
    child.parents(0)
    granted(child, 40, 1.0)
    child.step(2.1)
    assert child.heard(messages.Return) == [messages.Return(7, [40, 41], "failed")]
    assert granted(child, 41, 2.0) == []
    assert child.heard(messages.Return)[1:] == [
        messages.Return(7, [41, 42], "the source failed here a moment ago")
    ]
    child.step(9.0)  # its rest is nearly over: it can be waited for
    assert pieces(granted(child, 42, 2.0) + child.step(1.0)) == [42]


def test_a_granted_piece_comes_before_what_others_have_asked_of_the_source() -> None:
    child = Child(bulk=True)
    child.chooser.take(messages.Grant(7, [3, 4], parent(9), 5.0), child.now)
    child.chooser.linked(parent(9).host, child.now)
    (ask,) = child.step()
    assert (ask.piece, ask.priority) == (3, AHEAD)


def test_a_granted_piece_that_a_parent_has_meanwhile_is_asked_for_there() -> None:
    child = Child(bulk=True)
    child.parents(0b1000)
    child.chooser.take(messages.Grant(7, [3, 4], parent(9), 5.0), child.now)
    (ask,) = child.step()  # no session with the source stands yet
    assert (ask.host, ask.piece) == (parent(1).host, 3)
    child.answer(ask)
    assert child.heard(messages.Held) == [messages.Held(7, [3, 4])]


def test_nothing_but_granted_pieces_is_asked_of_a_seed() -> None:
    child = Child(bulk=True)
    child.chooser.take(messages.Grant(7, [3, 4], parent(9), 5.0), child.now)
    child.step()
    child.chooser.linked(parent(9).host, child.now)
    child.chooser.have(parent(9).host, messages.Have(1, True, [0, PIECES]), child.now)
    assert pieces(child.step(1.0)) == [3]


def test_a_hint_is_followed_and_told_when_held() -> None:
    child = Child()
    child.chooser.want(8, READER, child.now)
    child.step()
    child.chooser.take(messages.Hint(7, [8, 9], parent(4)), child.now)
    child.step()
    child.chooser.linked(parent(4).host, child.now)
    (ask,) = child.step()
    child.answer(ask)
    assert child.heard(messages.Held) == [messages.Held(7, [8, 9])]


def test_a_hint_that_cannot_be_reached_is_told_and_wanted_again() -> None:
    child = Child()
    child.chooser.want(8, READER, child.now)
    child.step()
    child.chooser.take(messages.Hint(7, [8, 9], parent(4)), child.now)
    child.step()
    child.chooser.unlinked(parent(4).host, child.now)
    child.step()
    assert len(child.heard(messages.Want)) == 2
    assert child.heard(messages.Need) == [messages.Need(7, [], [parent(4).host])]


def test_who_becomes_a_parent_is_to_tell_what_it_has_and_who_was_one_is_left() -> None:
    child = Child(bulk=True)
    (ask,) = granted(child, 3, 5.0)
    child.answer(ask, 0.01)
    child.chooser.take(messages.Parents(7, [parent(9)]), child.now)
    child.step()
    assert child.last.connect == [parent(9)]
    child.chooser.linked(parent(9).host, child.now)
    child.chooser.have(parent(9).host, messages.Have(2, True, [0, 6]), child.now)
    assert [ask.host for ask in child.step()] == 2 * [parent(9).host]
    for ask in list(child.asks.values()):
        child.answer(ask, 0.01)
    child.chooser.take(messages.Parents(7, []), child.now)
    for ask in list(child.asks.values()):
        child.answer(ask, 0.01)
    child.step(5.0)
    assert child.left == [parent(9).host]
