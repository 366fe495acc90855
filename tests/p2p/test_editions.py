from __future__ import annotations

import msgspec

from fixtures.swarmhosts import TASK, Hosts, Told, description
from p2p import messages
from p2p.messages import Description, Join, Origin, Publish


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
