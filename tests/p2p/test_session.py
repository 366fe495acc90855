from __future__ import annotations

import pytest
import trio
from trio.testing import (
    MockClock,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from chunkstore import Buffer
from fixtures.swarmnet import Listener, hello
from p2p import wire
from p2p.errors import Gone, Nonsense
from p2p.line import StreamLine
from p2p.messages import Busy, Complaint, Goodbye, Hello
from p2p.security import ANYBODY
from p2p.session import COPIED, DEAD, GREETING, MOST_WAITING, QUIET, STUCK, Deaf, Session, greeted
from p2p.wire import MAGIC, Kind

Streams = tuple[trio.abc.Stream, trio.abc.Stream]


async def greet_both(streams: Streams) -> tuple[Session, Session]:
    """Return the dialler's and the acceptor's session."""
    sessions: dict[bool, Session] = {}

    async def greet(stream: trio.abc.Stream, dialled: bool) -> None:
        name = b"dialler" if dialled else b"acceptor"
        sessions[dialled] = await greeted(StreamLine(stream), ANYBODY, hello(name), dialled=dialled)

    async with trio.open_nursery() as nursery:
        for dialled in (True, False):
            nursery.start_soon(greet, streams[not dialled], dialled)
    return sessions[True], sessions[False]


async def test_both_sides_know_who_they_talk_to(autojump_clock: MockClock) -> None:
    dialler, acceptor = await greet_both(memory_stream_pair())
    assert dialler.hello.host.startswith(b"acceptor")
    assert acceptor.hello.host.startswith(b"dialler")


async def test_what_comes_behind_hello_is_not_lost(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(MAGIC + wire.frame(hello(b"quick")) + wire.frame(Busy(1.0), 7))
    session = await greeted(StreamLine(theirs), ANYBODY, hello(b"me"), dialled=False)
    listener = Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run, listener)
        await listener.until(lambda: listener.heard_of)
        session.end()
    assert listener.heard_of == [(Kind.BUSY, 7, Busy(1.0))]


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        (b"GET / HTTP/1.1\r\n", Nonsense, "does not speak"),
        (MAGIC + wire.bare(Kind.PING), Nonsense, "PING before HELLO"),
        (MAGIC + wire.frame(Hello(7, 9, bytes(16), "peer")), Nonsense, "versions 7 to 9"),
        (MAGIC + wire.frame(Goodbye("later", "no room")), Gone, "goodbye: later no room"),
        (MAGIC[:4], Gone, "no HELLO within"),
        (b"", Gone, "no HELLO within"),
    ],
)
async def test_who_does_not_greet_is_not_talked_to(
    said: bytes, error: type[Exception], match: str, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(said)
    with pytest.raises(error, match=match):
        await greeted(StreamLine(theirs), ANYBODY, hello(b"me"), dialled=False)
    assert trio.current_time() <= GREETING


async def test_an_unknown_version_is_told_goodbye(autojump_clock: MockClock) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(MAGIC + wire.frame(Hello(7, 9, bytes(16), "peer")))
    with pytest.raises(Nonsense):
        await greeted(StreamLine(theirs), ANYBODY, hello(b"me"), dialled=False)
    heard = bytes(await ours.receive_some())
    assert wire.Header.decode(heard[-len(heard) :][:16]).kind in (Kind.HELLO, Kind.GOODBYE)
    assert b"versions 7 to 9" in heard


class Talk:
    """Two sessions that run, and what each hears."""

    def __init__(self, sessions: tuple[Session, Session]) -> None:
        self.one, self.other = sessions
        self.heard, self.heard_there = Listener(), Listener()


async def talking(nursery: trio.Nursery, streams: Streams | None = None) -> Talk:
    talk = Talk(await greet_both(streams or memory_stream_pair()))
    nursery.start_soon(talk.one.run, talk.heard)
    nursery.start_soon(talk.other.run, talk.heard_there)
    return talk


async def test_frames_come_in_the_order_in_which_they_were_posted(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    talk = await talking(nursery)
    for number in range(100):
        talk.one.tell(Complaint(0, number))
    await talk.heard_there.until(lambda: len(talk.heard_there.heard_of) == 100)
    assert talk.heard_there.bodies(Kind.COMPLAINT) == [Complaint(0, n) for n in range(100)]


async def test_what_is_posted_goes_out_before_a_piece_and_by_itself(
    autojump_clock: MockClock,
) -> None:
    dialler, acceptor = await greet_both(memory_stream_pair())
    listener = Listener()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acceptor.run, listener)
        nursery.start_soon(dialler.run, Listener())
        await wait_all_tasks_blocked()
        await dialler.send(wire.piece_header(3, 4), b"abc")
        dialler.tell(Busy(1.0), 5)
        await dialler.send(wire.piece_header(3, 6), b"def")
        dialler.tell(Busy(2.0), 7)
        await listener.until(lambda: len(listener.heard_of) == 2)
        dialler.end()
        acceptor.end()
    assert listener.heard_of == [(Kind.BUSY, 5, Busy(1.0)), (Kind.BUSY, 7, Busy(2.0))]
    assert listener.pieces == {4: b"abc", 6: b"def"}


async def test_a_piece_is_not_cut_by_what_is_posted_meanwhile(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    talk = await talking(nursery, lockstep_stream_pair())
    data = bytes(range(256)) * 4096
    nursery.start_soon(talk.one.send, wire.piece_header(len(data), 5), data)
    await trio.testing.wait_all_tasks_blocked()
    talk.one.tell(Busy(1.0), 6)
    await talk.heard_there.until(lambda: talk.heard_there.heard_of)
    assert talk.heard_there.pieces == {5: data}


async def test_silence_is_asked_after_and_answered(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    talk = await talking(nursery)
    await trio.sleep(20 * QUIET)
    assert not talk.one.ended.is_set()


async def test_a_session_without_a_frame_ends(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(MAGIC + wire.frame(hello(b"mute")))
    session = await greeted(StreamLine(theirs), ANYBODY, hello(b"me"), dialled=False)
    await session.run(Astonished())
    assert DEAD <= trio.current_time() <= DEAD + 6
    assert session.reason == "nothing came for 30 s"


class Astonished(Deaf):
    def heard(self, header: wire.Header, body: object) -> None:
        raise AssertionError


async def test_who_does_not_read_our_hello_is_not_waited_for(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ours, theirs = lockstep_stream_pair()

    async def mute() -> None:
        await ours.send_all(MAGIC + wire.frame(hello(b"mute")))
        await ours.receive_some(16)
        while True:  # it talks, and never reads
            await trio.sleep(1)
            await ours.send_all(wire.bare(Kind.PONG))

    async with trio.open_nursery() as inner:
        inner.start_soon(mute)
        with pytest.raises(Gone, match="no HELLO within"):
            await greeted(StreamLine(theirs), ANYBODY, hello(b"me"), dialled=False)
        inner.cancel_scope.cancel()


async def test_a_send_that_stands_still_ends_the_session(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ours, theirs = lockstep_stream_pair()
    sessions = await greet_both((ours, theirs))

    async def talk_on() -> None:
        while True:
            await trio.sleep(1)
            await theirs.send_all(wire.bare(Kind.PONG))

    async with trio.open_nursery() as inner:
        inner.start_soon(talk_on)
        session = sessions[0]
        session.tell(Busy(1.0))
        since = trio.current_time()
        await session.run(Astonished())
        assert STUCK <= trio.current_time() - since <= STUCK + 6
        assert session.reason == "it took nothing for 30 s"
        inner.cancel_scope.cancel()


async def test_what_waits_to_be_sent_is_bounded(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    session, _ = await greet_both(lockstep_stream_pair())
    frame = wire.state(bytes(1 << 20))

    async def flood() -> None:
        for _ in range(MOST_WAITING // len(frame) + 2):
            session.post(frame)

    async with trio.open_nursery() as inner:
        inner.start_soon(flood)
        await session.run(Astonished())
    assert session.reason == "it does not read what it is sent"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (wire.frame(hello(b"again")), "a second HELLO"),
        (wire.piece_header(1, 5) + b"x", "PIECE that nobody asked for"),
        (bytes(4) + bytes([99]) + bytes(11), "unknown type 99"),
        (wire.frame(Goodbye("enough")), "it said goodbye: enough"),
        (wire.bare(Kind.PONG)[:7], "in the middle of a frame"),
        (b"", "it hung up"),
    ],
)
async def test_a_session_ends_with_a_reason(
    said: bytes, reason: str, autojump_clock: MockClock
) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(MAGIC + wire.frame(hello(b"odd")) + said)
    session = await greeted(StreamLine(theirs), ANYBODY, hello(b"me"), dialled=False)
    await ours.send_eof()
    await session.run(Astonished())
    assert reason in session.reason


class Passing(StreamLine):
    """A line that tells what it was given at once."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self.sends: list[int] = []

    async def send(self, data: Buffer, *, more: bool = False) -> None:
        self.sends.append(len(data))
        await super().send(data, more=more)


class Piece:
    """A passage of zeros."""

    def __init__(self, size: int) -> None:
        self.size = size

    def pass_on(self, out: int, done: int, size: int) -> int:
        raise AssertionError("there is no socket")

    def copy(self, done: int, size: int) -> bytes:
        return bytes(size)


@pytest.mark.parametrize(("size", "sends"), [(COPIED, 1), (COPIED + 1, 2)])
async def test_a_small_piece_leaves_with_its_header(
    size: int, sends: int, autojump_clock: MockClock
) -> None:
    ours, _ = memory_stream_pair()
    line = Passing(ours)
    session = Session(line, ANYBODY, hello(b"child"))
    session.post(wire.bare(Kind.PONG))
    await session.send(wire.piece_header(size, 1), Piece(size))
    assert len(line.sends) == sends
    assert sum(line.sends) == 2 * wire.HEADER_SIZE + size
