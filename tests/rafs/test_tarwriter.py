"""Tar streams that are written: read back by ours, Python's and GNU's."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rafs.sources.archive import Archive
from rafs.sources.streams import Stream
from rafs.tarformat import Member, Type
from rafs.tarwriter import TarWriter

_text = st.binary(min_size=1, max_size=300).filter(lambda name: b"\0" not in name)
_names = _text.filter(lambda name: not name.endswith(b"/"))
_xattrs = st.dictionaries(
    st.binary(min_size=1, max_size=40).map(lambda name: b"user." + name.replace(b"\0", b"")),
    st.binary(max_size=600),
    max_size=3,
)


@st.composite
def _members(draw: st.DrawFn) -> Member:
    kind = draw(st.sampled_from([kind for kind in Type if kind.value]))
    size = draw(st.integers(0, 3000)) if kind is Type.FILE else 0
    member = Member(
        name=draw(_names),
        type=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 0xFFFFFFFF)),
        gid=draw(st.integers(0, 0xFFFFFFFF)),
        mtime=draw(st.integers(-(1 << 40), 1 << 40)),
        mtime_nsec=draw(st.sampled_from([0, 1, 500_000_000, 999_999_999])),
        size=size,
        stored=size,
        target=draw(_text) if kind in (Type.SYMLINK, Type.LINK) else b"",
        device=draw(st.tuples(st.integers(0, 4095), st.integers(0, 1048575)))
        if kind in (Type.CHARACTER, Type.BLOCK)
        else (0, 0),
        xattrs=draw(_xattrs),
    )
    return _with_holes(draw, member) if kind is Type.FILE and draw(st.booleans()) else member


def _with_holes(draw: st.DrawFn, member: Member) -> Member:
    steps = draw(st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 2000)), max_size=200))
    regions, stop = [], 0
    for gap, size in steps:
        regions.append((stop + gap, size))
        stop += gap + size
    tail = draw(st.integers(0, 10**12))
    return replace(
        member, size=stop + tail, stored=sum(size for _, size in regions), regions=regions
    )


def written(members: Sequence[Member]) -> bytes:
    out = io.BytesIO()
    tar = TarWriter(out.write)
    for member in members:
        tar.add(member)
        if member.stored:
            tar.write(b"d" * member.stored)
    tar.close()
    return out.getvalue()


@given(st.lists(_members(), max_size=5))
def test_what_is_written_is_read_back(members: list[Member]) -> None:
    data = written(members)
    archive = Archive(Stream([data], "it"))
    found = []
    for member in archive:
        assert archive.stream.take(member.stored) == b"d" * member.stored
        found.append(replace(member, regions=_full(member)))
    assert archive.ended
    assert found == [replace(member, regions=_full(member)) for member in members]


def _full(member: Member) -> list[tuple[int, int]] | None:
    """Leave out the empty region that only marks the end."""
    if member.regions is None:
        return None
    return [region for region in member.regions if region[1]]


@given(st.lists(_members(), max_size=5))
def test_python_reads_the_same(members: list[Member]) -> None:
    with tarfile.open(fileobj=io.BytesIO(written(members))) as tar:
        found = tar.getmembers()
    for info, member in zip(found, members, strict=True):
        assert info.name.encode("utf-8", "surrogateescape") == member.name
        assert info.linkname.encode("utf-8", "surrogateescape") == member.target
        assert (info.type, info.size) == (member.type.value, member.size)
        assert (info.uid, info.gid, info.mode) == (member.uid, member.gid, member.mode)
        assert (info.devmajor, info.devminor) == member.device
        assert abs(info.mtime - member.mtime - member.mtime_nsec / 1e9) < 1e-3


def test_gnu_tar_lists_it_without_a_word() -> None:
    members = [
        Member(b"./", Type.DIRECTORY, mode=0o755),
        Member(b"long" * 40, Type.FILE, size=10, stored=10, mtime=-2, mtime_nsec=500_000_000),
        Member(b"sparse", Type.FILE, size=1 << 40, stored=5, regions=[(1 << 30, 5)]),
        Member(b"link", Type.LINK, target=b"sparse"),
    ]
    listing = subprocess.run(
        ["tar", "-tvf", "-"], input=written(members), capture_output=True, check=True
    )
    assert listing.stderr == b""
    assert b" 1099511627776 " in listing.stdout
    assert len(listing.stdout.splitlines()) == 4
