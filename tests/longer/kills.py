"""Ten kills of the session's daemon under three busy containers: sums, a database, a compiler.

    python -m tests.longer.kills DIR [KILLS]

DIR is a root directory with redis and gcc, such as ``debootstrap --variant=minbase
--include=redis-server,gcc,libc6-dev bookworm DIR`` makes. Prints what each container has done and
how long its longest round took, beside the median one; one that notices more than a pause ends with
an error.
"""

from __future__ import annotations

import itertools
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from fixtures.mounting import until
from fixtures.node import running_node
from tests.bench.side_by_side import drop_caches

_LOOP = "while [ ! -e /tmp/end ]; do {work} || exit 1; date +@%s.%N; done"
_WORK = {
    "sums": "find /usr/lib /usr/bin -type f -size -200k | sort | head -2000 | "
    "xargs md5sum | md5sum || exit 1",
    "database": "redis-cli incr hits && redis-cli --raw eval 'return redis.sha1hex(KEYS[1])' 1 a",
    "compiler": "echo 'int main(){return 0;}' > /tmp/a.c && gcc -O2 -o /tmp/a /tmp/a.c && "
    "/tmp/a && echo ok",
}
_BEFORE = {
    "database": "redis-server --save '' > /tmp/log & until redis-cli ping; do sleep 0.2; done; "
}


@click.command()
@click.argument("tree", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("kills", default=10)
def main(tree: Path, kills: int) -> None:
    """Build the image of TREE, start the containers, kill, look."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # all is ended then, as by Ctrl-C
    with (
        tempfile.TemporaryDirectory(prefix="naiad-kills-") as name,
        running_node(Path(name)) as (node, containerd),
    ):
        image = node.build(tree, "busy:lazy")
        node.pull("busy:lazy")
        started = {
            what: containerd.start_container(
                image, what, _BEFORE.get(what, "") + _LOOP.format(work=work)
            )
            for what, work in _WORK.items()
        }
        for _ in range(kills):
            before = node.daemon()
            drop_caches()
            node.kill_daemon()
            until(lambda gone=before: node.daemon() != gone)  # type: ignore[misc]
            time.sleep(1)
        for what, process in started.items():
            words = ("tasks", "exec", "--exec-id", "end", what, "/bin/touch", "/tmp/end")
            containerd.ctr(*words)
            output, _ = process.communicate(timeout=300)
            tell(what, process.returncode, output.splitlines())
        print(f"daemon's restarts: {node.naiad.status(node.session)['restarts']}")
        containerd.clear()


def tell(what: str, code: int | None, lines: Sequence[str]) -> None:
    """Print what a container did."""
    times = [float(line[1:]) for line in lines if line.startswith("@")]
    rounds = [after - before for before, after in itertools.pairwise(times)]
    said = [line for line in lines if not line.startswith("@")]
    print(f"{what}: code {code}, {len(times)} rounds, the last line: {said[-1]}")
    print(f"  longest round {max(rounds):.2f} s, the median one {statistics.median(rounds):.2f} s")
    if what == "sums":
        print(f"  different sums: {len(set(said))}")


if __name__ == "__main__":
    main()
