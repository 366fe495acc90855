"""A mounted tree through the kernel, against the source it was drawn from."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.mounting import Mount, mount
from fixtures.sketch import Sketch
from fixtures.small import BIG
from fixtures.walking import below
from fusefs.mounting.erofs import obstacle

pytestmark = pytest.mark.kernel


def _hard_cases(root: Path) -> None:
    (root / "plain").write_bytes(os.urandom(70_000))
    (root / "empty").touch()
    (root / "hole").write_bytes(bytes(200_000) + b"end")
    os.link(root / "plain", root / "second name")
    (root / ("é" * 127)).write_text("a name of 254 bytes")
    (root / "to nowhere").symlink_to("x" * 4000)
    os.mkfifo(root / "fifo", 0o620)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
    folder = root / "deep" / "er"
    folder.mkdir(parents=True)
    for number in range(700):
        (folder / f"file {number}").write_text(str(number))
    (root / "setuid").write_text("s")
    (root / "setuid").chmod(0o6755)
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o1777)
    os.setxattr(root / "plain", "user.note", b"\0binary\xff")
    if os.geteuid() == 0:
        os.mknod(root / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(root / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
        os.chown(root / "plain", 70_000, 100_000)
        capability = bytes.fromhex("0000000200200000000000000000000000000000")
        os.setxattr(root / "setuid", "security.capability", capability)
    os.utime(root / "plain", ns=(0, -1_500_000_001))
    os.utime(root / "to nowhere", ns=(0, 1_234_567_890_123_456_789), follow_symlinks=False)
    os.utime(folder, ns=(0, 4_102_444_800_000_000_001))


def _facts(path: Path) -> tuple[object, ...]:
    found = path.lstat()
    kind = stat.S_IFMT(found.st_mode)
    content: object = None
    if kind == stat.S_IFREG:
        content = path.read_bytes()
    elif kind == stat.S_IFLNK:
        content = path.readlink()
    names = os.listxattr(path, follow_symlinks=False)
    xattrs = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    size = None if kind == stat.S_IFDIR else found.st_size
    device = found.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    owner = found.st_uid, found.st_gid
    return found.st_mode, owner, found.st_mtime_ns, found.st_nlink, size, device, xattrs, content


def _tree(root: Path) -> dict[str, tuple[object, ...]]:
    return {str(path.relative_to(root)): _facts(path) for path in below(root)}


@pytest.fixture(params=["fuse", "erofs"])
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Path, Path]]:
    source, image = tmp_path / "source", tmp_path / "image"
    source.mkdir()
    image.mkdir()
    _hard_cases(source)
    drawn = Sketch(chunk_size=1 << 14)
    drawn.copy(source)
    drawn.save(image)
    if request.param == "erofs" and (why := obstacle()):
        pytest.skip(why)
    options = ("--options", "suid,dev", "--driver", request.param)
    with mount(tmp_path, image, options=options) as made:
        yield source, made.path


def test_tree_is_identical_to_its_source(pair: tuple[Path, Path]) -> None:
    source, mounted = pair
    ours, theirs = _tree(mounted), _tree(source)
    assert ours.keys() == theirs.keys()
    for name, facts in theirs.items():
        assert ours[name] == facts, name


def test_hard_links_share_an_inode_number(pair: tuple[Path, Path]) -> None:
    _, mounted = pair
    assert (mounted / "plain").stat().st_ino == (mounted / "second name").stat().st_ino


def test_direct_reads_and_mappings_show_the_same_bytes(mounted: Mount) -> None:
    path = mounted.path / "big"
    handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, 1 << 20)
    read = os.preadv(handle, [buffer], 1 << 20)
    os.close(handle)
    assert buffer[:read] == BIG[1 << 20 : 2 << 20]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[-1000:] == BIG[-1000:]
        assert mapped[:] == BIG
        assert os.pread(file.fileno(), 5000, len(BIG) - 100) == BIG[-100:]


class _Dirent(ctypes.Structure):
    _fields_ = (
        ("d_ino", ctypes.c_uint64),
        ("d_off", ctypes.c_int64),
        ("d_reclen", ctypes.c_uint16),
        ("d_type", ctypes.c_uint8),
        ("d_name", ctypes.c_char * 256),
    )


def test_directory_offsets_continue_a_listing_anywhere(pair: tuple[Path, Path]) -> None:
    libc = ctypes.CDLL(None)
    libc.opendir.restype = ctypes.c_void_p
    libc.readdir.restype = ctypes.POINTER(_Dirent)
    libc.telldir.restype = ctypes.c_long
    stream = ctypes.c_void_p(libc.opendir(os.fsencode(pair[1] / "deep" / "er")))
    listed, places = [], [libc.telldir(stream)]
    while entry := libc.readdir(stream):
        listed.append(entry.contents.d_name)
        places.append(libc.telldir(stream))
    assert len(listed) == len(set(listed)) == 702
    assert {b".", b".."} < set(listed)
    for index in (700, 350, 0, 1, 2, 3, 701):
        libc.seekdir(stream, ctypes.c_long(places[index]))
        assert libc.readdir(stream).contents.d_name == listed[index]
    libc.closedir(stream)


_CHANGES: list[Callable[[Path], object]] = [
    lambda root: (root / "new").touch(),
    lambda root: (root / "big").open("r+b"),
    lambda root: (root / "new").mkdir(),
    lambda root: (root / "big").unlink(),
    lambda root: (root / "folder").rmdir(),
    lambda root: (root / "big").chmod(0o600),
    lambda root: (root / "big").rename(root / "new"),
    lambda root: (root / "new").symlink_to("big"),
    lambda root: os.link(root / "big", root / "new"),
    lambda root: os.truncate(root / "big", 0),
    lambda root: os.utime(root / "big"),
    lambda root: os.setxattr(root / "big", "user.x", b""),
    lambda root: os.removexattr(root / "folder" / "inside", "user.colour"),
    lambda root: os.mkfifo(root / "new"),
]


@pytest.mark.parametrize("remounted", [False, True], ids=["read-only", "remounted read-write"])
def test_changes_are_refused_as_read_only(mounted: Mount, remounted: bool) -> None:
    if remounted:
        subprocess.run(["mount", "-i", "-o", "remount,rw", mounted.path], check=True)
    for change in _CHANGES:
        with pytest.raises(OSError, match="Read-only") as caught:
            change(mounted.path)
        assert caught.value.errno == errno.EROFS
    assert (mounted.path / "big").read_bytes() == BIG


def test_file_system_tells_its_size_and_nothing_free(mounted: Mount) -> None:
    found = os.statvfs(mounted.path)
    assert found.f_blocks * found.f_frsize >= len(BIG)
    assert (found.f_bfree, found.f_ffree, found.f_namemax) == (0, 0, 255)
    assert found.f_files >= 7
    assert found.f_flag & os.ST_RDONLY
    assert found.f_flag & os.ST_NOSUID
    assert found.f_flag & os.ST_NODEV


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts an overlay")
def test_overlay_lies_on_top_and_takes_the_changes(mounted: Mount, tmp_path: Path) -> None:
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    merged = tmp_path / "merged"
    layers = f"lowerdir={mounted.path},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "-o", layers, "overlay", merged], check=True)
    try:
        (merged / "hello").write_text("changed")
        (merged / "folder" / "again").unlink()
        assert (merged / "hello").read_text() == "changed"
        assert (merged / "big").read_bytes() == BIG
        assert [path.name for path in (merged / "folder").iterdir()] == ["inside"]
    finally:
        subprocess.run(["umount", merged], check=True)
    assert (mounted.path / "hello").read_text() == "hello world\n"


def test_absent_names_are_remembered_and_asked_for_once(mounted: Mount) -> None:
    for _ in range(2):
        assert not (mounted.path / "absent").exists()
    before = mounted.status()["answered"]
    assert not (mounted.path / "absent").exists()
    assert mounted.status()["answered"] == before


def test_data_that_was_read_is_not_asked_for_again(mounted: Mount) -> None:
    (mounted.path / "big").read_bytes()
    before = mounted.status()["answered"]
    assert isinstance(before, int)
    (mounted.path / "big").read_bytes()
    after = mounted.status()["answered"]
    assert isinstance(after, int)
    assert after - before <= 1, "one open, no read"
