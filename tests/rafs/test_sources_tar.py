"""Tar archives: what GNU tar and Python write gives the tree they were made of."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.hardtree import make_hard_tree
from fixtures.snapshots import Snapshot, of_directory, of_image
from rafs import BadSource
from rafs.builder import BuildOptions, BuildResult, build
from rafs.sources.tarball import TarSource
from rafs.targets import DirectoryTarget

_XATTRS = ("--xattrs", "--xattrs-include=*")


def built(archive: Path, image: Path, options: BuildOptions | None = None) -> BuildResult:
    return build(TarSource(archive), DirectoryTarget(image), options)


def packed(tree: Path, archive: Path, *how: str) -> Path:
    subprocess.run(["tar", "-cf", archive, *how, "-C", tree, "."], check=True, timeout=60)
    return archive


def of_bytes(data: bytes, folder: Path) -> Snapshot:
    archive = folder / "made.tar"
    archive.write_bytes(data)
    built(archive, folder / "image")
    return of_image(folder / "image")


def archive_of(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in facts.items():
        setattr(info, key, value)
    return info


@pytest.fixture(scope="module")
def hard_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("hard") / "tree"
    make_hard_tree(tree, linked_fifo=False)  # GNU tar makes two of one
    return tree


@pytest.mark.parametrize(
    "how",
    [
        (),
        ("-S",),
        ("-S", "--sparse-version=0.0"),
        ("-S", "--sparse-version=0.1"),
        ("-S", "--sparse-version=1.0"),
        ("--sort=name",),
    ],
)
def test_a_pax_archive_gives_the_tree_it_was_made_of(
    hard_tree: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    archive = packed(hard_tree, tmp_path / "a.tar", "--format=pax", *_XATTRS, *how)
    built(archive, tmp_path / "image")
    assert of_image(tmp_path / "image") == of_directory(hard_tree)


@pytest.mark.parametrize("how", [(), ("-S",)])
def test_a_gnu_archive_gives_all_it_can_hold(
    hard_tree: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    archive = packed(hard_tree, tmp_path / "a.tar", "--format=gnu", *how)
    built(archive, tmp_path / "image")
    second = 1_000_000_000
    assert of_image(tmp_path / "image") == {
        path: replace(seen, xattrs={}, mtime_ns=seen.mtime_ns // second * second)
        for path, seen in of_directory(hard_tree).items()
    }


@pytest.mark.parametrize("form", ["ustar", "v7", "oldgnu"])
def test_old_formats_are_read(tmp_path: Path, form: str) -> None:
    tree = tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "folder" / "file").write_bytes(b"data" * 1000)
    (tree / "folder" / "link").symlink_to("file")
    for path in (tree / "folder" / "file", tree / "folder", tree):
        os.utime(path, (0, 1_000_000_000))
    os.utime(tree / "folder" / "link", (0, 7), follow_symlinks=False)
    built(packed(tree, tmp_path / "a.tar", f"--format={form}"), tmp_path / "image")
    assert of_image(tmp_path / "image") == of_directory(tree)


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compression_is_seen_by_the_first_bytes(
    hard_tree: Path, tmp_path: Path, compress: object
) -> None:
    archive = packed(hard_tree, tmp_path / "a", "--format=pax", *_XATTRS)
    assert callable(compress)
    data = archive.read_bytes()
    half = len(data) // 2
    archive.write_bytes(compress(data[:half]) + compress(data[half:]))
    built(archive, tmp_path / "image")
    assert of_image(tmp_path / "image") == of_directory(hard_tree)


def test_standard_input_is_a_source(hard_tree: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rafs.builder import build;"
        "from rafs.sources.tarball import TarSource; from rafs.targets import DirectoryTarget;"
        "build(TarSource(None), DirectoryTarget(Path(sys.argv[1])))"
    )
    archive = packed(hard_tree, tmp_path / "a.tar", "--format=pax", *_XATTRS)
    with subprocess.Popen(["cat", archive], stdout=subprocess.PIPE) as cat:
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "image")],
            stdin=cat.stdout,
            check=True,
            timeout=60,
        )
    assert of_image(tmp_path / "image") == of_directory(hard_tree)


def test_a_device_without_an_end_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match="/dev/zero is a device"):
        built(Path("/dev/zero"), tmp_path / "image")
    assert not (tmp_path / "image").exists()


def test_the_same_archive_gives_the_same_bytes(hard_tree: Path, tmp_path: Path) -> None:
    archive = packed(hard_tree, tmp_path / "a.tar", "--format=pax", *_XATTRS)
    results = [
        built(archive, tmp_path / str(threads), BuildOptions(threads=threads)) for threads in (1, 5)
    ]
    assert results[0] == results[1]


def test_the_last_of_several_members_with_a_name_wins(tmp_path: Path) -> None:
    seen = of_bytes(
        archive_of(
            (member("a/b"), b"first"),
            (member("./a//b"), b"second"),
            (member("c"), b"a file"),
            (member("c", tarfile.DIRTYPE, mode=0o700), b""),
            (member("c/d"), b"inside"),
            (member("e", tarfile.DIRTYPE), b""),
            (member("e/f"), b"gone"),
            (member("e"), b"now a file"),
        ),
        tmp_path,
    )
    assert sorted(seen) == [b"", b"a", b"a/b", b"c", b"c/d", b"e"]
    assert seen[b"a/b"].data == b"second"
    assert seen[b"c"].mode == 0o40700
    assert seen[b"e"].data == b"now a file"


def test_a_hard_link_keeps_the_file_it_was_made_to(tmp_path: Path) -> None:
    seen = of_bytes(
        archive_of(
            (member("a"), b"first"),
            (member("b", tarfile.LNKTYPE, linkname="a"), b""),
            (member("a"), b"second"),
            (member("early", tarfile.LNKTYPE, linkname="./late"), b""),
            (member("late"), b"at last"),
            (member("s", tarfile.SYMTYPE, linkname="a"), b""),
            (member("t", tarfile.LNKTYPE, linkname="s"), b""),
        ),
        tmp_path,
    )
    assert (seen[b"a"].data, seen[b"b"].data) == (b"second", b"first")
    assert seen[b"late"].same_as == b"early"
    assert seen[b"late"].data == b"at last"
    assert seen[b"t"].same_as == b"s"


def test_numbers_may_be_as_large_as_files_have_them(tmp_path: Path) -> None:
    seen = of_bytes(
        archive_of(
            (member("big", uid=4_000_000_000, gid=70_000, mtime=2**40, mode=0o7777), b"x"),
            (member("old", mtime=-5), b"x"),
            (member("disk", tarfile.BLKTYPE, devmajor=4095, devminor=1048575), b""),
            form=tarfile.GNU_FORMAT,
        ),
        tmp_path,
    )
    assert seen[b"big"].owner == (4_000_000_000, 70_000)
    assert seen[b"big"].mode == 0o107777
    assert seen[b"big"].mtime_ns == 2**40 * 10**9
    assert seen[b"old"].mtime_ns == -5 * 10**9
    assert seen[b"disk"].rdev == os.makedev(4095, 1048575)


def test_times_before_1970_keep_their_fraction(tmp_path: Path) -> None:
    info = member("old")
    info.pax_headers = {"mtime": "-1.25"}
    assert of_bytes(archive_of((info, b"")), tmp_path)[b"old"].mtime_ns == -1_250_000_000


def test_xattrs_are_bytes(tmp_path: Path) -> None:
    value = bytes(range(256))
    info = member("file")
    info.pax_headers = {
        "SCHILY.xattr.user.binary": value.decode("utf-8", "surrogateescape"),
        "LIBARCHIVE.xattr.user.per%25cent": "/wA=",
        "SCHILY.xattr.com.apple.provenance": "x",
    }
    seen = of_bytes(archive_of((info, b"")), tmp_path)
    assert seen[b"file"].xattrs == {b"user.binary": value, b"user.per%cent": b"\xff\0"}


def test_an_xattr_that_no_image_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    info = member("file-with-much")
    info.pax_headers = {"SCHILY.xattr.user.much": "x" * 70_000}
    with pytest.raises(BadSource, match="file-with-much"):
        of_bytes(archive_of((info, b"")), tmp_path)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("../out", None),
        ("a/../../out", None),
        ("n" * 256, None),
        ("link", "../etc/passwd"),
        ("link", "nowhere"),
        ("link", "folder"),
        ("link", "link"),
        ("link", "."),
    ],
)
def test_names_that_lead_astray_are_refused(tmp_path: Path, name: str, target: str | None) -> None:
    kind = tarfile.REGTYPE if target is None else tarfile.LNKTYPE
    data = archive_of(
        (member("folder", tarfile.DIRTYPE), b""),
        (member(name, kind, linkname=target or ""), b""),
    )
    with pytest.raises(BadSource):
        of_bytes(data, tmp_path)
    assert not (tmp_path / "image").exists()


def test_absolute_names_are_names_in_the_image(tmp_path: Path) -> None:
    seen = of_bytes(archive_of((member("/etc//./passwd"), b"x")), tmp_path)
    assert sorted(seen) == [b"", b"etc", b"etc/passwd"]


def test_names_like_whiteouts_are_names_in_an_archive(tmp_path: Path) -> None:
    assert b".wh.a" in of_bytes(archive_of((member(".wh.a"), b"x")), tmp_path)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress])
def test_an_archive_that_is_cut_anywhere_is_refused(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    plain = archive_of((member("a"), os.urandom(3000)), (member("b"), b"y" * 700))[: 512 * 12]
    data = compress(plain)
    cuts = range(0, len(data), 97) if compress is not bytes else range(0, 512 * 10, 97)
    for cut in cuts:
        with pytest.raises(BadSource, match=r"made\.tar"):
            of_bytes(data[:cut], tmp_path)


def test_a_missing_file_and_a_folder_are_no_archives(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(BadSource, match=str(path)):
            built(path, tmp_path / "image")


_SEEDS = [
    archive_of((member("a" * 120 + "/é", mtime=1.5), b"data" * 300), (member("d/e"), b"")),
    archive_of((member("x" * 300, uid=1 << 31), b"1"), form=tarfile.GNU_FORMAT),
]


@given(
    seed=st.sampled_from(_SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
    mend=st.booleans(),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_archive_is_refused_or_read_but_never_worse(
    tmp_path: Path, seed: bytes, changes: list[tuple[int, int]], mend: bool
) -> None:
    data = bytearray(seed)
    for place, value in changes:
        data[place % len(data)] = value
    if mend:
        for start in range(0, len(data), 512):
            if data[start + 257 : start + 262] == b"ustar":
                data[start + 148 : start + 156] = b" " * 8
                total = sum(data[start : start + 512])
                data[start + 148 : start + 156] = b"%06o\0 " % total
    try:
        of_bytes(bytes(data), tmp_path)
    except BadSource:
        assert not list((tmp_path / "image").glob(".naiad*"))
