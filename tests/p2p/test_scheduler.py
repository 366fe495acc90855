from __future__ import annotations

from random import Random

import msgspec
import pytest

from chunkstore.errors import Malformed
from fixtures.swarmhosts import TASK, Hosts, Told, description
from p2p import messages, rendezvous, runs
from p2p.evaluator import DEFAULT, V2_1, Limits
from p2p.grants import WINDOW_LEAST, Grants
from p2p.hints import VISITORS
from p2p.isolation import PROBATION_FIRST
from p2p.messages import Announce, Description, Join, Origin, Publish
from p2p.scheduler import Scheduler, Settings

A, B, C, D = (bytes([n]) * 16 for n in range(1, 5))


def bits(body: messages.Body) -> int:
    return runs.bitmap(body.pieces)  # type: ignore[attr-defined]  # of grants, hints, waits


# Grants


def test_a_piece_that_is_granted_is_waited_for_and_then_hinted() -> None:
    swarm = Hosts()
    one, two = swarm.add(1), swarm.add(2)
    swarm.join(one)
    swarm.join(two)
    swarm.want(one, 0b1)
    swarm.want(two, 0b1)
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
    swarm = Hosts()
    one, two = swarm.add(1), swarm.add(2)
    swarm.join(one)
    swarm.join(two)
    swarm.want(one, 0b1)
    swarm.want(two, 0b1)
    swarm.gone(one)
    assert two.grants == {0: None}


def test_a_grant_without_a_sign_of_life_is_given_to_another() -> None:
    swarm = Hosts()
    one, two = swarm.add(1), swarm.add(2)
    swarm.join(one)
    swarm.join(two)
    swarm.want(one, 0b1)
    swarm.want(two, 0b1)
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
        swarm.join(host)
        swarm.want(host, 0b1, urgent=False)
    assert sum(bool(host.hints) for host in others) == VISITORS
    reader = swarm.add(42)
    swarm.join(reader)
    swarm.want(reader, 0b1)
    assert reader.hints
    swarm.wait(4.0)
    assert all(host.hints for host in others)


def test_readers_are_sent_to_a_holder_two_at_a_time_and_then_to_those_two() -> None:
    swarm = Hosts()
    holder, *readers = (swarm.add(n) for n in range(1, 7))
    swarm.join(holder, have=0b1)
    for host in readers:
        swarm.join(host)
        swarm.want(host, 0b1)
    sent = [host for host in readers if host.hints]
    assert sent == readers[:2]
    swarm.held(sent[0], 0b1)
    later = [host.hints for host in readers[2:] if host.hints]
    assert later == [{0: holder.id}, {0: readers[0].id}, {0: readers[0].id}]


def test_a_reader_that_has_waited_is_sent_to_a_holder_however_much_that_has_to_do() -> None:
    swarm = Hosts()
    holder, *readers = (swarm.add(n) for n in range(1, 5))
    swarm.join(holder, have=0b1)
    for host in readers:
        swarm.join(host)
        swarm.want(host, 0b1)
    assert not readers[2].hints
    swarm.want(readers[2], 0b1)
    assert readers[2].hints == {0: holder.id}


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


def test_what_a_host_holds_that_does_not_upload_is_no_copy() -> None:
    swarm = Hosts()
    one, two = swarm.add(1, uploads=False), swarm.add(2)
    swarm.join(one, have=0b1)
    swarm.join(two)
    swarm.want(two, 0b1)
    assert (two.hints, two.grants) == ({}, {0: None})
    assert two.parents == []


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


# Parents


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
        swarm.join(swarm.add(number))
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


# Who is set aside


def test_who_is_set_aside_loses_children_and_grants_and_comes_back() -> None:
    swarm = Hosts()
    bad, one, two = swarm.add(1), swarm.add(2), swarm.add(3)
    swarm.join(bad, have=0b1)
    swarm.join(one)
    swarm.join(two)
    for child in (one, two):
        swarm.tell(child, messages.Report(1, bad.id, corrupt=1))
    assert swarm.heard(two, messages.Aside) or swarm.heard(one, messages.Aside)
    assert bad.id not in one.parents + two.parents
    swarm.want(one, 0b1)
    assert one.hints == {}
    assert one.grants == {0: None}
    aside = swarm.scheduler.isolation.aside
    assert {host: sentence.reason for host, sentence in aside.items()} == {bad.id: "corrupt"}
    assert bad.id.hex() in str(swarm.scheduler.state(swarm.now)["aside"])
    swarm.wait(PROBATION_FIRST + 1)
    assert swarm.scheduler.state(swarm.now)["aside"] == []
    assert swarm.scheduler.hosts[bad.id].uploads


# Who may say what


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


# Files


def file_swarm(seeded: bool = False) -> tuple[Hosts, Told, Told]:
    swarm = Hosts(pieces=4)
    swarm.description = description(4, kind="file")
    if seeded:
        swarm.add(100, "seed")
    one, two = swarm.add(1), swarm.add(2)
    swarm.join(one)
    swarm.join(two)
    return swarm, one, two


def test_nobody_publishes_what_somebody_else_is_granted() -> None:
    swarm, one, two = file_swarm()
    swarm.want(one, 0b1)
    swarm.tell(two, Publish(1, 0, [bytes(32)]))
    swarm.tell(one, Publish(1, 0, [b"1" * 32]))
    swarm.wait(0.1)
    assert swarm.heard(two, messages.Pieces) == [messages.Pieces(1, 0, [b"1" * 32])]


def test_where_there_is_a_seed_no_peer_publishes() -> None:
    swarm, one, two = file_swarm(seeded=True)
    swarm.want(one, 0b1)
    swarm.tell(one, Publish(1, 0, [b"1" * 32]))
    swarm.wait(0.1)
    assert swarm.heard(two, messages.Pieces) == []


def test_a_newcomer_is_told_every_digest() -> None:
    swarm, one, _ = file_swarm()
    swarm.want(one, 0b11)
    swarm.tell(one, Publish(1, 0, [b"1" * 32, b"2" * 32]))
    late = swarm.add(3)
    swarm.join(late)
    assert swarm.heard(late, messages.Pieces) == [messages.Pieces(1, 0, [b"1" * 32, b"2" * 32])]


def test_another_state_of_the_origin_ends_the_task_for_who_has_the_old_one() -> None:
    swarm, one, two = file_swarm()
    new = msgspec.structs.replace(swarm.description, validator='"v2"')
    reader = swarm.add(3)
    swarm.tell(reader, Join(1, TASK, new, []))
    swarm.tell(reader, Origin(1, 4 << 20, '"v2"'))
    for old in (one, two):
        assert swarm.heard(old, messages.Changed) == [messages.Changed(1, 4 << 20, '"v2"')]
        swarm.tell(old, messages.Held(1, [0, 1]))
    assert swarm.heard(reader, messages.Changed) == []
    blind = swarm.add(4)
    swarm.tell(blind, Join(1, TASK, Description("file", "name", 0, 0), []))
    assert swarm.heard(blind, messages.Changed) == [messages.Changed(1, 4 << 20, '"v2"')]


# Several schedulers


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
