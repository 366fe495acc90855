from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.choosingchild import ALL, MIB, PIECES, Child, parent, pieces
from fixtures.swarmhosts import TASK, description
from p2p import messages, runs
from p2p.choosing import AHEAD, READER, Ask, Chooser, Patience


def test_a_readers_piece_is_asked_for_at_once_beyond_every_window() -> None:
    child = Child(bulk=True)
    child.parents(ALL)
    child.step()
    open_before = len(child.asks)
    assert open_before == 2
    for piece in range(40, 50):
        child.chooser.want(piece, READER, child.now)
    asks = child.step()
    assert pieces([ask for ask in asks if ask.priority == READER]) == sorted(
        set(range(40, 50)) - {ask.piece for ask in child.asks.values() if ask.priority != READER}
    )


def test_bulk_has_two_open_per_parent_and_five_in_all() -> None:
    child = Child(bulk=True)
    child.parents(ALL, ALL, ALL, ALL)
    asks = child.step()
    assert len(asks) == 5
    assert len({ask.piece for ask in asks}) == 5
    assert all(sum(ask.host == other.host for other in asks) <= 2 for ask in asks)


def test_one_less_is_open_where_answers_take_long() -> None:
    child = Child(bulk=True)
    child.parents(ALL, ALL, ALL, ALL)
    first, *others = child.step()
    child.answer(first, 0.5)
    assert len(child.asks) == 4
    child.answer(others[0])
    assert len(child.asks) == 4


def test_what_one_parent_alone_has_comes_first() -> None:
    child = Child(bulk=True)
    child.parents(ALL & ~8, ALL, ALL & ~8)
    asks = child.step()
    assert 3 in pieces(asks)


def test_what_nobody_has_is_wanted_once_and_urgently() -> None:
    child = Child()
    child.parents(0)
    child.chooser.want(5, READER, child.now)
    child.step(0.3)
    assert child.heard(messages.Want) == [messages.Want(7, [5, 6], True)]
    assert child.origin == []


def test_what_few_parents_have_is_asked_of_whom_the_scheduler_names() -> None:
    child = Child()
    child.parents(1 << 5, 0, 0)
    child.chooser.want(5, READER, child.now)
    assert child.step() == []
    assert child.heard(messages.Want) == [messages.Want(7, [5, 6], True)]
    child.chooser.take(messages.Hint(7, [5, 6], parent(1)), child.now)
    assert [(ask.host, ask.piece) for ask in child.step()] == [(parent(1).host, 5)]


def test_what_few_parents_have_comes_from_them_where_the_scheduler_is_silent() -> None:
    child = Child()
    child.parents(1 << 5, 0, 0)
    child.chooser.want(5, READER, child.now)
    child.step()
    assert pieces(child.step(0.6)) == [5]


@pytest.mark.parametrize(("priority", "patience"), [(READER, 0.5), (AHEAD, 5.0)])
def test_a_silent_scheduler_is_waited_for_as_long_as_patience_goes(
    priority: int, patience: float
) -> None:
    child = Child()
    child.parents(0)
    child.chooser.want(5, priority, child.now)
    child.step(patience - 0.01)
    assert child.origin == []
    child.step(0.02)
    assert child.origin == [5]


def test_who_is_told_to_wait_waits_and_then_asks_again() -> None:
    child = Child()
    child.parents(0)
    child.chooser.want(5, READER, child.now)
    child.step()
    child.chooser.take(messages.Wait(7, [5, 6], 3.0), child.now)
    child.step(2.9)
    assert child.origin == []
    assert len(child.heard(messages.Want)) == 1
    child.step(0.2)
    assert len(child.heard(messages.Want)) == 2
    assert child.origin == []


def test_without_a_scheduler_known_parents_come_first_then_the_origin() -> None:
    child = Child(scheduled=False)
    child.parents(0b10)
    child.chooser.want(1, READER, child.now)
    child.chooser.want(2, READER, child.now)
    assert pieces(child.step()) == [1]
    assert child.origin == [2]
    assert child.said == []


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


def test_a_child_whose_parents_have_nothing_says_what_it_needs_next_and_not_all() -> None:
    child = Child(bulk=True)
    child.parents(0, 0, 0, 0)
    child.step(1.5)
    assert child.heard(messages.Want) == [messages.Want(7, [0, Patience().total], False)]


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


def test_a_far_quick_parent_has_as_many_open_as_fill_its_link() -> None:
    child = Child(bulk=True)
    child.parents(ALL)
    child.step()
    for _ in range(40):
        # 100 ms away, and all that is open comes in one go
        child.step(0.1)
        for ask in list(child.asks.values()):
            del child.asks[ask.number]
            child.chooser.arrived(ask.number, MIB, child.now)
        child.step()
    assert child.chooser.complete
    assert child.chooser.links[parent(1).host].pace.window(MIB) > 4


def test_what_is_dropped_is_withdrawn() -> None:
    child = Child()
    child.chooser.holds(0b111, child.now)
    child.step(5.0)
    child.chooser.dropped(0b010, child.now)
    child.step()
    assert child.heard(messages.Held)[-1] == messages.Held(7, [], [1, 2])


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


def test_pieces_of_a_file_wait_for_their_digests() -> None:
    chooser = Chooser(7, TASK, description(PIECES, kind="file"), Random(1))
    chooser.want_all(True)
    chooser.join(0.0)
    chooser.take(messages.Parents(7, [parent(1)]), 0.0)
    chooser.choose(0.0)
    chooser.linked(parent(1).host, 0.0)
    chooser.have(parent(1).host, messages.Have(1, True, [0, PIECES]), 0.0)
    assert chooser.choose(0.0).asks == []
    chooser.digests(0b110)
    assert pieces(chooser.choose(0.0).asks) == [1, 2]


events = st.lists(
    st.tuples(
        st.sampled_from(
            ["arrive", "absent", "busy", "corrupt", "lose", "link", "have", "want", "wait", "grant"]
        ),
        st.integers(0, 1 << 20),
    ),
    max_size=80,
)


@given(events, st.integers(0, 1000))
def test_whatever_happens_no_piece_is_asked_twice_without_reason(
    happenings: list[tuple[str, int]], seed: int
) -> None:
    child = Child(bulk=True, seed=seed)
    child.parents(ALL & 0x5555555555555555, ALL, ALL >> 20, 0)
    for what, pick in happenings:
        happen(child, what, pick)
        child.step()
        check(child)


def happen(child: Child, what: str, pick: int) -> None:
    host = parent(1 + pick % 4).host
    if what == "want":
        child.chooser.want(pick % PIECES, pick % 2, child.now)
    elif what == "wait":
        child.step(0.001 * (pick % 3000))
    elif what == "have":
        body = messages.Have(1, False, [pick % 60, pick % 60 + 3])
        child.chooser.have(host, body, child.now)
    elif what == "lose":
        child.asks = {n: ask for n, ask in child.asks.items() if ask.host != host}
        child.chooser.unlinked(host, child.now)
    elif what == "link":
        child.chooser.linked(host, child.now)
    elif what == "grant":
        child.chooser.take(messages.Grant(7, [pick % 60, pick % 60 + 1], None, 5.0), child.now)
    else:
        hear(child, what, pick)


def hear(child: Child, what: str, pick: int) -> None:
    """Let one of the open requests be answered."""
    asks = list(child.asks.values())
    if not asks:
        return
    ask = asks[pick % len(asks)]
    del child.asks[ask.number]
    if what == "arrive":
        child.chooser.arrived(ask.number, MIB, child.now)
    elif what == "busy":
        child.chooser.busy(ask.number, 0.1, child.now)
    elif what == "absent":
        child.chooser.absent(ask.number, child.now)
    else:
        child.chooser.corrupt(ask.number, child.now)


def check(child: Child) -> None:
    open_now: dict[int, list[Ask]] = {}
    for ask in child.asks.values():
        open_now.setdefault(ask.piece, []).append(ask)
        assert not child.chooser.held >> ask.piece & 1
    for twice in open_now.values():
        assert len(twice) <= 2
        assert len({ask.host for ask in twice}) == len(twice)
    per_host: dict[bytes, int] = {}
    for ask in child.asks.values():
        if ask.priority != READER:
            per_host[ask.host] = per_host.get(ask.host, 0) + 1
    assert all(count <= 32 for count in per_host.values())
