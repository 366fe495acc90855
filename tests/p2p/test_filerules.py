"""Who may say what of a file to a scheduler."""

from __future__ import annotations

from random import Random

import pytest

from chunkstore import Malformed
from p2p import messages
from p2p.messages import Body
from p2p.scheduling.scheduler import Scheduler, Settings

TASK = bytes(32)
PIECES = 8
FILE = messages.Description("file", "http://a/f", PIECES << 20, PIECES, validator='"a"')
GOOD = [bytes([n + 1]) * 32 for n in range(PIECES)]
FALSE = [b"\xff" * 32] * PIECES


class Core:
    """A scheduler, with all that it said to whom."""

    def __init__(self) -> None:
        self.core = Scheduler(Settings(grace=0.0), Random(1), 0.0)
        self.now = 10.0
        self.said: list[tuple[bytes, Body]] = []

    def host(self, name: str, kind: str = "peer", roles: tuple[str, ...] = ()) -> bytes:
        host = name.encode().ljust(16, b".")
        self.said += self.core.connected(host, roles or (kind,), self.now)
        self.tell(host, messages.Announce(f"{name}:1", kind))
        return host

    def tell(self, host: bytes, body: Body) -> None:
        self.said += self.core.take(host, body, self.now)

    def join(self, host: bytes, *, description: messages.Description = FILE) -> None:
        self.tell(host, messages.Join(0, TASK, description, [], True))

    def pieces(self, host: bytes) -> dict[int, bytes]:
        """Return the digests that *host* was told."""
        self.now += 1
        self.said += self.core.tick(self.now)
        return {
            piece: raw
            for to, body in self.said
            if to == host and isinstance(body, messages.Pieces)
            for piece, raw in enumerate(body.digests, body.first)
        }

    def states(self, host: bytes) -> list[tuple[int, str]]:
        return [
            (body.length, body.validator)
            for to, body in self.said
            if to == host and isinstance(body, messages.Changed)
        ]


@pytest.fixture
def core() -> Core:
    return Core()


def test_a_seed_publishes_and_a_peer_beside_it_does_not(core: Core) -> None:
    seed, liar, child = core.host("seed", "seed"), core.host("liar"), core.host("child")
    for host in (seed, liar, child):
        core.join(host)
    core.tell(liar, messages.Publish(0, 0, FALSE))
    assert core.pieces(child) == {}
    core.tell(seed, messages.Publish(0, 0, GOOD))
    assert core.pieces(child) == dict(enumerate(GOOD))


def test_a_peers_certificate_makes_no_seed(core: Core) -> None:
    liar = b"liar".ljust(16, b".")
    core.core.connected(liar, ["peer"], core.now)
    with pytest.raises(Malformed, match="its certificate does not say"):
        core.tell(liar, messages.Announce("liar:1", "seed"))


def test_the_first_digest_stays(core: Core) -> None:
    one, other, child = core.host("one"), core.host("other"), core.host("child")
    for host in (one, other, child):
        core.join(host)
    grants = [b for to, b in core.said if to == one and isinstance(b, messages.Grant)]
    piece = grants[0].pieces[0]
    core.tell(one, messages.Publish(0, piece, [GOOD[piece]]))
    core.tell(other, messages.Publish(0, piece, [FALSE[0]]))
    assert core.pieces(child)[piece] == GOOD[piece]


def test_nobody_publishes_what_another_host_is_reading(core: Core) -> None:
    reader, liar, child = core.host("reader"), core.host("liar"), core.host("child")
    core.join(reader)
    core.join(liar)
    core.join(child)
    theirs = core.core.tasks[TASK, '"a"'].grants.of(reader)
    assert theirs
    core.tell(liar, messages.Publish(0, 0, FALSE))
    told = core.pieces(child)
    assert not any(theirs >> piece & 1 for piece in told)


def test_without_a_seed_a_host_gives_what_it_has_read_before(core: Core) -> None:
    keeper = core.host("keeper")
    core.join(keeper)
    core.tell(keeper, messages.Publish(0, 0, GOOD))
    child = core.host("child")
    core.join(child)
    assert core.pieces(child) == dict(enumerate(GOOD))


def test_a_new_state_ends_the_old_one(core: Core) -> None:
    one, other = core.host("one"), core.host("other")
    core.join(one)
    core.join(other)
    core.tell(one, messages.Origin(0, 5, '"b"'))
    assert core.states(other) == [(5, '"b"')]


def test_a_peers_word_of_the_origin_counts_only_without_a_seed(core: Core) -> None:
    seed, liar, child = core.host("seed", "seed"), core.host("liar"), core.host("child")
    for host in (seed, liar, child):
        core.join(host)
    core.tell(liar, messages.Origin(0, 5, '"false"'))
    assert core.states(child) == []
    core.tell(seed, messages.Origin(0, 5, '"b"'))
    assert core.states(child) == [(5, '"b"')]


def test_who_does_not_reach_the_origin_is_told_its_state(core: Core) -> None:
    reader, blind = core.host("reader"), core.host("blind")
    core.join(reader)
    core.tell(reader, messages.Origin(0, FILE.size, FILE.validator))
    core.join(blind, description=messages.Description("file", "http://a/f", 0, 0))
    assert core.states(blind) == [(FILE.size, FILE.validator)]


BAD: list[tuple[str, Body]] = [
    ("digests beyond the pieces", messages.Publish(0, PIECES - 1, GOOD[:2])),
    ("no such handle", messages.Publish(7, 0, GOOD)),
]


@pytest.mark.parametrize(("said", "body"), BAD)
def test_nonsense_ends_a_session(core: Core, said: str, body: Body) -> None:
    host = core.host("host")
    core.join(host)
    with pytest.raises(Malformed, match=said):
        core.tell(host, body)


def test_digests_of_a_blobs_pieces_are_nobodys_to_publish(core: Core) -> None:
    seed = core.host("seed", "seed")
    core.join(seed, description=messages.Description("blob", "a", 8 << 20, 8))
    with pytest.raises(Malformed, match="digests of a blob's pieces"):
        core.tell(seed, messages.Publish(0, 0, GOOD))


def test_a_status_does_not_tell_the_whole_name_of_a_task(core: Core) -> None:
    core.join(core.host("host"))
    tasks = core.core.state(core.now)["tasks"]
    assert isinstance(tasks, list)
    assert len(tasks[0]["task"]) == 16
