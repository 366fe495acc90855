"""Bootstraps that other programs read: Linux's own EROFS, and erofs-utils."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.hardtree import bind_socket, make_hard_tree
from fixtures.sketch import Sketch
from fixtures.walking import below
from rafs.tree import Node

_MS_RDONLY, _MNT_DETACH = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)

_ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, owner)
    for tag, rights, owner in (
        (1, 7, 2**32 - 1),
        (2, 4, 1000),
        (4, 5, 2**32 - 1),
        (16, 5, 2**32 - 1),
        (32, 4, 2**32 - 1),
    )
)


def _hard_tree(top: Path) -> None:
    """Make a directory with everything that images got wrong somewhere."""
    make_hard_tree(top, sparse=1 << 20)
    (top / ("n" * 255)).mkdir(mode=0o1777)
    (top / "long link").symlink_to("t" * 4095)
    os.mknod(top / "devices" / "large", stat.S_IFCHR | 0o600, os.makedev(300, 1_000_000))
    bind_socket(Path(os.path.relpath(top)) / "socket")
    os.setxattr(top / "attributes", b"trusted.secret", b"\0\xff")
    os.setxattr(top / "data", b"system.posix_acl_default", _ACL)
    os.setxattr(top / "attributes", b"system.posix_acl_access", _ACL)
    os.utime(top / "owned", ns=(0, -1))


def _shown(top: Path) -> dict[str, object]:
    """Return everything that a directory shows of itself, by path."""
    found: dict[str, object] = {}
    for path in below(top):
        status = path.lstat()
        facts: list[object] = [status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns]
        names = os.listxattr(path, follow_symlinks=False)
        facts.append({name: os.getxattr(path, name, follow_symlinks=False) for name in names})
        if stat.S_ISREG(status.st_mode):
            facts += [status.st_size, status.st_nlink, path.read_bytes()]
        if stat.S_ISLNK(status.st_mode):
            facts += [status.st_size, path.readlink()]
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            facts.append(status.st_rdev)
        found[str(path.relative_to(top))] = facts
    return found


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


@contextmanager
def _mounted(folder: Path, ids: list[str]) -> Iterator[Path]:
    """Let Linux mount the image in *folder*; skip where it cannot mount files."""
    place = folder / "mounted"
    place.mkdir()
    options = ",".join(f"device={folder / 'decoded' / blob_id}" for blob_id in ids)
    source = os.fsencode(folder / "image.boot")
    if _libc.mount(source, os.fsencode(place), b"erofs", _MS_RDONLY, options.encode() or None):
        number = ctypes.get_errno()
        why = os.strerror(number)
        if os.geteuid() or "erofs" not in Path("/proc/filesystems").read_text():
            pytest.skip(f"this kernel or user cannot mount EROFS: {why}")
        pytest.fail(f"mount: {why}")
    try:
        yield place
    finally:
        _libc.umount2(os.fsencode(place), _MNT_DETACH)


_as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.mark.kernel
@_as_root
@pytest.mark.parametrize("chunk_size", [4096, 65_536, 1 << 20])
def test_linux_shows_the_tree_as_it_was(tmp_path: Path, chunk_size: int) -> None:
    _hard_tree(tmp_path / "tree")
    expected = _shown(tmp_path / "tree")
    sketch = Sketch(chunk_size)
    sketch.copy(tmp_path / "tree")
    with _mounted(tmp_path, sketch.save(tmp_path)) as place:
        found = _shown(place)
        for folder in (place / path for path in expected if _is_folder(place / path)):
            assert folder.stat().st_nlink == 2 + sum(map(_is_folder, folder.iterdir()))
    assert found.keys() == expected.keys()
    for path, facts in expected.items():
        assert found[path] == facts, path


@pytest.mark.kernel
@_as_root
def test_linux_reads_several_blobs_and_holes_and_large_xattrs(tmp_path: Path) -> None:
    sketch = Sketch(4096)
    data = os.urandom(3 * 4096 + 10)
    files = [sketch.file(data, blob) for blob in (0, 1, 2)]
    sketch.root.children = {b"f%d" % number: file for number, file in enumerate(files)}
    hole = sketch.file(b"a" * 8192 + b"end")
    hole.chunks[1] = 0xFFFF_FFFF
    sketch.root.children[b"hole"] = hole
    files[0].xattrs = {b"user.%d" % number: b"v" * 60_000 for number in range(4)}
    sketch.root.children[b"many"] = Node(
        stat.S_IFDIR | 0o755, children={b"%0200d" % n: Node(stat.S_IFREG) for n in range(2000)}
    )
    with _mounted(tmp_path, sketch.save(tmp_path)) as place:
        assert [(place / f"f{number}").read_bytes() for number in range(3)] == [data] * 3
        assert (place / "hole").read_bytes() == b"a" * 4096 + bytes(4096) + b"end"
        assert {name: os.getxattr(place / "f0", name) for name in os.listxattr(place / "f0")} == {
            f"user.{number}": b"v" * 60_000 for number in range(4)
        }
        assert len(list((place / "many").iterdir())) == 2000
        assert (place / "many" / f"{1234:0200}").exists()


@pytest.mark.real
@pytest.mark.skipif(not shutil.which("fsck.erofs"), reason="erofs-utils is not installed")
@pytest.mark.parametrize("chunk_size", [4096, 1 << 20])
def test_fsck_finds_no_fault(tmp_path: Path, chunk_size: int) -> None:
    sketch = Sketch(chunk_size)
    sketch.root.children = {
        b"data": sketch.file(os.urandom(100_000)),
        b"more": sketch.file(os.urandom(5000), blob=1),
        b"empty": Node(stat.S_IFREG | 0o644),
        b"link": Node(stat.S_IFLNK | 0o777, target=b"t" * 4095),
        b"device": Node(stat.S_IFBLK | 0o600, rdev=os.makedev(8, 1)),
        b"folder": Node(stat.S_IFDIR | 0o755),
    }
    sketch.root.children[b"folder"].children = {
        b"%0100d" % number: Node(stat.S_IFREG | 0o644) for number in range(300)
    }
    _fsck(tmp_path, sketch.save(tmp_path))


@pytest.mark.real
@pytest.mark.skipif(not shutil.which("fsck.erofs"), reason="erofs-utils is not installed")
def test_fsck_finds_no_fault_in_an_image_without_data(tmp_path: Path) -> None:
    _fsck(tmp_path, Sketch().save(tmp_path))


def _fsck(folder: Path, ids: list[str]) -> None:
    devices = [f"--device={folder / 'decoded' / blob_id}" for blob_id in ids]
    done = subprocess.run(
        ["fsck.erofs", "-d3", *devices, str(folder / "image.boot")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
