"""Ten kills of the session's daemon under three busy containers: sums, a database, a compiler.

    python -m tests.longer.kills DIR [KILLS]

DIR is a root directory with redis and gcc, such as ``debootstrap --variant=minbase
--include=redis-server,gcc,libc6-dev bookworm DIR`` makes. Prints what each container has done; one
that notices anything ends with an error.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from fixtures.mounting import until
from fixtures.node import running_node
from tests.bench.side_by_side import drop_caches

_LOOP = "while [ ! -e /tmp/end ]; do {work} || exit 1; done"
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


def main() -> None:
    """Build the image, start the containers, kill, look."""
    tree, kills = Path(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else 10
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
            lines = output.splitlines()
            print(f"{what}: code {process.returncode}, {len(lines)} lines, the last: {lines[-1]}")
            if what == "sums":
                print(f"  different sums: {len(set(lines))}")
        print(f"daemon's restarts: {node.naiad.status(node.session)['restarts']}")
        containerd.clear()


if __name__ == "__main__":
    main()
