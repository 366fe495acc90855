"""A built image of a model on two nodes in namespaces, the second while the first still fetches it.

    python -m tests.longer.two_nodes [--mb 500] [--rate 1gbit] [--share 0.3] [FOLDER]

Every host has a link of its own of that rate. Prints the seconds of both loads, what the second
node took from where, and what the origin sent per byte of the model.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from fixtures.link import parse_rate
from fixtures.loading import Load, make_model
from fixtures.mounting import until
from fixtures.site import Plan, Site


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--mb", default=500)
@click.option("--rate", default="1gbit")
@click.option("--share", default=0.3, help="What the first has when the second mounts.")
def main(folder: Path, mb: int, rate: str, share: float) -> None:
    """Load on both."""
    with tempfile.TemporaryDirectory(prefix="naiad-two-", dir=folder) as name:
        place, size = Path(name), mb * 10**6
        make_model(place, size)
        truth = Load(place / "tree").result(300).digest
        plan = Plan(hosts=2, rate=rate, seed=False, host_words=("--prefetch", "none"))
        with Site(plan, place / "image", place / "site") as site:
            first = Load(site.mount(0), "in order")
            until(lambda: site.sources(0)["origin"] > share * size)
            second = Load(site.mount(1), "in order")
            both = [load.result(300) for load in (first, second)]
            sources, sent = site.sources(1), site.origin_sent()
        floor = size / parse_rate(rate)
        print(f"the link alone {floor:.2f} s, the first {both[0].total:.2f} s", end="")
        print(f", the second {both[1].total:.2f} s")
        print(f"the second took {sources['peer'] / size:.2f} of it from the first", end="")
        print(f", {sources['origin'] / size:.2f} from the origin")
        print(f"the origin sent {sent / size:.3f} bytes per byte of the model")
        if {load.digest for load in both} != {truth}:
            sys.exit("what was loaded is not what the files hold")


if __name__ == "__main__":
    main()
