from __future__ import annotations

from fixtures.swarmhosts import Hosts, Told
from p2p import messages


def test_where_sites_are_small_one_parent_is_from_elsewhere() -> None:
    swarm = Hosts()
    hosts = [swarm.add(n, idc=f"site{n % 6}") for n in range(1, 19)]
    for host in hosts:
        swarm.join(host, bulk=True)
    swarm.wait(0.3)
    idc = {host.id: f"site{n % 6}" for n, host in enumerate(hosts, 1)}
    for host in hosts:
        assert any(idc[parent] != idc[host.id] for parent in host.parents)


def sites(swarm: Hosts) -> tuple[list[Told], list[Told]]:
    """Return the hosts of two sites that have joined in turn."""
    hosts = [swarm.add(n, idc="east" if n % 2 else "west") for n in range(1, 25)]
    for host in hosts:
        swarm.join(host, bulk=True)
    swarm.wait(0.3)
    return hosts[::2], hosts[1::2]


def test_a_site_that_is_large_enough_keeps_to_itself() -> None:
    for site in sites(Hosts()):
        for host in site:
            assert set(host.parents) <= {other.id for other in site}
            assert len(host.parents) == 4


def test_a_piece_crosses_to_another_site_once() -> None:
    swarm = Hosts(pieces=64)
    east, west = sites(swarm)
    holder = next(host for host in east if host.grants)
    piece = next(iter(holder.grants))
    assert not any(piece in host.grants for host in west)
    swarm.held(holder, 1 << piece)
    takers = [host for host in west if piece in host.grants]
    assert [taker.grants[piece] for taker in takers] == [holder.id]
    swarm.wait(0.3)
    assert [host for host in west if piece in host.grants] == takers
    swarm.held(takers[0], 1 << piece)
    swarm.wait(0.3)
    assert not any(piece in host.grants for host in east + west)


def test_a_seed_gives_to_its_own_site_first() -> None:
    swarm = Hosts(pieces=64)
    swarm.add(99, "seed", idc="west")
    east, west = sites(swarm)
    for host in [*east, *west]:
        if host.grants:
            swarm.tell(host, messages.Return(1, [min(host.grants), max(host.grants) + 1], ""))
            host.grants.clear()
    swarm.wait(0.3)
    assert any(host.grants for host in west)
    assert not any(host.grants for host in east)


def test_a_piece_that_did_not_cross_is_given_to_another() -> None:
    swarm = Hosts(pieces=64)
    east, west = sites(swarm)
    holder = next(host for host in east if host.grants)
    piece = next(iter(holder.grants))
    swarm.held(holder, 1 << piece)
    (taker,) = [host for host in west if piece in host.grants]
    swarm.gone(taker)
    west.remove(taker)
    swarm.wait(0.3)
    (other,) = [host for host in west if piece in host.grants]
    assert other.grants[piece] == holder.id
    swarm.gone(holder)
    swarm.wait(0.3)
    assert next(host.grants[piece] for host in east + west if piece in host.grants) is None
