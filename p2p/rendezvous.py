"""Rendezvous hashing: who of several is responsible for a key.

Everybody who knows the same names comes to the same answer, and when one leaves only its keys move.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3


def ranked(names: Sequence[bytes], key: bytes) -> list[bytes]:
    """Return *names* in the order in which they are responsible for *key*."""
    return sorted(set(names), key=lambda name: (blake3(key + name).digest(8), name), reverse=True)


def schedulers(addresses: Sequence[str], task: bytes) -> list[str]:
    """Return the schedulers of a task: the first one that lives has it."""
    return [name.decode() for name in ranked([each.encode() for each in addresses], task)]


def shards(hosts: Sequence[bytes], start: int, stop: int) -> dict[bytes, int]:
    """Split the pieces ``[start, stop)`` among *hosts*: a bitmap for each."""
    owned = {host: bytearray((stop >> 3) + 1) for host in hosts}
    for piece in range(start, stop):
        number = piece.to_bytes(4, "little")
        best = max(hosts, key=lambda host: (blake3(host + number).digest(8), host))
        owned[best][piece >> 3] |= 1 << (piece & 7)
    return {host: int.from_bytes(octets, "little") for host, octets in owned.items()}
