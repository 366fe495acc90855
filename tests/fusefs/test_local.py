"""What is read of the disk for what is local, by mounts of the real stack: every byte once."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from chunkstore.direct import cached
from fixtures.command import Naiad
from fixtures.mounting import until
from fixtures.weights import safetensors
from fusefs.diskahead import QUICK
from fusefs.mounting.erofs import obstacle
from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

pytestmark = pytest.mark.kernel

MIB = 1 << 20
FILES = {
    "plain": random.Random(5).randbytes(40 * MIB + 300_001),
    "model": safetensors([(1024, 1024)] * 20),
}
"""40 MiB each. Of a model a megabyte is read twice: the request that comes while it is pushed."""

needs_erofs = pytest.mark.skipif(bool(obstacle()), reason=obstacle())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    (folder / "tree").mkdir()
    for name, data in FILES.items():
        (folder / "tree" / name).write_bytes(data)
    build(DirectorySource(folder / "tree"), DirectoryTarget(folder / "image"))
    return folder / "image"


def _dropped(path: Path) -> bool:
    """Drop what the page cache has of *path*, but what somebody maps; say whether that is all."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return not cached(file.fileno(), 0, path.stat().st_size)


def _in_order(path: Path, step: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        return b"".join(iter(lambda: file.read(step), b""))


def _disk_reads(pid: object) -> int:
    """Return the bytes that a process has had read from disks."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


@pytest.mark.parametrize("step", [128 << 10, MIB])
@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("fuse", "plain"),
        ("fuse", "model"),
        pytest.param("erofs", "plain", marks=needs_erofs),
    ],
)
def test_what_is_local_is_read_once_in_order(
    naiad: Naiad, image: Path, driver: str, name: str, step: int
) -> None:
    mount = naiad.mount(image, "--driver", driver, "--prefetch", "none")
    path = mount / name
    assert path.read_bytes() == FILES[name]
    naiad.umount(mount)
    files = [found for found in naiad.cache.rglob("*") if found.stat().st_size > MIB]
    assert files
    until(lambda: all(map(_dropped, files)))
    naiad.mount(image, "--driver", driver, "--prefetch", "none", mountpoint=mount)
    daemon = naiad.status(mount)["daemon"]
    before, begun = _disk_reads(daemon), time.monotonic()
    assert _in_order(path, step) == FILES[name]
    quick = time.monotonic() - begun < QUICK / 2 * len(FILES[name]) / MIB
    after = _disk_reads(daemon)
    assert after - before <= 1.05 * len(FILES[name])
    said = naiad.status(mount)
    assert said["reads_ahead_wasted"] == 0
    if name == "plain":
        assert said["pushed_bytes"] == 0, "what is here needs no feed"
        assert isinstance(said["reads_ahead"], int)
        if after > before and quick:  # a reader that is held up gets fewer, or none
            assert said["reads_ahead"] > 5
