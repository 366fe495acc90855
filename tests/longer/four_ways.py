"""One tree four ways: the kernel's EROFS, the FUSE mount, unpacked to a directory and by a tar.

    python -m tests.longer.four_ways [--entries 100000] [--sparse 5GiB] [FOLDER]

The tree has every hard case that the tests know, a directory of many entries, a large sparse file,
and names of 255 bytes. Needs root, GNU tar, and about 1 GiB in FOLDER.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import blake3
import click

from cli.options import SIZE
from fixtures.command import Naiad
from fixtures.hardtree import make_hard_tree

Facts = dict[bytes, tuple[object, ...]]

_BUFFER = bytearray(4 << 20)
_WORDS = "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p"


def make_tree(root: Path, entries: int, sparse: int) -> None:
    """Fill *root*."""
    make_hard_tree(root)
    crowd = root / "crowd"
    crowd.mkdir()
    for number in range(entries):
        (crowd / f"entry {number}").touch()
    for name in ("é" * 127 + "e", "n" * 255, "名" * 85):
        (crowd / name).write_text(name)
    with (root / "islands").open("wb") as file:
        for place in (0, sparse // 3, sparse - 7):
            file.seek(place)
            file.write(b"land!")
        file.truncate(sparse)


def facts(root: Path) -> Facts:
    """Return all that can be seen at *root* and below; contents as digests."""
    return dict(_facts(os.fsencode(root)))


def _facts(top: bytes) -> Iterator[tuple[bytes, tuple[object, ...]]]:
    first: dict[int, bytes] = {}
    for folder, directories, files in os.walk(top):
        for name in sorted([*directories, *files]):
            path = os.path.join(folder, name)  # noqa: PTH118  # bytes
            status = os.lstat(path)
            kind = stat.S_IFMT(status.st_mode)
            short = os.path.relpath(path, top)
            facts: list[object] = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns]
            names = os.listxattr(path, follow_symlinks=False)
            facts.append({n: os.getxattr(path, n, follow_symlinks=False) for n in names})
            if kind != stat.S_IFDIR:
                facts += [status.st_nlink, status.st_size, first.setdefault(status.st_ino, short)]
            if kind == stat.S_IFREG:
                facts.append(_digest(path))
            if kind == stat.S_IFLNK:
                facts.append(os.readlink(path))  # noqa: PTH115  # bytes
            if kind in (stat.S_IFCHR, stat.S_IFBLK):
                facts.append(status.st_rdev)
            yield short, tuple(facts)


def _digest(path: bytes) -> bytes:
    hasher = blake3.blake3()
    with Path(os.fsdecode(path)).open("rb", buffering=0) as file:
        while count := file.readinto(_BUFFER):
            hasher.update(memoryview(_BUFFER)[:count])
    return hasher.digest()


@contextmanager
def told(what: str) -> Iterator[None]:
    """Print how long *what* took."""
    start = time.monotonic()
    yield
    print(f"{what:40s} {time.monotonic() - start:7.1f} s", flush=True)


def compare(what: str, expected: Facts, root: Path) -> None:
    """Raise SystemExit unless *root* shows what is expected."""
    with told(what):
        found = facts(root)
    missing = expected.keys() ^ found.keys()
    other = [path for path, seen in expected.items() if found.get(path, seen) != seen]
    if missing or other:
        raise SystemExit(f"{what}: {len(missing)} names differ, {len(other)} files: {other[:3]}")


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--entries", default=100_000)
@click.option("--sparse", type=SIZE, default="5GiB")
def main(folder: Path, entries: int, sparse: int) -> None:
    """Compare."""
    with tempfile.TemporaryDirectory(prefix="naiad-longer-", dir=folder) as name:
        scratch = Path(name)
        naiad = Naiad(scratch)
        try:
            _ways(scratch, naiad, entries, sparse)
        finally:
            naiad.close()
    print("all four are the tree")


def _ways(scratch: Path, naiad: Naiad, entries: int, sparse: int) -> None:
    tree, image = scratch / "tree", scratch / "image"
    with told("tree made"):
        make_tree(tree, entries, sparse)
    with told("looked at"):
        expected = facts(tree)
    print(f"{len(expected)} names, the largest file has {sparse} bytes")
    with told("image built"):
        naiad.run("build", tree, image, timeout=600)
    for driver in ("erofs", "fuse"):
        compare(f"mounted, {driver}", expected, naiad.mount(image, "--driver", driver))
    with told("unpacked to a directory"):
        naiad.run("unpack", image, scratch / "out", timeout=600)
    compare("the directory", expected, scratch / "out")
    with told("unpacked to a tar"):
        naiad.run("unpack", image, scratch / "out.tar", timeout=600)
    other = scratch / "other"
    other.mkdir()
    with told("extracted by GNU tar"):
        words = ["tar", "-xf", str(scratch / "out.tar"), *_WORDS, "-C", str(other)]
        subprocess.run(words, check=True, timeout=600)
    compare("the tar", expected, other)


if __name__ == "__main__":
    main()
