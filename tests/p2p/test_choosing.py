from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.choosingchild import ALL, MIB, PIECES, Child, parent, pieces
from fixtures.swarmhosts import TASK, description
from p2p import messages
from p2p.choosing.chooser import AHEAD, READER, Ask, Chooser, Patience


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


def test_a_child_whose_parents_have_nothing_says_what_it_needs_next_and_not_all() -> None:
    child = Child(bulk=True)
    child.parents(0, 0, 0, 0)
    child.step(1.5)
    assert child.heard(messages.Want) == [messages.Want(7, [0, Patience().total], False)]


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


def test_a_request_is_not_given_up_while_its_host_answers_others() -> None:
    child = Child(bulk=True)
    child.parents(0b111111)
    first, second, *others = child.step()
    child.answer(first, 0.1)
    for _ in range(5):
        more = child.answer(others.pop(0), 0.5) if others else child.step(0.5)
        others += more
    assert second.number in child.asks
    child.step(5.0)
    assert second.number not in child.asks
