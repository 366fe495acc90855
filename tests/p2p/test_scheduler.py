from __future__ import annotations

import pytest

from chunkstore.errors import Malformed
from fixtures.swarmhosts import Hosts, Told
from p2p import messages, rendezvous
from p2p.messages import Announce
from p2p.scheduling.isolation import PROBATION_FIRST

A, B, C, D = (bytes([n]) * 16 for n in range(1, 5))


def test_a_seed_that_waits_for_its_origin_is_not_set_aside() -> None:
    swarm = Hosts()
    seed = swarm.add(100, "seed")
    for number in (1, 2, 3):
        host = swarm.add(number)
        swarm.join(host)
        swarm.tell(host, messages.Report(1, seed.id, timeouts=9))
    swarm.wait(5.0)
    assert swarm.scheduler.isolation.aside == {}


def test_hosts_of_one_certificate_are_one_witness() -> None:
    swarm = Hosts()
    seed, parent = swarm.add(100, "seed"), swarm.add(50)
    one, two = swarm.add(1, name="liar"), swarm.add(2, name="liar")
    three = swarm.add(3, name="honest")
    swarm.join(parent, have=0xFF00)
    for host in (one, two, three):
        swarm.join(host)
    for number, host in enumerate((one, two)):
        swarm.tell(host, messages.Report(1, parent.id, corrupt=1))
        swarm.tell(host, messages.Report(1, parent.id, timeouts=9))
        swarm.want(host, 1 << number)
        swarm.tell(host, messages.Return(1, [number, number + 1], "failed"))
    assert swarm.scheduler.isolation.aside == {}
    swarm.want(three, 0b100)
    assert three.grants == {2: seed.id}
    swarm.tell(three, messages.Report(1, parent.id, corrupt=1))
    assert list(swarm.scheduler.isolation.aside) == [parent.id]


def test_seeds_are_no_parents_any_more_when_who_had_everything_is_set_aside() -> None:
    swarm = Hosts()
    seed, liar = swarm.add(100, "seed"), swarm.add(50)
    hosts = [swarm.add(number) for number in (1, 2, 3)]
    swarm.join(liar, have=0xFFFF)
    for host in hosts:
        swarm.join(host, bulk=True)
    assert all(seed.id in host.parents for host in hosts)
    for host in hosts[:2]:
        swarm.tell(host, messages.Report(1, liar.id, corrupt=1))
    swarm.wait(0.2)
    assert all(not {seed.id, liar.id} & {*host.parents} for host in hosts)
    assert any(host.grants for host in hosts)


def test_who_is_set_aside_loses_children_and_grants_and_comes_back() -> None:
    swarm = Hosts()
    bad, one, two = swarm.add(1), swarm.add(2), swarm.add(3)
    swarm.join(bad, have=0b1)
    swarm.join(one, bulk=True)
    swarm.join(two, bulk=True)
    for child in (one, two):
        swarm.tell(child, messages.Report(1, bad.id, corrupt=1))
    assert swarm.heard(two, messages.Aside) or swarm.heard(one, messages.Aside)
    assert bad.id not in one.parents + two.parents
    reader = swarm.add(4)
    swarm.join(reader)
    swarm.want(reader, 0b1)
    assert (reader.hints, reader.grants) == ({}, {0: None})
    aside = swarm.scheduler.isolation.aside
    assert {host: sentence.reason for host, sentence in aside.items()} == {bad.id: "corrupt"}
    assert bad.id.hex() in str(swarm.scheduler.state(swarm.now)["aside"])
    swarm.wait(PROBATION_FIRST + 1)
    assert swarm.scheduler.state(swarm.now)["aside"] == []
    assert swarm.scheduler.hosts[bad.id].uploads


def refused(swarm: Hosts, host: Told, body: messages.Body) -> None:
    with pytest.raises(Malformed):
        swarm.tell(host, body)


def test_a_peers_certificate_announces_no_seed() -> None:
    swarm = Hosts()
    swarm.scheduler.connected(A, ["peer"], swarm.now)
    swarm.hosts[A] = Told(A)
    refused(swarm, swarm.hosts[A], Announce("h:1", "seed"))
    refused(swarm, swarm.hosts[A], Announce("h:1", "scheduler"))


def test_messages_that_make_no_sense_are_refused() -> None:
    swarm = Hosts()
    host = swarm.add(1)
    swarm.join(host)
    for body in (
        messages.Held(2, [0, 1]),
        messages.Held(1, [1, 0]),
        messages.Held(1, [0, 17]),
        messages.Want(1, [0]),
        messages.Publish(1, 0, [bytes(32)]),
        messages.Parents(1, []),
    ):
        refused(swarm, host, body)


def test_a_task_has_one_scheduler_and_only_its_tasks_move_when_it_dies() -> None:
    addresses = [f"10.0.0.{n}:7000" for n in range(5)]
    tasks = [bytes([n]) * 32 for n in range(200)]
    first = {task: rendezvous.schedulers(addresses, task)[0] for task in tasks}
    assert {first[task] for task in tasks} == set(addresses)
    for task in tasks:
        left = rendezvous.schedulers([each for each in addresses if each != addresses[0]], task)
        assert left[0] == first[task] or first[task] == addresses[0]


def test_who_wants_very_much_at_once_is_refused() -> None:
    swarm = Hosts(pieces=1 << 15)
    host = swarm.add(1)
    swarm.join(host)
    refused(swarm, host, messages.Want(1, [0, 1 << 15]))
