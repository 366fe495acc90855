"""Hosts that start one program at once, in virtual time, against one host alone.

    python -m tests.bench.starts [--hosts 10,100] [--rates 10,100] [--seeds 1,2,3] [--fault AT]

Each row is another kind of start: how many readers, how many pieces a read waits for, how long they
think, how much is fetched ahead from a list, and how many reads are made in another order. What is
told is how many times as long as one host alone the last one takes, the worst and the mean of
all seeds, and how many times as much the origin sends. With `--fault` the scheduler dies for good
after so many seconds.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import Any

from p2p.simulator import Report, Scenario, simulate

KINDS: list[tuple[str, dict[str, Any]]] = [
    ("one reader", {"ahead": 1}),
    ("one reader, thinks 5 ms", {"ahead": 1, "think": 0.005}),
    ("one reader, thinks 30 ms", {"ahead": 1, "think": 0.03}),
    ("four readers", {"ahead": 4}),
    ("four readers, think 20 ms", {"ahead": 4, "think": 0.02}),
    ("reads of four", {"ahead": 1, "together": 4, "think": 0.005}),
    ("two readers of four", {"ahead": 2, "together": 4, "think": 0.005}),
    ("reads astray", {"ahead": 1, "think": 0.005, "astray": 0.2}),
    ("half listed", {"ahead": 1, "think": 0.01, "listed": 0.5}),
    ("all listed", {"ahead": 1, "think": 0.01, "listed": 1.0, "astray": 0.1}),
    ("listed, two readers of four", {"ahead": 2, "together": 4, "think": 0.01, "listed": 0.5}),
]


def start(hosts: int, rate: float, kind: dict[str, Any], more: dict[str, Any]) -> Report:
    """Let hosts start a program that reads 60 of 400 pieces."""
    links = {"up": rate, "down": rate}
    table: dict[str, Any] = {
        "size": "100MiB",
        "piece": "256KiB",
        "group": [{"hosts": hosts, "lazy": 0.15, "alike": True, **kind, **links}],
        "origin": {"rate": rate},
        "ends": 1000.0,
    }
    if not more.get("seeds"):
        table["seeds"] = links
    return simulate(Scenario.decode(table | more))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default="10,100")
    parser.add_argument("--rates", default="10,100", help="Mbit/s")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--kind", default="", help="part of a row's name")
    parser.add_argument("--fault", type=float)
    parser.add_argument("--no-seed", action="store_true")
    told = parser.parse_args()
    more: dict[str, Any] = {"seeds": {"hosts": 0}} if told.no_seed else {}
    faults = [{"kind": "scheduler", "at": told.fault}] if told.fault else []
    print(f"{'start':30} hosts Mbit/s  alone s   worst    mean  origin")
    worst = 0.0
    for (name, kind), hosts, rate in product(KINDS, told.hosts.split(","), told.rates.split(",")):
        if told.kind not in name:
            continue
        ratios, origins, alone = [], [], 0.0
        for seed in told.seeds.split(","):
            by = more | {"seed": int(seed)}
            one = start(1, float(rate) * 125e3, kind, by)
            many = start(int(hosts), float(rate) * 125e3, kind, by | {"fault": faults})
            alone = one.last
            ratios.append(many.last / one.last if many.finished == many.living else 999)
            origins.append(many.origin / one.origin)
        worst = max(worst, *ratios)
        print(
            f"{name:30} {hosts:>5} {rate:>6} {alone:8.2f} {max(ratios):7.2f}"
            f" {sum(ratios) / len(ratios):7.2f} {max(origins):7.3f}",
            flush=True,
        )
    print(f"worst {worst:.2f}")


if __name__ == "__main__":
    main()
