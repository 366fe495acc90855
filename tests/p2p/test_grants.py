from __future__ import annotations

from fixtures.swarmhosts import Hosts, Told
from p2p import messages, rendezvous, runs
from p2p.scheduling.grants import WINDOW_LEAST, Grants
from p2p.scheduling.hints import VISITORS

A, B, C, D = (bytes([n]) * 16 for n in range(1, 5))


def _two_who_want() -> tuple[Hosts, Told, Told]:
    """Return two hosts of which each reads the same piece."""
    swarm = Hosts()
    one, two = swarm.add(1), swarm.add(2)
    swarm.join(one)
    swarm.join(two)
    swarm.want(one, 0b1)
    swarm.want(two, 0b1)
    return swarm, one, two


def test_a_piece_that_is_granted_is_waited_for_and_then_hinted() -> None:
    swarm, one, two = _two_who_want()
    assert one.grants == {0: None}
    assert (two.grants, two.waits) == ({}, 0b1)
    swarm.held(one, 0b1)
    assert two.hints == {0: one.id}


def test_a_host_alone_gets_more_at_once_and_never_more_than_16_mib() -> None:
    swarm = Hosts(pieces=64)
    one = swarm.add(1)
    swarm.join(one, bulk=True)
    assert len(one.grants) == 4
    while one.grants:
        swarm.held(one, 1 << next(iter(one.grants)))
        assert len(one.grants) <= 16
    assert one.held == runs.full(64)


def test_in_company_a_host_has_two_at_most_and_the_window_is_kept() -> None:
    swarm = Hosts(pieces=256)
    hosts = [swarm.add(n) for n in range(1, 21)]
    for host in hosts:
        swarm.join(host, bulk=True)
    # the first was alone for a moment
    assert all(len(host.grants) <= 2 for host in hosts[1:])
    assert sum(len(host.grants) for host in hosts) <= 8 + 4
    granted = [piece for host in hosts for piece in host.grants]
    assert sorted(granted) == list(range(len(granted)))


def test_grants_name_the_seed_and_several_seeds_have_shards() -> None:
    swarm = Hosts(pieces=200)
    seeds = [swarm.add(100, "seed"), swarm.add(101, "seed")]
    hosts = [swarm.add(n) for n in range(1, 31)]
    for host in hosts:
        swarm.join(host)
    for number, host in enumerate(hosts):
        swarm.want(host, 0b11 << 2 * number)
    owners = {piece: source for host in hosts for piece, source in host.grants.items()}
    shards = rendezvous.shards([seed.id for seed in seeds], 0, 200)
    assert len(owners) == 60
    assert all(source and shards[source] >> piece & 1 for piece, source in owners.items())
    assert set(owners.values()) == {seed.id for seed in seeds}


def test_a_lost_holder_loses_its_grants_at_once() -> None:
    swarm, one, two = _two_who_want()
    swarm.gone(one)
    assert two.grants == {0: None}


def test_a_grant_without_a_sign_of_life_is_given_to_another() -> None:
    swarm, _, two = _two_who_want()
    swarm.wait(4.9)
    assert two.grants == {}
    swarm.wait(0.3)
    assert two.grants == {0: None}


def test_after_a_grant_without_a_sign_of_life_those_come_first_who_were_heard_of_since() -> None:
    swarm = Hosts(pieces=64)
    hosts = [swarm.add(n) for n in range(1, 21)]
    for host in hosts:
        swarm.join(host, bulk=True)
    *silent, one, two = hosts
    lost = [piece for host in silent for piece in host.grants]
    swarm.wait(4.0)
    for host in (one, two):
        swarm.tell(host, messages.Need(1))
    swarm.wait(1.5)
    assert sorted(one.grants | two.grants) == sorted(lost)[:4]


def test_what_only_a_host_holds_that_does_not_answer_is_granted_anew() -> None:
    swarm = Hosts()
    one, two = swarm.add(1), swarm.add(2)
    swarm.join(one, have=0b1)
    swarm.join(two)
    swarm.want(two, 0b1)
    assert two.hints == {0: one.id}
    swarm.tell(two, messages.Need(1, [], [one.id]))
    swarm.want(two, 0b1)
    assert two.grants == {0: None}


def test_no_more_are_sent_to_a_holder_in_a_second_than_it_can_serve_but_for_readers() -> None:
    swarm = Hosts()
    holder = swarm.add(1)
    swarm.join(holder, have=0b1)
    others = [swarm.add(n) for n in range(2, 42)]
    for host in others:
        swarm.join(host, bulk=True)
        swarm.want(host, 0b1, urgent=False)
    assert sum(bool(host.hints) for host in others) == VISITORS
    reader = swarm.add(42)
    swarm.join(reader)
    swarm.want(reader, 0b1)
    assert reader.hints
    swarm.wait(4.0)
    assert all(host.hints for host in others)


def test_a_seed_that_fails_is_not_asked_for_that_task_for_a_while() -> None:
    swarm = Hosts()
    seed, one = swarm.add(100, "seed"), swarm.add(1)
    swarm.join(one)
    swarm.want(one, 0b1)
    assert one.grants == {0: seed.id}
    one.grants.clear()
    swarm.tell(one, messages.Return(1, [0, 1], "failed"))
    assert one.grants == {0: None}


def test_a_seed_that_one_host_got_nothing_from_is_asked_by_the_others() -> None:
    swarm = Hosts()
    seed, one, two, three = swarm.add(100, "seed"), swarm.add(1), swarm.add(2), swarm.add(3)
    for host in (one, two, three):
        swarm.join(host)
    swarm.want(one, 0b1)
    one.grants.clear()
    swarm.tell(one, messages.Return(1, [0, 1], "failed"))
    assert one.grants == {0: None}
    swarm.want(two, 0b10)
    assert two.grants == {1: seed.id}
    two.grants.clear()
    swarm.tell(two, messages.Return(1, [1, 2], "failed"))
    swarm.want(three, 0b100)
    assert (two.grants, three.grants) == ({1: None}, {2: None})


def test_what_a_host_holds_that_does_not_upload_is_no_copy() -> None:
    swarm = Hosts()
    one, two = swarm.add(1, uploads=False), swarm.add(2)
    swarm.join(one, have=0b1)
    swarm.join(two)
    swarm.want(two, 0b1)
    assert (two.hints, two.grants) == ({}, {0: None})
    assert two.parents == []


def test_the_window_grows_while_nothing_waits_and_shrinks_when_much_does() -> None:
    def window(seconds: float, times: int) -> float:
        grants = Grants()
        now = 0.0
        for piece in range(times):
            size = int(grants.window(None).size)
            for other in range(size):
                grants.give(piece * 1000 + other, A, None, now)
            now += seconds if piece else 0.1
            grants.held(A, grants.bits, now)
        return grants.window(None).size

    assert window(0.1, 400) > 25
    assert window(0.5, 50) < 8 + WINDOW_LEAST / 2
