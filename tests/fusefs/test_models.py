"""Models read through a mount of the real stack, over a link."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.link import Link
from fixtures.mounting import until
from fixtures.rangeserver import RangeServer
from fixtures.weights import safetensors
from rafs.builder import build
from rafs.sources.directory import DirectorySource
from rafs.targets import DirectoryTarget

pytestmark = pytest.mark.kernel

MIB = 1 << 20
MODEL = safetensors([(1024, 1024)] * 24)
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "tree").mkdir()
    (folder / "tree/model.safetensors").write_bytes(MODEL)
    build(DirectorySource(folder / "tree"), DirectoryTarget(folder / "image"))
    return folder / "image"


@pytest.fixture
def server(image: Path) -> Iterator[RangeServer]:
    with RangeServer(image) as server:
        yield server


@pytest.fixture
def url(server: RangeServer) -> Iterator[str]:
    port = int(server.url.rpartition(":")[2])
    with Link("127.0.0.1", port, rate=125e6, delay=0.01) as link:
        yield link.url


_MAPPED = """
import hashlib, mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
    pages = (view[at : at + 4096] for at in range(0, len(view), 4096))
    print(hashlib.sha256(b"".join(pages)).hexdigest())
"""


def _mapped(path: Path) -> str:
    """Fault all pages of *path* in; not in this process, whose threads stand still meanwhile."""
    words = [sys.executable, "-c", _MAPPED, str(path)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return done.stdout.strip()


def _count(naiad: Naiad, mount: Path, name: str) -> int:
    count = naiad.status(mount)[name]
    assert isinstance(count, int)
    return count


def test_a_mapped_model_is_fetched_once_and_pushed_ahead(
    naiad: Naiad, server: RangeServer, url: str
) -> None:
    mount = naiad.mount(url, "--driver", "fuse")
    path = mount / "model.safetensors"
    with path.open("rb", buffering=0) as file:
        file.read(4096)
        # All but what the first READs have asked for by themselves.
        until(lambda: _count(naiad, mount, "pushed_bytes") >= len(MODEL) - 3 * MIB)
        before = _count(naiad, mount, "reads")
        assert _mapped(path) == DIGEST
    reads = _count(naiad, mount, "reads")
    assert reads - before <= 10, "steps still on their way, and pages left out to see who reads"
    pushed = _count(naiad, mount, "pushed_bytes")
    stored = sum(stop - start for path, start, stop in server.statistics.ranges if "blobs" in path)
    assert stored <= len(MODEL) + 4096

    assert _mapped(path) == DIGEST
    assert path.read_bytes() == MODEL
    assert _count(naiad, mount, "reads") == reads, "the second time, no READ reaches the daemon"
    assert _count(naiad, mount, "pushed_bytes") == pushed


def test_a_look_at_the_header_does_not_bring_the_model(naiad: Naiad, url: str) -> None:
    mount = naiad.mount(url, "--driver", "fuse")
    handle = os.open(mount / "model.safetensors", os.O_RDONLY)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(handle, 4096, 0)
    os.close(handle)
    assert _count(naiad, mount, "pushed_bytes") < len(MODEL)


def test_a_page_cache_that_was_dropped_is_filled_again_without_the_origin(
    naiad: Naiad, server: RangeServer, url: str
) -> None:
    mount = naiad.mount(url, "--driver", "fuse")
    path = mount / "model.safetensors"
    with path.open("rb") as kept:
        assert _mapped(path) == DIGEST
        asked = server.statistics.requests
        os.posix_fadvise(kept.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert _mapped(path) == DIGEST
    assert server.statistics.requests == asked


def test_the_shard_that_comes_next_is_here_before_it_is_opened(
    naiad: Naiad, tmp_path: Path
) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (tmp_path / "tree").mkdir()
    for seed, name in enumerate(names):
        (tmp_path / "tree" / name).write_bytes(safetensors([(1024, 1024)] * 5, seed=seed))
    index = {"weight_map": {f"w{number}": name for number, name in enumerate(names)}}
    (tmp_path / "tree/model.safetensors.index.json").write_text(json.dumps(index))
    build(DirectorySource(tmp_path / "tree"), DirectoryTarget(tmp_path / "image"))
    size = sum((tmp_path / "tree" / name).stat().st_size for name in names)
    with RangeServer(tmp_path / "image") as server:
        mount = naiad.mount(server.url, "--driver", "fuse", "--prefetch", "none")
        with (mount / names[0]).open("rb") as file:
            file.read(4096)
            until(lambda: _count(naiad, mount, "ready_bytes") >= size)
        asked = server.statistics.requests
        expected = hashlib.sha256((tmp_path / "tree" / names[1]).read_bytes()).hexdigest()
        assert _mapped(mount / names[1]) == expected
        assert server.statistics.requests == asked
