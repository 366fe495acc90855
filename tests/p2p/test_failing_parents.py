from __future__ import annotations

import pytest

from fixtures.choosingchild import ALL, PIECES, Child, parent, pieces
from p2p import messages
from p2p.choosing.chooser import READER


def test_a_late_answer_for_a_reader_is_asked_for_elsewhere_and_the_loser_taken_back() -> None:
    child = Child()
    child.parents(ALL, 0)
    for piece in range(20):
        child.chooser.want(piece, READER, child.now)
        for ask in child.step():
            child.answer(ask, 0.02)
    child.chooser.have(parent(2).host, messages.Have(1, True, [0, PIECES]), child.now)
    child.chooser.want(30, READER, child.now)
    (first,) = child.step(0.015)
    (second,) = child.step(0.01)
    assert (first.piece, second.piece) == (30, 30)
    assert first.host != second.host
    child.answer(second)
    assert first.number not in child.asks
    assert child.chooser.held >> 30 & 1


def test_a_parent_that_stalls_is_given_up_and_reported() -> None:
    child = Child(bulk=True)
    child.parents(ALL)
    child.step(20.0)
    assert messages.Need(7, [], [parent(1).host]) in child.heard(messages.Need)
    assert any(
        isinstance(body, messages.Report) and body.timeouts for body in child.heard(messages.Report)
    )


def test_wrong_bytes_are_complained_of_and_asked_for_elsewhere() -> None:
    child = Child(bulk=False)
    child.parents(ALL, ALL)
    child.chooser.want(5, READER, child.now)
    (first,) = child.step()
    child.chooser.corrupt(first.number, child.now)
    (second,) = child.step()
    assert second.host != first.host
    assert child.complaints == [(first.host, 5)]
    (report,) = child.heard(messages.Report)
    assert isinstance(report, messages.Report)
    assert (report.parent, report.corrupt) == (first.host, 1)


def test_not_here_is_no_evidence() -> None:
    child = Child()
    child.parents(ALL, ALL)
    child.chooser.want(5, READER, child.now)
    (first,) = child.step()
    child.chooser.absent(first.number, child.now)
    (second,) = child.step()
    assert second.host != first.host
    child.answer(second)
    assert child.heard(messages.Need) == []


@pytest.mark.parametrize("withdrawn", [True, False])
def test_what_is_not_here_and_not_withdrawn_is_told(withdrawn: bool) -> None:
    child = Child()
    child.parents(ALL)
    child.chooser.want_all(True)
    (host,) = child.chooser.links
    for _ in range(2):
        for ask in child.step():
            child.chooser.absent(ask.number, child.now)
            if withdrawn:
                child.chooser.offered(host, 0, 1 << ask.piece, False, child.now)
    assert child.absent() == 0
    child.step(1.9)
    assert child.absent() == 0
    child.step(0.2)
    assert child.absent() == (0 if withdrawn else 4)


def test_a_parent_given_up_meanwhile_is_told_of_all_the_same_and_left_then() -> None:
    child = Child(bulk=True)
    child.parents(0b1111, 0)
    child.step()
    while asks := [*child.asks.values()]:
        for ask in asks:
            del child.asks[ask.number]
            child.chooser.absent(ask.number, child.now)
        child.step()
    child.chooser.take(messages.Parents(7, [parent(2)]), child.now)
    child.step(1.9)
    assert child.absent() == 0
    assert parent(1).host not in child.left
    child.step(0.2)
    assert child.absent() == 4
    assert parent(1).host in child.left


def test_a_host_that_never_answers_has_used_up_its_strikes() -> None:
    child = Child()
    child.parents(ALL)
    child.chooser.want(5, READER, child.now)
    child.step()
    child.step(2.1)
    (report,) = child.heard(messages.Report)
    assert isinstance(report, messages.Report)
    assert report.timeouts == 3


def test_a_busy_parent_is_left_alone_for_as_long_as_it_says() -> None:
    child = Child()
    child.parents(ALL)
    child.chooser.want(5, READER, child.now)
    (first,) = child.step()
    child.chooser.busy(first.number, 0.2, child.now)
    assert child.step(0.19) == []
    assert pieces(child.step(0.02)) == [5]
