"""Every scenario of tests/bench/scenarios, or those named, as one row each.

    python -m tests.bench.simulations [NAME…] [--seeds 1,2,3] [--policy KEY=VALUE…]

`--policy` varies what a scenario's [policy] table may say, to see what a policy is worth. The time
of a fault's scenario is also told as a multiple of what `thousand_short` takes, which is the same
with no fault, and where a fault cuts hosts off for a while, that while apart from the rest.
CPU seconds depend on what else the machine does, all else on the seed alone.
"""

from __future__ import annotations

import argparse
import resource
import time
import tomllib
from pathlib import Path
from typing import Any

from p2p.simulator import Report, Scenario, simulate

SCENARIOS = Path(__file__).with_name("scenarios")
UNDISTURBED = "thousand_short"
CUTS = ("origin", "partition")


def varied(table: dict[str, Any], policy: list[str]) -> dict[str, Any]:
    """Return a scenario's table with another policy."""
    changes = dict(each.split("=", 1) for each in policy)
    plain = {key: float(value) if "." in value else int(value) for key, value in changes.items()}
    return table | {"policy": table.get("policy", {}) | plain}


def ordered(names: list[str]) -> list[str]:
    """Return the scenarios to run, what faults are compared with before them."""
    names = names or sorted(file.stem for file in SCENARIOS.glob("*.toml"))
    if any(name.startswith("fault_") for name in names):
        names = [UNDISTURBED, *(name for name in names if name != UNDISTURBED)]
    return names


def remarks(report: Report, undisturbed: float, cut: float) -> str:
    """Return what else there is to say of a run in which nothing could go on for *cut* seconds."""
    said = [f"{report.ended / undisturbed:.2f} x undisturbed"] if undisturbed else []
    if undisturbed and cut:
        said.append(f"{cut:g} s and {(report.ended - cut) / undisturbed:.2f} x")
    said += [f"{share:.2f} into {site}" for site, share in report.crossed.items()]
    if report.aside:
        said.append(f"{len(report.aside)} set aside")
    return ", ".join(said)


def cut(scenario: Scenario) -> float:
    """Return the seconds for which faults keep all or half of the hosts from what they lack."""
    return sum(fault.lasts for fault in scenario.fault if fault.kind in CUTS)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--policy", action="append", default=[])
    told = parser.parse_args()
    print(
        "scenario         seed  finished     median   last of the bound   ended s"
        "  origin  source  CPU s  MiB"
    )
    undisturbed: dict[str, float] = {}
    for name in ordered(told.names):
        table = tomllib.loads((SCENARIOS / f"{name}.toml").read_text())
        for seed in told.seeds.split(","):
            began = time.process_time()
            scenario = Scenario.decode(varied(table, told.policy) | {"seed": int(seed)})
            report = simulate(scenario)
            took = time.process_time() - began
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if name == UNDISTURBED:
                undisturbed[seed] = report.ended
            base = undisturbed.get(seed, 0.0) if name.startswith("fault_") else 0.0
            print(
                f"{name:16} {seed:>4}  {report.finished:>5}/{report.living:<5}"
                f" {report.bound / report.median:7.1%} {report.bound / report.last:7.1%}"
                f" {report.ended:17.3f}  {report.origin:6.3f}  {report.source:6.3f}"
                f"  {took:5.1f}  {peak:3.0f}  {remarks(report, base, cut(scenario))}",
                flush=True,
            )


if __name__ == "__main__":
    main()
