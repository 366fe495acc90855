"""A scheduler, a seed and five mounts, each on a link of 100 Mbit/s of its own: ``demo swarm``."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from fixtures.site import Plan, Site, digest_of

HOSTS, RATE = 5, "100mbit"
FILES, FILE_SIZE = 10, 10 << 20
SIZE = FILES * FILE_SIZE


def main() -> None:
    """Show it."""
    if os.geteuid() != 0:
        sys.exit("network namespaces and links of a given rate need root")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree, image = folder / "tree", folder / "image"
        tree.mkdir()
        for number in range(FILES):
            data = random.Random(number).randbytes(FILE_SIZE)
            (tree / f"file{number}").write_bytes(data)
        print(f"An image of {SIZE >> 20} MiB in chunks of 256 KiB, on a web server behind {RATE}.")
        words = ["build", str(tree), str(image), "--chunk-size", "256KiB", "--codec", "none"]
        subprocess.run([sys.executable, "-m", "cli", *words], check=True, stdout=subprocess.DEVNULL)
        show(image, folder / "site", digest_of(tree))


def show(image: Path, folder: Path, expected: str) -> None:
    """Mount it on all hosts, fetch it everywhere at once, and tell how that went."""
    with Site(Plan(HOSTS, RATE), image, folder) as site:
        print(f"A scheduler, a seed and {HOSTS} hosts that mount it, each behind {RATE}.")
        site.mount_all("--prefetch", "none")
        alone = site.curl(SIZE)
        print(f"One curl of so many bytes, alone on the link: {alone:.1f} s, which is the bound.")
        before = site.origin_sent()
        last = max(site.warm_all(SIZE))
        sent = site.origin_sent() - before
        one_by_one = HOSTS * alone
        print(
            f"All of it on all hosts at once: the last was done after {last:.1f} s, "
            f"{last / alone:.2f} times the bound; one after the other from the origin: "
            f"{one_by_one:.0f} s."
        )
        print(f"The origin sent {sent / SIZE:.2f} times the image.")
        for number in range(HOSTS):
            sources = site.sources(number)
            told = ", ".join(f"{name} {sources[name] >> 20} MiB" for name in ("peer", "origin"))
            print(f"  host {number + 1}: {told}")
        right = site.read_all().wait().right(expected)
        print("Every file on every host is right." if right else "WRONG BYTES")


if __name__ == "__main__":
    main()
