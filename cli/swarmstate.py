"""What a scheduler knows, for ``naiad status``; loaded by name, as others need no trio."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence

import trio

from cli.output import human, print_facts, print_json, print_table
from p2p import wire
from p2p.control import CONTROL
from p2p.errors import Gone, Nonsense
from p2p.messages import Body, Hello
from p2p.net import Tcp
from p2p.security import Role
from p2p.session import Session, greeted
from p2p.wire import Header, Kind, Request

from .setup import Safety
from .swarm import security

_PATIENCE = 10.0
"""Seconds for the answer."""

State = Mapping[str, Sequence[Mapping[str, object]]]


def show(address: str, safety: Safety, *, as_json: bool) -> None:
    """Print the state of the scheduler at *address*; raises P2pError."""
    state = trio.run(_ask, address, safety)
    if as_json:
        print_json(state)
        return
    print_facts([("scheduler", address), ("up", f"{state['up']} s"), ("events", state["events"])])
    _table("hosts", state["hosts"], ("name", "kind", "address", "state", "tasks", "children"))
    _table("tasks", state["tasks"], ("name", "size", "state", "peers", "finished", "grants"))
    _table("set aside", state["aside"], ("address", "name", "reason", "seconds", "times"))


def _table(title: str, rows: object, names: Sequence[str]) -> None:
    assert isinstance(rows, list)
    if rows:
        cells = [[_cell(name, row.get(name)) for name in names] for row in rows]
        print_table((title, *names[1:]), cells)


def _cell(name: str, value: object) -> object:
    if name == "size" and isinstance(value, int):
        return human(value)
    return value if value != "" else "-"


async def _ask(address: str, safety: Safety) -> dict[str, object]:
    hello = Hello(wire.OLDEST, wire.NEWEST, secrets.token_bytes(16), "peer", [CONTROL])
    asker = _Asker()
    async with Tcp(security(safety)).dial(address, Role.SCHEDULER) as (line, remote):
        session = await greeted(line, remote, hello, dialled=True)
        asker.session = session
        session.post(wire.bare(Kind.STATUS))
        with trio.move_on_after(_PATIENCE):
            await session.run(asker)
    if asker.state is None:
        raise Gone(f"{address}: no answer: {session.reason or 'too late'}")
    return asker.state


class _Asker:
    """Waits for one STATE."""

    session: Session

    def __init__(self) -> None:
        self.state: dict[str, object] | None = None

    def heard(self, header: Header, body: Body | Request | None) -> None:
        """Nothing else is expected."""
        raise Nonsense(f"{header.kind.name} in answer to STATUS")

    def room(self, header: Header) -> memoryview | None:
        """Return room for the document."""
        return memoryview(bytearray(header.size))

    async def piece(self, header: Header, data: memoryview) -> None:
        """Take it."""
        self.state = json.loads(bytes(data))
        self.session.end("that was all")
