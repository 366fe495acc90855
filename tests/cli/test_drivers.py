"""Which driver a mount gets, and what is said of it."""

from __future__ import annotations

import filecmp
import os
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.foreign import v5_bootstrap
from fixtures.gallery import gallery
from fixtures.sketch import Sketch
from fusefs.mounting.erofs import obstacle
from fusefs.mounting.mountinfo import topmost

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(obstacle()), reason=obstacle()),
]


def _kind(mount: Path) -> str:
    found = topmost(mount)
    return found.kind if found else ""


@pytest.mark.parametrize(
    ("driver", "kind", "reason"),
    [
        ("auto", "erofs", "the kernel and the image allow it"),
        ("erofs", "erofs", "asked for"),
        ("fuse", "fuse.naiad", "asked for"),
    ],
)
def test_status_names_the_driver_and_why(
    naiad: Naiad, tree: Path, image: Path, driver: str, kind: str, reason: str
) -> None:
    mount = naiad.mount(image, "--driver", driver)
    assert _kind(mount) == kind
    said = naiad.status(mount)
    assert (said["driver"], said["driver_reason"]) == (kind.split(".")[0], reason)
    assert filecmp.cmp(tree / "data", mount / "data", shallow=False)


def _lay_out(folder: Path, bootstrap: bytes, sketch: Sketch) -> Path:
    """Lay *sketch* out as users of nydus-image do, under another *bootstrap*."""
    folder.mkdir()
    sketch.save(folder)
    (folder / "image.boot").unlink()
    (folder / "bootstrap").write_bytes(bootstrap)
    return folder


def _old(folder: Path) -> Path:
    sketch = gallery()
    return _lay_out(folder, v5_bootstrap(sketch), sketch)


def _without_data(folder: Path) -> Path:
    sketch = Sketch()
    return _lay_out(folder, sketch.bootstrap(), sketch)


def _with_unknown_flags(folder: Path) -> Path:
    """Return an image that naiad can read, with a mode that no kernel defines for a superblock."""
    sketch = gallery()
    damaged = bytearray(sketch.bootstrap())
    damaged[1024 + 4 : 1024 + 8] = b"\1\2\3\4"
    return _lay_out(folder, bytes(damaged), sketch)


@pytest.mark.parametrize(
    ("lay_out", "reason"),
    [
        (_old, "RAFS v5 is not EROFS"),
        (_without_data, "the image has no data"),
        (_with_unknown_flags, "its metadata is not fit for the kernel: superblock"),
    ],
)
def test_image_that_is_none_for_the_kernel_is_shown_by_fuse(
    naiad: Naiad, tmp_path: Path, lay_out: object, reason: str
) -> None:
    assert callable(lay_out)
    image = lay_out(tmp_path / "odd")
    mount = naiad.mount(image)
    assert _kind(mount) == "fuse.naiad"
    said = naiad.status(mount)
    assert said["driver"] == "fuse"
    assert str(said["driver_reason"]).startswith(reason)
    list(mount.iterdir())
    naiad.umount(mount)
    done = naiad.run("mount", "--driver", "erofs", image, mount, ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert reason in done.stderr
    assert _kind(mount) == ""


def test_image_of_another_builder_is_shown_by_erofs(naiad: Naiad, tmp_path: Path) -> None:
    sketch = gallery()
    image = _lay_out(tmp_path / "theirs", sketch.bootstrap(), sketch)
    mount = naiad.mount(image)
    assert _kind(mount) == "erofs"
    assert (mount / "deep" / "link").read_bytes() == b"shared" * 2000
    assert (mount / "sparse").read_bytes() == bytes(4096) + b"a" * 4096 + bytes(4096) + b"z" * 10


def test_metadata_is_checked_once(naiad: Naiad, image: Path) -> None:
    naiad.umount(naiad.mount(image))
    (note,) = (naiad.cache / "bootstraps").glob("checked-*")
    before = note.stat().st_mtime_ns
    naiad.umount(naiad.mount(image))
    assert note.stat().st_mtime_ns == before
    note.write_text("0\n")
    naiad.umount(naiad.mount(image))
    assert note.stat().st_mtime_ns > before, "an older edition's word does not count"


def test_nothing_is_left_of_mounts(naiad: Naiad, image: Path) -> None:
    def held() -> tuple[int, list[str], int]:
        table = Path("/proc/self/mountinfo").read_text().count(str(naiad.folder))
        loops = sorted(path.name for path in Path("/sys/block").glob("loop*/loop"))
        return table, loops, len(list(naiad.state.glob("*/*")))

    naiad.umount(naiad.mount(image))
    before = held()
    for _ in range(3):
        mount = naiad.mount(image)
        assert (mount / "etc" / "motd").read_text() == "welcome\n"
        naiad.umount(mount)
    assert held() == before
    assert os.listdir(naiad.state) == ["lock"]  # noqa: PTH208 - names
