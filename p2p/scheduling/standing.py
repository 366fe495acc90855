"""What a scheduler knows, for people and programs."""

from __future__ import annotations

from .isolation import Isolation
from .resource import Host, PeerState, Task


def host_standing(host: Host) -> dict[str, object]:
    """Return what is known of a host."""
    announced = host.announced
    return {
        "host": host.id.hex(),
        "name": _name(host),
        "address": _address(host),
        "kind": host.kind,
        "idc": announced.idc if announced else "",
        "location": announced.location if announced else "",
        "state": host.state.value,
        "tasks": len(host.peers),
        "children": host.children,
        "served": host.served,
        "failed": host.failed,
        "rate": round(host.rate),
    }


def task_standing(task: Task) -> dict[str, object]:
    """Return what is known of a task."""
    peers = task.peers
    return {
        "task": task.id.hex()[:16],  # who knows all of a private one's may have it
        "name": task.description.name,
        "kind": task.description.kind,
        "size": task.description.size,
        "pieces": task.description.pieces,
        "state": task.state.value,
        "peers": len(peers),
        "finished": sum(peer.state is PeerState.FINISHED for peer in peers),
        "held": task.counted().bit_count(),
        "grants": len(task.grants.open),
        "wanted": task.wanted.bit_count(),
    }


def aside_standing(
    isolation: Isolation, hosts: dict[bytes, Host], now: float
) -> list[dict[str, object]]:
    """Return who is set aside, why and for how long."""
    return [
        {
            "host": host.hex(),
            "name": _name(hosts.get(host)),
            "address": _address(hosts.get(host)),
            "reason": sentence.reason,
            "seconds": round(max(0.0, sentence.until - now), 3),
            "times": sentence.times,
        }
        for host, sentence in isolation.aside.items()
    ]


def _name(host: Host | None) -> str:
    return host.announced.name if host and host.announced else ""


def _address(host: Host | None) -> str:
    return host.announced.address if host and host.announced else ""
