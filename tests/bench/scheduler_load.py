"""A real scheduler process under many hosts: events per second, answer times, memory.

    python -m tests.bench.scheduler_load [--hosts 2000] [--seconds 20] [--clients 2] [--every 2]

Each host is a session of its own, held by one of a few processes; it announces itself, joins one
task, says HELD *every* so many seconds, and now and then WANT, which is answered by HINT, GRANT or
WAIT: the time until then is the answer time, with the clients' own delays in it. What it is sent to
fetch it says HELD of at once. Hosts come within five seconds; what is measured begins when all are
there. ``--every 0.1`` finds what is the most.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from random import Random

import trio

from p2p import messages, runs, wire
from p2p.control import CONTROL
from p2p.messages import Announce, Description, Hello, Join
from p2p.wire import Kind

PIECES = 1024
TASK = bytes(32)
OUTLINE = Description("blob", "load", PIECES << 20, PIECES)
ANSWERS = (Kind.HINT, Kind.GRANT, Kind.WAIT)
WANT_EVERY = 3.0
"""Seconds between two wants of a host."""
ARRIVAL = 5.0
"""Seconds in which the hosts come."""


class Light:
    """A host that is a socket and a bitmap."""

    def __init__(self, number: int, random: Random, every: float) -> None:
        self.every = every
        self.id = number.to_bytes(16, "big")
        self.random = random
        self.held = 0
        self.told = 0
        self.heard = 0
        self.took: list[float] = []
        self._asked = 0.0
        self._saying = trio.Lock()
        self._stream: trio.SocketStream

    async def run(self, port: int) -> None:
        """Connect, take part until cancelled."""
        # hosts of one machine are bounded in number: each comes from an address of its own
        number = int.from_bytes(self.id, "big")
        local = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
        plain = socket.socket()
        plain.bind((local, 0))
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(plain))
        plain.setblocking(False)
        await stream.socket.connect(("127.0.0.1", port))
        self._stream = stream
        hello = Hello(wire.OLDEST, wire.NEWEST, self.id, "peer", [CONTROL])
        await stream.send_all(wire.MAGIC + wire.frame(hello))
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            await self._talk()

    async def _say(self, body: messages.Body) -> None:
        self.told += 1
        async with self._saying:
            await self._stream.send_all(wire.frame(body))

    async def _talk(self) -> None:
        await self._say(Announce(f"127.0.0.1:{1 + self.random.randrange(60000)}", "peer"))
        await self._say(Join(1, TASK, OUTLINE, [], True))
        wants = trio.current_time() + self.random.random() * WANT_EVERY
        while True:
            await trio.sleep(self.every * (0.9 + 0.2 * self.random.random()))
            fresh = runs.of(self.random.sample(range(PIECES), 8)) & ~self.held
            if not fresh:  # it has everything: another one comes in its place
                self.held, fresh = 0, 1
                await self._say(messages.Leave(1))
                await self._say(Join(1, TASK, OUTLINE, [], True))
            self.held |= fresh
            await self._say(messages.Held(1, runs.encode(fresh)))
            if trio.current_time() >= wants and not self._asked:
                wants += WANT_EVERY
                piece = self.random.randrange(PIECES)
                if not self.held >> piece & 1:
                    self._asked = time.monotonic()
                    await self._say(messages.Want(1, [piece, piece + 1], True))

    async def _listen(self) -> None:
        buffer = bytearray()
        while data := await self._stream.receive_some(1 << 16):
            buffer += data
            while len(buffer) >= wire.HEADER_SIZE:
                header = wire.Header.decode(bytes(buffer[: wire.HEADER_SIZE]))
                if len(buffer) < wire.HEADER_SIZE + header.size:
                    break
                body = bytes(buffer[wire.HEADER_SIZE : wire.HEADER_SIZE + header.size])
                await self._heard(header, body)
                del buffer[: wire.HEADER_SIZE + header.size]

    async def _heard(self, header: wire.Header, data: bytes) -> None:
        self.heard += 1
        if header.kind is Kind.PING:
            async with self._saying:
                await self._stream.send_all(wire.bare(Kind.PONG, header.request))
            return
        if header.kind in ANSWERS and self._asked:
            self.took.append(time.monotonic() - self._asked)
            self._asked = 0.0
        if header.kind in (Kind.HINT, Kind.GRANT):
            body = wire.decode(header, data)
            assert isinstance(body, messages.Hint | messages.Grant)
            self.held |= runs.bitmap(body.pieces)
            await self._say(messages.Held(1, body.pieces))


def clients(
    numbers: range, port: int, pace: tuple[float, float], there: Queue[object], into: Queue[object]
) -> None:
    """Run hosts; tell *there* when all have come, and *into* what they saw from then on.

    *pace* is for how many seconds, and how many lie between two HELDs.
    """
    seconds, every = pace
    _many_files()

    async def main() -> list[Light]:
        hosts = [Light(number, Random(number), every) for number in numbers]
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(host.run, port)
                await trio.sleep(ARRIVAL / len(hosts))
            there.put(numbers)
            for host in hosts:
                host.told = host.heard = 0
                host.took.clear()
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()
        return hosts

    hosts = trio.run(main)
    took = [each for host in hosts for each in host.took]
    into.put((sum(host.told for host in hosts), sum(host.heard for host in hosts), took))


def _many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _memory(pid: int) -> float:
    """Return the MiB that a process has had at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _poll(what: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not what():
        if time.monotonic() > ends:
            raise SystemExit("the scheduler does not answer")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Measure, print, and write JSON to stdout's last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two HELDs")
    told = parser.parse_args()
    _many_files()
    port = _free_port()
    command = [sys.executable, "-m", "cli", "scheduler", "--listen", f"127.0.0.1:{port}"]
    with subprocess.Popen(command) as scheduler:
        try:
            _poll(lambda: _answers(port))
            into: Queue[object] = multiprocessing.get_context("spawn").Queue()
            there: Queue[object] = multiprocessing.get_context("spawn").Queue()
            share = told.hosts // told.clients
            made = [
                multiprocessing.get_context("spawn").Process(
                    daemon=True,
                    target=clients,
                    args=(
                        range(1 + n * share, 1 + n * share + share),
                        port,
                        (told.seconds, told.every),
                        there,
                        into,
                    ),
                )
                for n in range(told.clients)
            ]
            for process in made:
                process.start()
            for _ in made:
                there.get(timeout=60 + ARRIVAL * 10)
            began, busy = time.monotonic(), _cpu(scheduler.pid)
            results: list[tuple[int, int, list[float]]] = [
                into.get(timeout=told.seconds * 10 + 60)  # type: ignore[misc]
                for _ in made
            ]
            took = time.monotonic() - began
            busy = _cpu(scheduler.pid) - busy
            for process in made:
                process.join()
            memory = _memory(scheduler.pid)
        finally:
            scheduler.terminate()
    sent = sum(each[0] for each in results)
    heard = sum(each[1] for each in results)
    times = sorted(each for _, _, times in results for each in times)
    figures = {
        "hosts": told.hosts,
        "every_s": told.every,
        "messages_in": sent,
        "messages_out": heard,
        "in_per_second": sent / took,
        "cpu_share": busy / took,
        "cpu_us_per_message": busy / sent * 1e6,
        "answers": len(times),
        "answer_p50_ms": 1e3 * statistics.median(times),
        "answer_p99_ms": 1e3 * times[len(times) * 99 // 100],
        "rss_mib": memory,
    }
    for name, value in figures.items():
        print(f"{name:20} {value:.4g}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
