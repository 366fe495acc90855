"""How many bytes a wire waits for."""

from __future__ import annotations

import socket

import trio
from trio.testing import wait_all_tasks_blocked

from chunkstore.http.wire import Socket, mark_after


def test_what_comes_quickly_is_waited_for_in_larger_parts() -> None:
    marks = [1]
    for _ in range(8):
        marks.append(mark_after(marks[-1], 0.0001))
    assert marks[1:] == [1 << bits for bits in (14, 15, 16, 17, 18, 19, 19, 19)]


def test_what_comes_slowly_is_taken_as_it_comes() -> None:
    assert mark_after(1 << 18, 0.005) == 1 << 18
    mark = 1 << 19
    for _ in range(30):
        mark = mark_after(mark, 0.1)
    assert mark == 1


def told(wire: Socket) -> int:
    return wire._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)


async def test_no_more_is_waited_for_than_will_come() -> None:
    near, far = socket.socketpair()
    wire = Socket(near)
    wire._mark = 1 << 19
    with far:
        async with trio.open_nursery() as nursery:
            for size, certain, mark in ((30_000, True, 30_000), (30_000, False, 1), (9, True, 1)):
                got: list[int] = []

                async def receive(size: int = size, certain: bool = certain) -> None:
                    into = memoryview(bytearray(size))
                    got.append(await wire.receive_into(into, certain=certain))  # noqa: B023

                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                assert told(wire) == mark
                far.send(bytes(size))
                await wait_all_tasks_blocked(0.01)
                assert got == [size]
    wire.close()
