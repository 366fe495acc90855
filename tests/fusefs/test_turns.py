"""Who reads the kernel's requests next, and that others have their turn."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio
import trio.testing

from fusefs.turns import LINGER, PATIENCE, PREEMPTED, TRIED_EVERY, TURN, Readiness, Turn


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A handle that is read, and the one that is written to."""
    ours, its = socket.socketpair()
    with ours, its:
        yield ours, its


async def test_who_gives_a_turn_back_may_take_it_again_at_once() -> None:
    turn, taken = Turn(), []

    async def read(name: str, times: int) -> None:
        for _ in range(times):
            async with turn:
                taken.append(name)

    async with trio.open_nursery() as nursery:
        async with turn:
            nursery.start_soon(read, "other", 1)
            await trio.testing.wait_all_tasks_blocked()
        await read("one", 3)
    assert taken == ["one", "one", "one", "other"]


async def test_who_waits_is_woken_when_the_one_before_is_busy() -> None:
    turn = Turn()
    taken = trio.Event()

    async def read() -> None:
        async with turn:
            taken.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        async with turn:
            for _ in range(3):
                nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            await taken.wait()
        nursery.cancel_scope.cancel()


async def test_one_that_gave_up_waiting_costs_the_others_nothing() -> None:
    turn = Turn()

    async def wait(scope: trio.CancelScope) -> None:
        with scope:
            async with turn:
                pass

    async with trio.open_nursery() as nursery:
        scopes = [trio.CancelScope() for _ in range(3)]
        async with turn:
            for scope in scopes:
                nursery.start_soon(wait, scope)
            await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()
            await trio.testing.wait_all_tasks_blocked()
        scopes[1].cancel()
        await trio.testing.wait_all_tasks_blocked()
    async with turn:
        pass
    assert not scopes[2].cancelled_caught


async def test_requests_that_are_there_are_taken_without_giving_up_the_turn(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, its = ends
    its.send(b"request")
    readiness = Readiness(clock=lambda: 0.0)
    await readiness.wait(ours.fileno())
    ran: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note, ran)
        for _ in range(1000):
            await readiness.wait(ours.fileno())
        assert not ran


async def test_others_have_their_turn_however_many_requests_there_are(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, its = ends
    its.send(b"request")
    now = 0.0
    readiness = Readiness(clock=lambda: now)
    await readiness.wait(ours.fileno())
    ran: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note, ran)
        for _ in range(2):
            now += TURN
            await readiness.wait(ours.fileno())
        assert ran


async def test_a_request_that_comes_late_is_waited_for(
    ends: tuple[socket.socket, socket.socket], autojump_clock: trio.testing.MockClock
) -> None:
    ours, its = ends
    readiness = Readiness(linger=0.0, clock=lambda: 0.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(readiness.wait, ours.fileno())
        await trio.sleep(1)
        its.send(b"late")


async def test_to_look_longer_is_given_up_where_it_is_in_vain(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, its = ends
    looks = 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return looks * LINGER / 10

    async def waited() -> int:
        before = looks
        with trio.move_on_after(0.01):
            await readiness.wait(ours.fileno())
        return looks - before

    readiness = Readiness(clock=clock)
    await _hear(readiness, ours, its)
    patient = [await waited() for _ in range(PATIENCE + 2)]
    assert min(patient[:PATIENCE]) > 5
    assert patient[PATIENCE:] == [1, 1]


async def test_to_look_longer_is_left_be_where_others_want_the_processor(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    ours, its = ends
    now = 0.0
    step = LINGER / 10
    looks = 0

    def clock() -> float:
        nonlocal now, looks
        looks += 1
        now += step
        return now

    async def waited() -> int:
        before = looks
        with trio.move_on_after(0.001):
            await readiness.wait(ours.fileno())
        return looks - before

    readiness = Readiness(clock=clock)
    await _hear(readiness, ours, its)
    step = 1.2 * PREEMPTED
    assert await waited() == 2, "a step too long"
    step = TURN
    await _hear(readiness, ours, its)
    step = LINGER / 1000
    assert [await waited() for _ in range(TRIED_EVERY + 5)] == [1] * (TRIED_EVERY + 5)


async def _hear(readiness: Readiness, ours: socket.socket, its: socket.socket) -> None:
    """Wait for what is there, and take it."""
    its.send(b"something")
    await readiness.wait(ours.fileno())
    ours.recv(16)


async def _note(ran: list[bool]) -> None:
    ran.append(True)
