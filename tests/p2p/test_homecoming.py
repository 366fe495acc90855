from __future__ import annotations

from random import Random

from fixtures.swarmhosts import Hosts
from p2p.scheduling.scheduler import Scheduler, Settings


def test_after_a_restart_holders_are_waited_for_before_anything_is_granted() -> None:
    swarm = Hosts(settings=Settings(grace=2.0))
    swarm.scheduler = Scheduler(Settings(grace=2.0), Random(1), swarm.now)
    one, two, three = (swarm.add(n) for n in (1, 2, 3))
    swarm.join(one, have=0b10)
    swarm.join(two)
    swarm.want(two, 0b101)
    assert (two.grants, two.waits) == ({}, 0b101)
    swarm.join(three, have=0b1)
    assert two.hints == {0: three.id}
    swarm.wait(2.1)
    assert two.grants == {2: None}


def test_when_all_are_back_who_were_named_grants_are_given_at_once() -> None:
    swarm = Hosts()
    swarm.scheduler = Scheduler(Settings(), Random(1), swarm.now)
    one, two, three = hosts = [swarm.add(n) for n in (1, 2, 3)]
    for host, other in ((one, two), (two, three)):
        swarm.join(host, have=0b1, bulk=True, parents=[other.id])
        swarm.wait(0.3)
        assert [*one.grants, *two.grants] == []
    swarm.join(three, bulk=True, parents=[one.id])
    swarm.wait(0.2)
    assert all(host.grants for host in hosts)
    assert {2: three.id, 1: two.id, 3: one.id} == {
        number: host.parents[0] for number, host in enumerate(hosts, 1)
    }


def test_who_was_named_and_does_not_come_is_not_waited_for_long() -> None:
    swarm = Hosts()
    swarm.scheduler = Scheduler(Settings(), Random(1), swarm.now)
    one, two = swarm.add(1), swarm.add(2)
    swarm.join(one, have=0b1, bulk=True, parents=[bytes(16)])
    swarm.wait(0.4)
    swarm.join(two, have=0b1, bulk=True, parents=[one.id, bytes(16)])
    swarm.wait(0.4)
    assert [*one.grants, *two.grants] == []
    swarm.wait(0.3)
    assert one.grants
    assert two.grants
    assert two.parents == [one.id]


def test_another_scheduler_that_takes_over_waits_for_holders_too() -> None:
    swarm = Hosts()  # it has been there for long
    one, two = swarm.add(1), swarm.add(2)
    swarm.join(one, bulk=True, parents=[two.id])
    swarm.wait(0.3)
    assert one.grants == {}
    swarm.join(two, have=0xFF00, bulk=True, parents=[one.id])
    swarm.wait(0.3)
    assert one.grants
    assert all(piece < 8 for piece in one.grants)


def test_those_who_come_back_one_by_one_are_waited_for_no_longer_than_the_grace() -> None:
    swarm = Hosts()
    swarm.scheduler = Scheduler(Settings(grace=2.0), Random(1), swarm.now)
    for number in range(1, 8):
        swarm.join(swarm.add(number), have=0b1, bulk=True, parents=[bytes(16)])
        swarm.wait(0.3)
    assert any(host.grants for host in swarm.hosts.values())


def test_deputies_share_the_pieces_among_them() -> None:
    swarm = Hosts()
    seed = swarm.add(100, "seed")
    hosts = [swarm.add(n) for n in range(1, 13)]
    for host in hosts:
        swarm.join(host, bulk=True)
    swarm.wait(0.3)
    deputies = {host.turn: host for host in hosts if host.turns == 8}
    assert sorted(deputies) == [*range(8)]
    assert {host.source for host in deputies.values()} == {seed.id}
    swarm.gone(deputies[3])
    swarm.wait(0.3)
    assert sorted(host.turn for host in swarm.hosts.values() if host.turns) == [*range(8)]
