from __future__ import annotations

from p2p.scheduling.isolation import FORGIVEN_AFTER, PROBATION_FIRST, TRIAL, Isolation

A, B, C, D = (bytes([n]) * 16 for n in range(1, 5))


def test_one_liar_bans_nobody_and_two_witnesses_do() -> None:
    isolation = Isolation()
    assert isolation.corrupt(A, B, 0.0) is None
    assert isolation.corrupt(A, B, 1.0) is None
    sentence = isolation.corrupt(A, C, 2.0)
    assert sentence is not None
    assert (sentence.reason, sentence.until) == ("corrupt", 2.0 + PROBATION_FIRST)


def test_a_child_that_accuses_everybody_alone_is_not_listened_to() -> None:
    isolation = Isolation()
    for number in range(10, 14):
        isolation.corrupt(bytes([number]) * 16, B, 0.0)
    assert isolation.corrupt(A, B, 1.0) is None
    assert isolation.corrupt(A, C, 1.0) is None
    assert isolation.corrupt(A, D, 1.0) is not None


def test_probation_doubles_ends_and_is_forgotten() -> None:
    isolation = Isolation()
    now = 0.0
    lengths = []
    for _ in range(3):
        isolation.corrupt(A, B, now)
        sentence = isolation.corrupt(A, C, now)
        assert sentence is not None
        lengths.append(sentence.until - now)
        now = sentence.until
        assert isolation.ended(now) == [A]
    assert lengths == [PROBATION_FIRST, 2 * PROBATION_FIRST, 4 * PROBATION_FIRST]
    now += FORGIVEN_AFTER + 1
    isolation.corrupt(A, B, now)
    again = isolation.corrupt(A, C, now)
    assert again is not None
    assert again.until - now == PROBATION_FIRST


def test_slow_is_what_two_children_find_slow_within_a_minute() -> None:
    isolation = Isolation()
    for child, timeouts, when in ((B, 5, 0.0), (C, 2, 1.0), (C, 2, 90.0), (B, 3, 91.0)):
        isolation.late(A, child, timeouts, when)
        assert isolation.due() == float("inf")
    isolation.late(A, C, 2, 92.0)
    assert isolation.due() == 92.0 + TRIAL
    assert isolation.judged(10, 92.5) == []
    ((parent, sentence),) = isolation.judged(10, 92.0 + TRIAL)
    assert (parent, sentence.reason) == (A, "slow")


def test_who_serves_again_before_the_sentence_is_not_slow() -> None:
    isolation = Isolation()
    for child in (B, C):
        isolation.late(A, child, 3, 0.0)
    isolation.served(A, B)
    assert isolation.judged(10, TRIAL) == []
    assert isolation.due() == float("inf")


def test_hollow_is_what_two_children_find_hollow() -> None:
    isolation = Isolation()
    isolation.hollow(A, B, 0.0)
    isolation.hollow(A, B, 1.0)
    assert isolation.due() == float("inf")
    isolation.hollow(A, C, 2.0)
    ((parent, sentence),) = isolation.judged(10, 2.0 + TRIAL)
    assert (parent, sentence.reason) == (A, "hollow")


def test_who_finds_all_its_parents_hollow_asks_for_what_is_not_there() -> None:
    isolation = Isolation()
    for parent in (A, D, bytes([9]) * 16):
        for child in (B, C):
            isolation.hollow(parent, child, 0.0)
    assert isolation.judged(10, TRIAL) == []


def test_where_many_accuse_many_at_once_the_network_is_to_blame() -> None:
    hosts = [bytes([number]) * 16 for number in range(20)]
    isolation = Isolation()
    for place, parent in enumerate(hosts[:10]):
        for child in (hosts[10 + place], hosts[10 + (place + 1) % 10]):
            isolation.late(parent, child, 3, 0.1 * place)
    assert isolation.judged(20, 2.0) == []
    for child in hosts[10:]:
        isolation.late(hosts[0], child, 3, 60.0)
    assert [parent for parent, _ in isolation.judged(20, 60.0 + TRIAL)] == [hosts[0]]


def test_one_child_that_accuses_everybody_protects_nobody() -> None:
    hosts = [bytes([number]) * 16 for number in range(20)]
    isolation = Isolation()
    for parent in hosts[1:]:
        isolation.late(parent, hosts[0], 3, 0.0)
    isolation.late(hosts[1], hosts[2], 3, 0.0)
    assert [parent for parent, _ in isolation.judged(20, TRIAL)] == [hosts[1]]
