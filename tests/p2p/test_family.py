from __future__ import annotations

import pytest

from fixtures.swarmhosts import TASK, Hosts
from p2p import messages, runs
from p2p.scheduling.evaluator import DEFAULT, V2_1, Limits
from p2p.scheduling.scheduler import Settings


def test_everybody_gets_four_parents_and_about_as_many_children() -> None:
    swarm = Hosts()
    hosts = [swarm.add(n) for n in range(1, 31)]
    for host in hosts:
        swarm.join(host, bulk=True)
    swarm.wait(0.3)
    assert all(len(host.parents) == 4 for host in hosts)
    counts = [swarm.scheduler.hosts[host.id].children for host in hosts]
    assert max(counts) <= 6
    assert min(counts) >= 2


def test_who_was_given_up_by_many_gets_children_of_those_who_have_most() -> None:
    swarm = Hosts()
    hosts = [swarm.add(n) for n in range(1, 11)]
    for host in hosts:
        swarm.join(host, bulk=True)
    late = hosts[3]
    for host in hosts:
        if late.id in host.parents:
            swarm.tell(host, messages.Need(1, [late.id]))
    assert swarm.scheduler.hosts[late.id].children == 0
    swarm.wait(1.0)
    counts = [swarm.scheduler.hosts[host.id].children for host in hosts]
    assert min(counts) >= 3
    assert max(counts) <= 5
    assert all(len(host.parents) == 4 for host in hosts)


def test_one_that_has_much_is_not_the_parent_of_all_that_lack_it() -> None:
    swarm = Hosts(pieces=64)
    rich = swarm.add(1)
    swarm.join(rich, have=runs.full(32))
    for number in range(2, 42):
        swarm.join(swarm.add(number), bulk=True)
    swarm.wait(0.3)
    children = swarm.scheduler.hosts[rich.id].children
    assert 6 <= children <= 10


def test_a_seed_is_nobodys_parent_while_a_piece_is_on_its_way_from_it() -> None:
    swarm = Hosts(pieces=4)
    seed = swarm.add(100, "seed")
    hosts = [swarm.add(n) for n in range(1, 4)]
    for host in hosts:
        swarm.join(host, bulk=True)
    for host in hosts:
        swarm.tell(host, messages.Need(1))
    assert all(seed.id not in host.parents for host in hosts)
    while any(host.grants for host in hosts):
        for host in hosts:
            swarm.held(host, runs.of(host.grants))
    for host in hosts[1:]:
        swarm.tell(host, messages.Need(1))
    assert all(seed.id in host.parents for host in hosts[1:])


@pytest.mark.parametrize("load", [1, 3])
def test_no_host_has_more_children_than_its_limit(load: int) -> None:
    swarm = Hosts(settings=Settings(limits=Limits(peer_load=load)))
    hosts = [swarm.add(n) for n in range(1, 21)]
    for host in hosts:
        swarm.join(host, bulk=True)
    swarm.wait(1.0)
    assert all(swarm.scheduler.hosts[host.id].children <= load for host in hosts)


def test_a_dead_parent_is_replaced_at_once() -> None:
    swarm = Hosts()
    hosts = [swarm.add(n) for n in range(1, 9)]
    for host in hosts:
        swarm.join(host, bulk=True)
    child = hosts[0]
    dead = swarm.hosts[child.parents[0]]
    swarm.gone(dead)
    assert dead.id not in child.parents
    assert len(child.parents) == 4


def test_the_older_formula_can_be_had() -> None:
    swarm = Hosts(settings=Settings(evaluator=V2_1))
    full, empty, child = swarm.add(1), swarm.add(2), swarm.add(3)
    swarm.join(full, have=0xFFFF)
    swarm.join(empty)
    swarm.join(child)
    task = swarm.scheduler.tasks[TASK, ""]
    part = task.by_host
    for formula, much_counts in ((V2_1, True), (DEFAULT, False)):
        scores = [
            formula.scores(part[child.id], Limits())(swarm.scheduler.hosts[each.id], part[each.id])
            for each in (full, empty)
        ]
        assert (scores[0] > scores[1]) is much_counts  # the empty one has one child less
