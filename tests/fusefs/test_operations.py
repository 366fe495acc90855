"""The handlers, called as pyfuse3 calls them, without a kernel."""

from __future__ import annotations

import errno
import inspect
import math
import os
from pathlib import Path

import pyfuse3
import pytest
import trio
import trio.testing
from pyfuse3 import EntryAttributes, FUSEError, RequestContext

from fixtures.extents import DecodedFiles
from fixtures.small import BIG, small
from fusefs import operations as module
from fusefs.bareness import Bareness
from fusefs.mounting.vitals import Vitals
from fusefs.operations import Operations
from fusefs.pagecache.push import PageCache
from fusefs.translation import Translation
from fusefs.vfs import ROOT, Image, Vfs
from rafs import Bootstrap

CTX = RequestContext()


class Session:
    """Operations over the small image, and what they were made of."""

    def __init__(self, image: Path, reader: DecodedFiles) -> None:
        self.bootstrap = Bootstrap.open(image / "image.boot")
        self.reader = reader
        self.vitals, self.translation = Vitals(), Translation()
        vfs = Vfs(Image("image", self.bootstrap, reader))
        self.bareness = Bareness(vfs.trees)
        self.taken = 0
        self.pagecache = PageCache(vfs)
        self.operations = Operations(
            vfs,
            self.pagecache,
            self.vitals,
            self.translation,
            self.bareness,
            self._take_device,
        )

    def _take_device(self) -> None:
        self.taken += 1

    async def node(self, *names: bytes) -> int:
        node = ROOT
        for name in names:
            node = (await self.operations.lookup(node, name, CTX)).st_ino
        return node


@pytest.fixture
def session(image: Path) -> Session:
    return Session(image, DecodedFiles(image / "decoded"))


async def test_lookup_answers_with_attributes_that_hold_for_ever(session: Session) -> None:
    entry = await session.operations.lookup(ROOT, b"folder", CTX)
    assert (entry.st_mode, entry.st_uid, entry.st_gid) == (0o040750, 3, 4)
    assert entry.st_mtime_ns == -5 * 10**9 + 7
    assert entry.entry_timeout == entry.attr_timeout == module.FOREVER
    assert entry.generation == 0
    again = await session.operations.getattr(entry.st_ino, CTX)
    assert again is entry, "ready-made"


async def test_absence_is_an_answer_that_is_kept(session: Session) -> None:
    entry = await session.operations.lookup(ROOT, b"absent", CTX)
    assert entry.st_ino == 0
    assert entry.entry_timeout == module.FOREVER


async def test_names_that_come_and_go_are_asked_for_each_time(session: Session) -> None:
    vfs = Vfs()
    facts = (session.vitals, session.translation, session.bareness)
    operations = Operations(vfs, PageCache(vfs), *facts, lambda: None)
    reader = DecodedFiles(Path())
    with pytest.raises(FUSEError) as caught:
        await operations.lookup(ROOT, b"image", CTX)
    assert caught.value.errno == errno.ENOENT, "an answer that the kernel does not keep"
    assert (await operations.getattr(ROOT, CTX)).attr_timeout == 0
    vfs.add(Image("image", session.bootstrap, reader))
    top = await operations.lookup(ROOT, b"image", CTX)
    assert (top.entry_timeout, top.attr_timeout) == (0, module.FOREVER)
    big = await operations.lookup(top.st_ino, b"big", CTX)
    assert big.entry_timeout == module.FOREVER
    assert (await operations.lookup(top.st_ino, b"absent", CTX)).st_ino == 0
    assert (await operations.getattr(ROOT, CTX)).st_nlink == 3
    vfs.remove("image")
    with pytest.raises(FUSEError):
        await operations.lookup(ROOT, b"image", CTX)
    with pytest.raises(FUSEError):
        await operations.getattr(big.st_ino, CTX)
    assert (await operations.getattr(ROOT, CTX)).st_nlink == 2


async def test_reads_give_views_and_no_copy(session: Session) -> None:
    node = await session.node(b"big")
    opened = await session.operations.open(node, os.O_RDONLY, CTX)
    assert opened.fh == node, "handles say nothing that a restart forgets"
    assert opened.keep_cache
    found = await session.operations.read(node, 0, 1000)
    assert isinstance(found, memoryview)
    assert found == BIG[:1000]


async def test_opening_a_small_file_has_the_disk_begin_with_it(session: Session) -> None:
    for name in (b"big", b"hello", b"folder"):
        await session.operations.open(await session.node(name), os.O_RDONLY, CTX)
    ((start, stop),) = session.reader.hastened
    assert stop - start == len(b"hello world\n")
    node = await session.node(b"hello")
    assert bytes(await session.operations.read(node, 0, 4096)) == b"hello world\n"


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
async def test_opening_to_write_is_refused(session: Session, flags: int) -> None:
    with pytest.raises(FUSEError) as caught:
        await session.operations.open(await session.node(b"big"), flags, CTX)
    assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("name", module._CHANGES)
async def test_every_change_is_refused(session: Session, name: str) -> None:
    wanted = len(inspect.signature(getattr(pyfuse3.Operations, name)).parameters) - 1
    with pytest.raises(FUSEError) as caught:
        await getattr(session.operations, name)(*range(wanted))
    assert caught.value.errno == errno.EROFS


async def test_flush_makes_the_kernel_stop_asking(session: Session) -> None:
    with pytest.raises(FUSEError) as caught:
        await session.operations.flush(7)
    assert caught.value.errno == errno.ENOSYS


async def test_links_xattrs_and_sizes_are_told(session: Session) -> None:
    assert await session.operations.readlink(await session.node(b"link"), CTX) == b"folder/inside"
    inside = await session.node(b"folder", b"inside")
    names = await session.operations.listxattr(inside, CTX)
    assert sorted(names) == [b"security.capability", b"user.colour"]
    assert await session.operations.getxattr(inside, b"user.colour", CTX) == b"blue"
    with pytest.raises(FUSEError) as caught:
        await session.operations.getxattr(inside, b"user.absent", CTX)
    assert caught.value.errno == errno.ENODATA
    stats = await session.operations.statfs(CTX)
    assert stats.f_blocks * stats.f_bsize >= len(BIG)


async def test_image_without_xattrs_stops_the_questions_once_that_is_certain(
    tmp_path: Path,
) -> None:
    bare = small()
    bare.root.children[b"folder"].children[b"inside"].xattrs = {}
    bare.save(tmp_path)
    session = Session(tmp_path, DecodedFiles(tmp_path / "decoded"))
    assert await _xattr_errno(session) == errno.ENODATA
    await session.bareness.run()
    assert await _xattr_errno(session) == errno.ENOSYS
    assert await session.operations.listxattr(ROOT, CTX) == []


async def test_one_xattr_keeps_the_questions_coming(session: Session) -> None:
    assert await _xattr_errno(session) == errno.ENODATA
    await session.bareness.run()
    assert await _xattr_errno(session) == errno.ENODATA


async def _xattr_errno(session: Session) -> int:
    with pytest.raises(FUSEError) as caught:
        await session.operations.getxattr(ROOT, b"system.posix_acl_access", CTX)
    number = caught.value.errno
    assert isinstance(number, int)
    return number


@pytest.mark.logs("cannot be|silent|outside|bug")
@pytest.mark.parametrize(
    ("node", "expected"),
    [(99 << 40, errno.ENOENT), ((1 << 40) - 1, errno.EIO)],
    ids=["no such image", "no such inode"],
)
async def test_errors_become_numbers(session: Session, node: int, expected: int) -> None:
    with pytest.raises(FUSEError) as caught:
        await session.operations.getattr(node, CTX)
    assert caught.value.errno == expected
    assert bool(session.translation.last_error) is (expected == errno.EIO)


@pytest.mark.logs("the origin is silent")
async def test_dead_origin_is_an_error_with_a_reason(
    image: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reader = DecodedFiles(image / "decoded", ready=False, delay=math.inf, deadline=30.0)
    session = Session(image, reader)
    node = await session.node(b"big")
    for _ in range(3):
        with pytest.raises(FUSEError) as caught:
            await session.operations.read(node, 0, 4096)
        assert caught.value.errno == errno.EIO
    assert session.translation.last_error == "Unreachable: the origin is silent"
    assert len(caplog.records) == 1, "the same words are said once in a while"


@pytest.mark.logs("this is a bug")
async def test_bugs_are_answered_and_told_once(
    session: Session, image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session.bootstrap.close()
    for _ in range(3):
        with pytest.raises(FUSEError) as caught:
            await session.operations.getattr(ROOT + 500, CTX)
        assert caught.value.errno == errno.EIO
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_every_answer_is_counted(session: Session) -> None:
    before = session.vitals.answered
    node = await session.node(b"big")
    await session.operations.read(node, 0, 10)
    assert session.vitals.answered == before + 2
    session.operations.forget([(node, 1)])
    session.operations.init()
    assert session.taken == 1


async def test_ready_made_entries_are_bounded(session: Session) -> None:
    entries = session.operations._entries
    entries.update(dict.fromkeys(range(10**6, 10**6 + module._KEPT), EntryAttributes()))
    await session.node(b"big")
    assert len(entries) == 1
