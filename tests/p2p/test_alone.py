from __future__ import annotations

from fixtures.choosingchild import Child, parent, pieces
from p2p import messages, runs
from p2p.choosing.chooser import READER


def test_without_a_scheduler_known_parents_come_first_then_the_origin() -> None:
    child = Child(scheduled=False)
    child.parents(0b10)
    child.chooser.want(1, READER, child.now)
    child.chooser.want(2, READER, child.now)
    assert pieces(child.step()) == [1]
    assert child.origin == [2]
    assert child.said == []


def test_a_scheduler_that_comes_back_is_told_everything() -> None:
    child = Child()
    child.chooser.holds(0b101, child.now)
    child.chooser.want(9, READER, child.now)
    child.step()
    child.chooser.unscheduled(child.now)
    child.said.clear()
    child.said += child.chooser.join(child.now)
    child.step()
    (join,) = child.heard(messages.Join)
    assert isinstance(join, messages.Join)
    assert runs.bitmap(join.have) == 0b101
    assert child.heard(messages.Want) == [messages.Want(7, [9, 10], True)]


def deputy(turn: int, turns: int) -> Child:
    child = Child(bulk=True)
    child.parents(0b1111)
    seed = messages.Parent(parent(9).host, parent(9).address, "seed")
    child.chooser.take(messages.Parents(7, [parent(1)], seed, turn, turns), child.now)
    for ask in child.step():
        child.answer(ask)
    return child


def test_a_deputy_takes_what_falls_to_it_when_the_scheduler_is_gone() -> None:
    child = deputy(2, 4)
    child.chooser.unscheduled(child.now)
    child.step(0.2)
    assert [each.host for each in child.last.connect] == []
    child.step(0.1)
    child.chooser.linked(parent(9).host, child.now)
    asks = child.step()
    assert {ask.host for ask in asks} == {parent(9).host}
    assert pieces(asks) == [6, 10]  # it has 2; of eight at once a quarter is its own
    child.chooser.have(parent(1).host, messages.Have(7, False, [14, 15]), child.now)
    assert 18 in pieces(child.answer(asks[0]))  # 14 comes from a parent
    join = child.chooser.join(child.now)[0]
    assert isinstance(join, messages.Join)
    assert join.parents == [parent(1).host]
    child.chooser.take(messages.Parents(7, [parent(1)]), child.now)
    assert [ask for ask in child.answer(asks[1]) if ask.host == parent(9).host] == []


def test_a_deputy_reads_the_origin_where_the_seed_is_gone_too() -> None:
    child = deputy(0, 4)
    child.chooser.unscheduled(child.now)
    child.step(0.3)
    child.chooser.unlinked(parent(9).host, child.now)
    child.step()
    assert child.origin == [4, 8]


def test_without_a_scheduler_and_deputies_the_origin_is_read_after_a_while() -> None:
    child = Child(bulk=True)
    child.parents(0b1111)
    for ask in child.step():
        child.answer(ask)
    child.chooser.unscheduled(child.now)
    child.step(1.9)
    assert child.origin == []
    child.step(2.2)
    assert len(child.origin) == 2


def reader(turn: int, turns: int) -> Child:
    """A lazy host that has a spare parent, 1, and knows a seed, 9, and has lost its scheduler."""
    child = Child()
    seed = messages.Parent(parent(9).host, parent(9).address, "seed")
    told = messages.Parents(7, [], seed, turn, turns, [parent(1)])
    child.chooser.take(told, child.now)
    child.step()
    assert child.last.connect == []
    child.chooser.unscheduled(child.now)
    child.step()
    child.chooser.linked(parent(1).host, child.now)
    return child


def test_a_reader_without_a_scheduler_follows_its_spare_parents() -> None:
    child = reader(0, 2)
    child.chooser.have(parent(1).host, messages.Have(7, True, [0, 8]), child.now)
    child.chooser.want(5, READER, child.now)
    assert [(ask.host, ask.piece) for ask in child.step()] == [(parent(1).host, 5)]


def test_a_reader_takes_what_falls_to_it_from_the_source_at_once_and_waits_for_the_rest() -> None:
    child = reader(0, 2)
    child.chooser.want(4, READER, child.now)
    child.chooser.want(5, READER, child.now)
    child.step()
    child.chooser.linked(parent(9).host, child.now)
    assert pieces(child.step(0.4)) == [4]
    assert pieces(child.step(0.2)) == [5]
    assert child.origin == []


def test_a_reader_of_what_another_deputy_got_takes_it_from_there() -> None:
    child = reader(0, 2)
    child.chooser.want(5, READER, child.now)
    child.step(0.3)
    child.chooser.have(parent(1).host, messages.Have(7, True, [5, 6]), child.now)
    assert [(ask.host, ask.piece) for ask in child.step(0.5)] == [(parent(1).host, 5)]


def test_a_reader_turns_to_the_origin_where_the_seed_is_gone_too() -> None:
    child = reader(0, 2)
    child.chooser.want(4, READER, child.now)
    child.step()
    child.chooser.unlinked(parent(9).host, child.now)
    child.step(0.1)
    assert child.origin == [4]


def test_spare_parents_are_none_when_there_is_a_scheduler_again() -> None:
    child = reader(0, 2)
    child.chooser.join(child.now)
    child.chooser.take(messages.Parents(7, []), child.now)
    child.step(6.0)
    assert parent(1).host in child.left
