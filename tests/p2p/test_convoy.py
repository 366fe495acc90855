from __future__ import annotations

from fixtures.swarmhosts import Hosts, Told
from p2p.scheduling.convoy import AHEAD_GUESTS, LASTS_FIRST
from p2p.scheduling.resource import HANDFUL


def readers(swarm: Hosts, count: int, bits: int, urgent: bool = True) -> list[Told]:
    hosts = [swarm.add(n) for n in range(2, 2 + count)]
    for host in hosts:
        swarm.join(host)
        swarm.want(host, bits, urgent)
    return hosts


def test_a_holder_sends_a_readers_piece_to_one_at_a_time_and_that_one_to_the_next() -> None:
    swarm = Hosts()
    holder = swarm.add(1)
    swarm.join(holder, have=0b1)
    hosts = readers(swarm, 4, 0b1)
    assert [host for host in hosts if host.hints] == hosts[:1]
    swarm.held(hosts[0], 0b1)
    sent = {host.id: host.hints[0] for host in hosts if host.hints}
    assert sorted(sent.values()) == [holder.id, hosts[0].id]


def test_what_no_reader_waits_for_is_sent_to_two_at_a_time() -> None:
    swarm = Hosts()
    swarm.join(swarm.add(1), have=0b1)
    hosts = readers(swarm, 4, 0b1, urgent=False)
    assert sum(bool(host.hints) for host in hosts) == AHEAD_GUESTS


def test_a_reader_goes_before_those_who_prefetch() -> None:
    swarm = Hosts()
    swarm.join(swarm.add(1), have=0b1)
    *early, late = readers(swarm, 4, 0b1, urgent=False)
    swarm.want(late, 0b1)
    swarm.held(early[0], 0b1)
    assert 0 in late.hints


def test_of_what_a_holder_has_the_rarest_is_sent_first() -> None:
    swarm = Hosts()
    one, two = swarm.add(10), swarm.add(11)
    swarm.join(one, have=0b111)
    swarm.join(two, have=0b011)
    first, second, third = readers(swarm, 3, 0b111)
    assert {2 in host.hints for host in (first, second, third)} >= {True}
    assert sum(len(host.hints) for host in (first, second, third)) == 2


def test_who_has_least_on_its_way_is_served_first() -> None:
    swarm = Hosts()
    one, two = swarm.add(10), swarm.add(11)
    swarm.join(one, have=0b01)
    swarm.join(two, have=0b10)
    first, second = readers(swarm, 2, 0b11)
    assert (len(first.hints), len(second.hints)) == (2, 0)  # nobody else was there yet
    swarm.held(first, 0b01)
    assert len(second.hints) == 1


def test_a_holder_whose_guest_is_silent_is_free_again_after_a_while() -> None:
    swarm = Hosts()
    swarm.join(swarm.add(1), have=0b1)
    first, second = readers(swarm, 2, 0b1)
    assert first.hints
    assert not second.hints
    swarm.wait(LASTS_FIRST + 0.2)
    assert second.hints


def test_small_pieces_are_sent_for_by_the_handful_and_passed_on_one_by_one() -> None:
    swarm = Hosts(size=HANDFUL // 4)
    swarm.join(swarm.add(1), have=0b111111)
    first, second = readers(swarm, 2, 0b111111)
    assert (len(first.hints), second.hints) == (4, {})
    swarm.held(first, 0b1)
    assert second.hints == {0: first.id}


def test_small_pieces_are_granted_by_the_handful_to_who_reads() -> None:
    swarm = Hosts(size=HANDFUL // 4)
    swarm.add(9, "seed")
    first, second = (swarm.add(number) for number in (1, 2))
    swarm.join(first)
    swarm.join(second)
    swarm.want(first, 0b111111)
    swarm.want(second, 0b111111)
    assert (len(first.grants), len(second.grants)) == (4, 2)


def test_hosts_that_start_together_are_not_each_others_parents() -> None:
    swarm = Hosts(pieces=64)
    rich = swarm.add(1)
    swarm.join(rich)
    swarm.held(rich, (1 << 32) - 1)
    (young,) = readers(swarm, 1, 0)
    swarm.wait(1.0)
    assert young.parents == []
    swarm.wait(5.0)  # it starts nothing now: it was here before
    assert young.parents == [rich.id]
