from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chunkstore.errors import Malformed
from p2p.simulator import Report, Scenario, simulate
from p2p.simulator.scenario import Fault, Group, Origin, Policy, Seeds
from p2p.simulator.world import RECOVERS

MIB = 1 << 20
HUNDRED = 12.5e6


def scenario(hosts: int = 12, pieces: int = 40, **more: object) -> Scenario:
    table: dict[str, object] = {
        "group": [{"hosts": hosts}],
        "size": pieces * MIB,
        "piece": MIB,
        "ends": 200.0,
    }
    return Scenario.decode(table | more)


def test_the_same_seed_gives_the_same_output_to_the_byte() -> None:
    faults: list[object] = [{"kind": "death", "at": 0.3, "hosts": 2}]
    one, two = (simulate(scenario(fault=faults)) for _ in range(2))
    assert one.json() == two.json()
    assert one.text() == two.text()
    assert simulate(scenario(fault=faults, seed=2)).json() != one.json()


def test_every_piece_leaves_the_origin_once() -> None:
    report = simulate(scenario())
    assert report.finished == 12
    assert report.origin == 1.0
    assert report.wasted < 0.05


def test_without_a_seed_the_origin_is_read_once_too() -> None:
    report = simulate(scenario(seeds={"hosts": 0}))
    assert (report.finished, report.origin) == (12, 1.0)


def test_a_dripping_holder_of_everything_costs_the_time_to_notice() -> None:
    groups = [
        {"hosts": 1, "up": "512Kbit", "held": 1.0},
        {"hosts": 10, "up": "100Mbit", "down": "100Mbit", "arrive": 1.0},
    ]
    links = {"up": "100Mbit", "down": "100Mbit"}
    report = simulate(scenario(group=groups, pieces=50, seeds=links, origin={"rate": "100Mbit"}))
    assert report.aside == [("h1", "slow")]
    assert report.source < 1.6  # the seed is a parent until it is noticed
    assert report.last < 1.6 * report.bound + 3.0


def test_several_seeds_share_the_pieces() -> None:
    report = simulate(scenario(seeds={"hosts": 3}))
    assert (report.finished, report.origin) == (12, 1.0)


def test_one_host_alone_takes_about_as_long_as_the_bound() -> None:
    report = simulate(scenario(hosts=1))
    assert report.last < 1.4 * report.bound


def test_a_far_pair_fills_its_link() -> None:
    group = [{"hosts": 1, "latency": "50ms"}]
    report = simulate(scenario(group=group, pieces=200, seeds={"warm": True}))
    assert report.last < 2.5 * report.bound


def test_readers_of_the_same_pieces_read_the_origin_once() -> None:
    report = simulate(scenario(group=[{"hosts": 8, "lazy": 0.5}]))
    assert report.finished == 8
    assert report.origin <= 1.0


def start(hosts: int, more: dict[str, object], faults: list[object]) -> Report:
    """Let hosts start one program, which reads 60 of 400 pieces."""
    links = {"up": "100Mbit", "down": "100Mbit"}
    group = {"hosts": hosts, "lazy": 0.15, "alike": True, **more, **links}
    table: dict[str, object] = {"size": "100MiB", "piece": "256KiB", "group": [group]}
    table |= {"seeds": links, "origin": {"rate": "100Mbit"}, "fault": faults}
    return simulate(Scenario.decode(table))


STARTS: dict[str, dict[str, object]] = {
    "one reader": {"ahead": 1, "think": "5ms", "astray": 0.1},
    "four readers": {"ahead": 4, "think": "5ms"},
    "reads of four pieces": {"ahead": 2, "together": 4, "think": "5ms"},
    "half is listed": {"ahead": 1, "think": "10ms", "listed": 0.5},
    "all is listed": {"ahead": 1, "think": "10ms", "listed": 1.0},
}


@pytest.mark.parametrize("kind", STARTS.values(), ids=STARTS.keys())
def test_hosts_that_start_one_program_at_once_stand_one_behind_the_other(
    kind: dict[str, object],
) -> None:
    alone, together = start(1, kind, []), start(10, kind, [])
    assert (together.finished, together.origin) == (10, alone.origin)
    assert together.last < 1.6 * alone.last
    assert together.wasted < 0.01
    assert together.aside == []


def test_a_hundred_that_start_one_program_at_once_do_too() -> None:
    alone, together = (start(hosts, STARTS["four readers"], []) for hosts in (1, 100))
    assert (together.finished, together.origin) == (100, alone.origin)
    assert together.last < 2.3 * alone.last


@pytest.mark.parametrize("kind", STARTS.values(), ids=STARTS.keys())
def test_starts_go_on_from_the_seed_when_the_scheduler_dies(kind: dict[str, object]) -> None:
    alone, together = start(1, kind, []), start(10, kind, [{"kind": "scheduler", "at": 0.5}])
    assert together.finished == 10
    assert together.origin <= 1.1 * alone.origin


def test_hosts_that_hold_it_already_spare_the_origin() -> None:
    groups = [{"hosts": 2, "held": 1.0}, {"hosts": 6, "arrive": 1.0}]
    report = simulate(scenario(group=groups))
    assert (report.finished, report.origin) == (8, 0.0)


def test_late_joiners_get_it_from_those_who_came_before() -> None:
    report = simulate(scenario(group=[{"hosts": 12, "over": "1s"}]))
    assert (report.finished, report.origin) == (12, 1.0)


def test_two_sites_and_loss_are_survived() -> None:
    sites = [{"name": each, "up": "1Gbit", "down": "1Gbit"} for each in ("east", "west")]
    groups = [{"hosts": 5, "site": "east"}, {"hosts": 5, "site": "west", "loss": 0.001}]
    report = simulate(scenario(group=groups, site=sites))
    assert (report.finished, report.origin) == (10, 1.0)


def test_each_piece_crosses_to_a_site_about_once() -> None:
    sites = [{"name": each, "up": "1Gbit", "down": "1Gbit"} for each in ("east", "west")]
    groups = [{"hosts": 10, "site": each} for each in ("east", "west")]
    report = simulate(scenario(group=groups, site=sites, pieces=60))
    assert (report.finished, report.origin) == (20, 1.0)
    assert all(1.0 <= share <= 1.1 for share in report.crossed.values())


def test_a_partition_sets_nobody_aside() -> None:
    fault = {"kind": "partition", "at": "0.4s", "hosts": 6, "lasts": "3s"}
    report = simulate(scenario(hosts=12, pieces=100, fault=[fault]))
    assert report.finished == 12
    assert report.aside == []


def test_a_partition_costs_its_length_and_what_was_lacking() -> None:
    fault = {"kind": "partition", "at": 0.7, "hosts": 30, "lasts": 2.0}
    undisturbed, report = (simulate(scenario(60, 128, fault=each)) for each in ([], [fault]))
    assert (report.finished, report.aside) == (60, [])
    assert report.ended <= 2.0 + RECOVERS + 1.1 * undisturbed.ended


@pytest.mark.parametrize(
    ("fault", "most"),
    [
        ({"kind": "death", "hosts": 2}, 1.2),
        ({"kind": "stall", "hosts": 2}, 1.2),
        ({"kind": "stall", "hosts": 2, "lasts": "2s"}, 1.2),
        ({"kind": "slow", "hosts": 2}, 1.2),
        ({"kind": "corrupt", "hosts": 1}, 1.1),
        ({"kind": "lie", "hosts": 1}, 1.1),
        ({"kind": "partition", "hosts": 6, "lasts": "3s"}, 2.1),
        ({"kind": "scheduler", "lasts": "1s"}, 1.2),
        ({"kind": "scheduler"}, 1.2),
        ({"kind": "seed"}, 1.6),
        ({"kind": "origin", "lasts": "3s"}, 1.2),
    ],
    ids=str,
)
def test_everybody_who_lives_gets_everything(fault: dict[str, object], most: float) -> None:
    report = simulate(scenario(hosts=12, pieces=60, fault=[fault | {"at": "0.4s"}]))
    assert report.finished == report.living
    assert report.origin <= most


@pytest.mark.parametrize("lasts", [0.3, 2.0, 0.0], ids=["a moment", "2 s", "for good"])
@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_a_scheduler_that_is_gone_costs_a_swarm_little(lasts: float, seeds: int) -> None:
    fault = {"kind": "scheduler", "at": 0.7, "lasts": lasts}
    undisturbed, report = (
        simulate(scenario(60, 128, seeds={"hosts": seeds}, fault=faults))
        for faults in ([], [fault])
    )
    assert report.finished == 60
    assert report.aside == []
    assert report.origin <= 1.1
    assert report.source <= 1.3
    assert report.ended <= 1.3 * undisturbed.ended


def test_a_seed_that_dies_while_the_scheduler_is_gone_is_done_without() -> None:
    faults = [{"kind": "scheduler", "at": 0.7, "lasts": 2.0}, {"kind": "seed", "at": 0.9}]
    undisturbed, report = (simulate(scenario(60, 128, fault=each)) for each in ([], faults))
    assert (report.finished, report.aside) == (60, [])
    assert report.origin <= 1.1
    assert report.ended <= 1.5 * undisturbed.ended


def test_who_comes_while_the_scheduler_is_gone_waits_for_it() -> None:
    fault = {"kind": "scheduler", "at": 0.5, "lasts": 1.0}
    report = simulate(scenario(group=[{"hosts": 30, "over": "1s"}], pieces=100, fault=[fault]))
    assert (report.finished, report.aside) == (30, [])
    assert report.origin <= 1.1


def test_who_serves_wrong_bytes_is_set_aside() -> None:
    fault = {"kind": "corrupt", "at": "0.3s", "hosts": 1}
    report = simulate(scenario(hosts=12, pieces=100, fault=[fault]))
    assert [why for _, why in report.aside] == ["corrupt"]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.builds(
            Fault,
            kind=st.sampled_from(
                ["death", "slow", "corrupt", "lie", "scheduler", "origin", "seed"]
            ),
            at=st.floats(0.05, 2.0),
            hosts=st.integers(1, 2),
            lasts=st.floats(0.5, 3.0),
        ),
        max_size=3,
    ),
    st.integers(0, 2),
    st.integers(0, 1000),
)
def test_any_faults_together_leave_nobody_hanging(
    faults: list[Fault], seeds: int, seed: int
) -> None:
    told = Scenario(
        [Group(8, HUNDRED, HUNDRED)],
        size=16 * MIB,
        piece=MIB,
        seed=seed,
        ends=300.0,
        origin=Origin(HUNDRED),
        seeds=Seeds(seeds, HUNDRED, HUNDRED),
        fault=faults,
        policy=Policy(uploads=4),
    )
    report = simulate(told)
    assert report.finished == report.living


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "group"),
        ("[[group]]", "hosts"),
        ("[[group]]\nhosts = 0", "group[0].hosts"),
        ("[[group]]\nhosts = 1\ncolour = 1", "colour"),
        ('[[group]]\nhosts = 1\nup = "fast"', "fast"),
        ('[[group]]\nhosts = 1\nsite = "north"', "north"),
        ('[[group]]\nhosts = 1\n[[fault]]\nkind = "rain"\nat = 1', "rain"),
    ],
)
def test_what_is_no_scenario_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(Malformed, match="scenario") as caught:
        Scenario.decode(tomllib.loads(text))
    assert said in str(caught.value)


def test_the_scenarios_of_the_bench_are_scenarios() -> None:
    files = sorted((Path(__file__).parents[1] / "bench" / "scenarios").glob("*.toml"))
    assert files
    for file in files:
        assert Scenario.decode(tomllib.loads(file.read_text())).bound() > 0
