"""Every scenario of tests/bench/scenarios, or those named, as one row each.

    python -m tests.bench.simulations [NAME…] [--seeds 1,2,3] [--policy KEY=VALUE…]

`--policy` varies what a scenario's [policy] table may say, to see what a policy is worth.
"""

from __future__ import annotations

import argparse
import resource
import time
import tomllib
from pathlib import Path
from typing import Any

from p2p.simulator import Scenario, simulate

SCENARIOS = Path(__file__).with_name("scenarios")


def varied(table: dict[str, Any], policy: list[str]) -> dict[str, Any]:
    """Return a scenario's table with another policy."""
    changes = dict(each.split("=", 1) for each in policy)
    plain = {key: float(value) if "." in value else int(value) for key, value in changes.items()}
    return table | {"policy": table.get("policy", {}) | plain}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--policy", action="append", default=[])
    told = parser.parse_args()
    names = told.names or sorted(file.stem for file in SCENARIOS.glob("*.toml"))
    print(
        "scenario         seed  finished      median   last (of the bound)   origin  source  CPU s"
    )
    for name in names:
        table = tomllib.loads((SCENARIOS / f"{name}.toml").read_text())
        for seed in told.seeds.split(","):
            began = time.process_time()
            report = simulate(Scenario.decode(varied(table, told.policy) | {"seed": int(seed)}))
            took = time.process_time() - began
            print(
                f"{name:16} {seed:>4}  {report.finished:>5}/{report.living:<5}"
                f"  {report.bound / report.median:8.1%} {report.bound / report.last:8.1%}"
                f"  {'':12} {report.origin:6.3f}  {report.source:6.3f}  {took:6.1f}",
                flush=True,
            )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{peak:.0f} MiB at most")


if __name__ == "__main__":
    main()
