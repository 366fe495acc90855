"""Trees that are encoded and read back."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.reading import Shown, shown, walk
from fixtures.sketch import Sketch, chunk_numbers
from rafs import BadImage, Bootstrap, Kind, WrongKind
from rafs.erofs import device_number, pack_device_number
from rafs.tree import HOLE, Node

_U32 = st.integers(0, 2**32 - 1)
_NAMES = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
_XATTRS = st.dictionaries(
    st.sampled_from([b"user.", b"trusted.", b"security."]).flatmap(
        lambda prefix: (
            st.binary(min_size=1, max_size=40)
            .filter(lambda rest: b"\0" not in rest)
            .map(lambda rest: prefix + rest)
        )
    )
    | st.sampled_from([b"system.posix_acl_access", b"system.posix_acl_default"]),
    st.binary(max_size=300) | st.just(b"v" * 60_000),
    max_size=4,
)
_KINDS = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO)


@st.composite
def _sketches(draw: st.DrawFn) -> Sketch:
    sketch = Sketch(draw(st.sampled_from([4096, 8192, 65536])))
    nodes: list[Node] = []
    directories = [sketch.root]
    for _ in range(draw(st.integers(0, 12))):
        kind = draw(st.sampled_from((*_KINDS, None)))
        parent = draw(st.sampled_from(directories))
        name = draw(_NAMES)
        if kind is None and nodes:
            parent.children.setdefault(name, draw(st.sampled_from(nodes)))
            continue
        node = _node(draw, sketch, kind or stat.S_IFSOCK)
        if parent.children.setdefault(name, node) is node:
            (directories if node.is_directory else nodes).append(node)
    _attributes(draw, sketch.root)
    return sketch


def _node(draw: st.DrawFn, sketch: Sketch, kind: int) -> Node:
    if kind == stat.S_IFREG:
        size = draw(st.integers(0, 3 * sketch.chunk_size))
        pattern = draw(st.binary(min_size=1, max_size=3))
        node = sketch.file((pattern * (size // len(pattern) + 1))[:size], draw(st.integers(0, 2)))
    else:
        node = Node(kind)
    node.mode = kind | draw(st.integers(0, 0o7777))
    if kind == stat.S_IFLNK:
        target = st.binary(min_size=1, max_size=4095).filter(lambda text: b"\0" not in text)
        node.target = draw(target | st.sampled_from([b"t" * 4095, b"t" * 4032, b"t" * 4033]))
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        node.rdev = os.makedev(draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1)))
    _attributes(draw, node)
    return node


def _attributes(draw: st.DrawFn, node: Node) -> None:
    node.uid, node.gid = draw(_U32), draw(_U32)
    node.mtime = draw(st.integers(-(2**40), 2**40))
    node.mtime_nsec = draw(st.integers(0, 10**9 - 1))
    node.xattrs = draw(_XATTRS)


@settings(max_examples=60, deadline=None)
@given(_sketches())
def test_what_is_encoded_is_read_back(sketch: Sketch) -> None:
    _drop_empty_blobs(sketch)
    image = Bootstrap.decode(sketch.bootstrap())
    entries, _ = sketch.finish()
    decoded = {
        entry.blob.id: blob.decoded for entry, blob in zip(entries, sketch.blobs, strict=True)
    }
    found = shown(image, decoded)
    nodes = {b"": sketch.root, **dict(sketch.root.walk())}
    assert found.keys() == nodes.keys()
    assert image.inode_count == len(set(nodes.values()))
    links = _links(sketch.root)
    for path, node in nodes.items():
        _assert_same(found[path], node, sketch.contents.get(node, b""), links[node])
    assert len({one.nid for one in found.values()}) == len(set(nodes.values()))


def _drop_empty_blobs(sketch: Sketch) -> None:
    """Give every blob a chunk: the format has no place for one without."""
    for number, blob in enumerate(sketch.blobs):
        if not blob.chunks:
            sketch.root.children[b"filler %d" % number] = sketch.file(b"filler", number)


def _links(root: Node) -> Mapping[Node, int]:
    count = {root: 2}
    for _, node in root.walk():
        count[node] = count.get(node, 1 if node.is_directory else 0) + 1
    for directory in [node for node in count if node.is_directory]:
        count[directory] = 2 + sum(child.is_directory for child in directory.children.values())
    return count


def _assert_same(found: Shown, node: Node, data: bytes, links: int) -> None:
    assert found.mode == node.mode
    assert found.nlink == links
    assert found.owner == (node.uid, node.gid)
    assert found.mtime == (node.mtime, node.mtime_nsec)
    assert found.xattrs == node.xattrs
    if stat.S_ISREG(node.mode):
        assert (found.size, found.data) == (node.size, data)
    if stat.S_ISLNK(node.mode):
        assert (found.size, found.target) == (len(node.target), node.target)
    if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
        assert found.rdev == node.rdev


@settings(max_examples=20, deadline=None)
@given(_sketches(), st.randoms(use_true_random=False))
def test_the_order_of_children_changes_no_byte(sketch: Sketch, random: object) -> None:
    _drop_empty_blobs(sketch)
    before = sketch.bootstrap()
    for node in [sketch.root, *(node for _, node in sketch.root.walk())]:
        node.children = dict(sorted(node.children.items(), reverse=True))
        node.xattrs = dict(sorted(node.xattrs.items(), reverse=True))
    assert sketch.bootstrap() == before


@given(st.sets(_NAMES, min_size=1, max_size=200))
@settings(max_examples=30, deadline=None)
def test_every_name_is_found_and_listing_goes_on_after_any_cookie(names: set[bytes]) -> None:
    sketch = Sketch()
    sketch.root.children = {name: Node(stat.S_IFREG | 0o644) for name in names}
    image = Bootstrap.decode(sketch.bootstrap())
    listed = list(image.scan(image.root, 0))
    assert [name for name, _, _ in listed] == sorted(names)
    assert all(first[2] < second[2] for first, second in pairwise(listed))
    assert all(0 < cookie < 2**63 for _, _, cookie in listed)
    for place, (name, nid, cookie) in enumerate(listed):
        assert image.lookup(image.root, name) == nid
        assert list(image.scan(image.root, cookie)) == listed[place + 1 :]
        assert image.lookup(image.root, name + b"!") in (
            None,
            dict(_pairs(listed)).get(name + b"!"),
        )
    assert [entry.name for entry in image.children(image.root)] == sorted(names)


def _pairs(listed: list[tuple[bytes, int, int]]) -> list[tuple[bytes, int]]:
    return [(name, nid) for name, nid, _ in listed]


def test_names_that_sort_before_the_dots_are_found() -> None:
    sketch = Sketch()
    for name in (b"!", b"+a", b"-x", b".", b"..", b"...", b".a", b"a"):
        if name not in (b".", b".."):
            sketch.root.children[name] = Node(stat.S_IFDIR | 0o755)
    image = Bootstrap.decode(sketch.bootstrap())
    found = [entry.name for entry in image.children(image.root)]
    assert found == [b"!", b"+a", b"-x", b"...", b".a", b"a"]
    assert all(image.lookup(image.root, name) for name in found)
    assert image.lookup(image.root, b".") == image.root
    below = image.lookup(image.root, b"-x")
    assert below is not None
    assert image.parent(below) == image.root == image.parent(image.root)


def test_a_hundred_thousand_names_in_one_directory() -> None:
    sketch = Sketch()
    folder = sketch.root.children[b"folder"] = Node(stat.S_IFDIR | 0o755)
    names = [b"entry-%06d" % number for number in range(100_000)]
    one = Node(stat.S_IFREG | 0o644)
    folder.children = dict.fromkeys(names, one)
    image = Bootstrap.decode(sketch.bootstrap())
    nid = image.lookup(image.root, b"folder")
    assert nid is not None
    assert [name for name, _, _ in image.scan(nid, 0)] == names
    assert image.lookup(nid, b"entry-077777") == image.lookup(nid, b"entry-000000")
    assert image.lookup(nid, b"entry-077777x") is None
    assert image.attributes(next(image.scan(nid, 0))[1])[1] == 100_000


def test_kinds_are_told_in_the_listing() -> None:
    sketch = Sketch()
    for kind, mode in ((Kind.FIFO, stat.S_IFIFO), (Kind.SOCKET, stat.S_IFSOCK)):
        sketch.root.children[kind.name.encode()] = Node(mode | 0o600)
    image = Bootstrap.decode(sketch.bootstrap())
    assert [(e.name, e.kind) for e in image.children(image.root)] == [
        (b"FIFO", Kind.FIFO),
        (b"SOCKET", Kind.SOCKET),
    ]


def test_a_hole_is_read_as_zeros() -> None:
    sketch = Sketch(4096)
    file = sketch.file(b"a" * 4096 + b"b" * 100)
    file.chunks = chunk_numbers(file.chunks[0], HOLE, HOLE, file.chunks[1])
    file.size = 3 * 4096 + 100
    sketch.root.children[b"sparse"] = file
    image = Bootstrap.decode(sketch.bootstrap())
    nid = image.lookup(image.root, b"sparse")
    assert nid is not None
    extents = image.extents(nid, 4000, 3 * 4096 + 50)
    assert [(extent.chunk is None, extent.start, extent.stop) for extent in extents] == [
        (False, 4000, 4096),
        (True, 0, 8192),
        (False, 0, 50),
    ]
    assert [one is None for one in image.file_chunks(nid)] == [False, True, True, False]


def test_what_to_prefetch_is_kept_in_order() -> None:
    sketch = Sketch()
    nodes = [sketch.file(b"%d" % number) for number in range(3)]
    sketch.root.children = {b"f%d" % number: node for number, node in enumerate(nodes)}
    image = Bootstrap.decode(sketch.bootstrap(prefetch=[nodes[2], nodes[0], sketch.root]))
    names = {nid: path for path, nid in walk(image)}
    assert [names.get(nid, b"") for nid in image.prefetch] == [b"f2", b"f0", b""]


def test_questions_that_do_not_fit_the_kind_are_refused() -> None:
    sketch = Sketch()
    sketch.root.children = {b"f": sketch.file(b"x"), b"l": Node(stat.S_IFLNK, target=b"t")}
    image = Bootstrap.decode(sketch.bootstrap())
    file, link = image.lookup(image.root, b"f"), image.lookup(image.root, b"l")
    assert file is not None
    assert link is not None
    for ask in (
        lambda: image.lookup(file, b"x"),
        lambda: list(image.scan(link, 0)),
        lambda: image.target(image.root),
        lambda: image.extents(image.root, 0, 1),
        lambda: list(image.file_chunks(link)),
    ):
        with pytest.raises(WrongKind):
            ask()


@pytest.mark.parametrize("nid", [-1, -128, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_an_inode_outside_the_file_is_a_bad_image(nid: int) -> None:
    image = Bootstrap.decode(Sketch().bootstrap())
    for ask in (image.attributes, image.inode, image.xattrs, image.has_xattrs, image.target):
        with pytest.raises(BadImage, match="inode"):
            ask(nid)


@given(st.integers(0, 4095), st.integers(0, 2**20 - 1))
def test_device_numbers_survive(major: int, minor: int) -> None:
    rdev = os.makedev(major, minor)
    assert device_number(pack_device_number(rdev)) == rdev
