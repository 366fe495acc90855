"""Building from directories: what goes in is what is there, in the same bytes every time."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from chunkstore import Algorithm, Chunk, Codec, Digest, Malformed
from fixtures.hardtree import bind_socket, make_hard_tree
from fixtures.sketch import Sketch
from fixtures.snapshots import of_directory, of_image
from rafs import BadSource, Bootstrap
from rafs.builder import BuildOptions, BuildResult, build
from rafs.imagefile import ImageFile
from rafs.sources.directory import DirectorySource
from rafs.sources.tarball import TarSource
from rafs.targets import DirectoryTarget
from rafs.targets.draft import Draft
from rafs.v6 import ChunkList


def built(source: Path, target: Path, options: BuildOptions | None = None) -> BuildResult:
    return build(DirectorySource(source), DirectoryTarget(target), options)


def content(image: Path) -> dict[str, str]:
    """Return the digests of all files of an image."""
    return {
        str(path.relative_to(image)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(image.rglob("*"))
        if path.is_file()
    }


def opened(folder: Path) -> closing[Bootstrap]:
    return closing(Bootstrap.open(folder / "image.boot"))


@pytest.fixture(scope="module")
def hard_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("hard") / "tree"
    make_hard_tree(tree)
    return tree


@pytest.mark.parametrize("codec", [Codec.NONE, Codec.LZ4, Codec.ZSTD])
def test_an_image_holds_what_the_tree_holds(hard_tree: Path, tmp_path: Path, codec: Codec) -> None:
    result = built(hard_tree, tmp_path, BuildOptions(codec=codec))
    assert of_image(tmp_path) == of_directory(hard_tree)
    assert not result.warnings


@pytest.mark.parametrize("chunk_size", [4096, 1 << 20, 16 << 20])
def test_every_chunk_size_gives_the_same_tree(
    hard_tree: Path, tmp_path: Path, chunk_size: int
) -> None:
    built(hard_tree, tmp_path, BuildOptions(chunk_size=chunk_size))
    assert of_image(tmp_path) == of_directory(hard_tree)


def test_threads_and_the_order_on_disk_do_not_change_a_byte(
    hard_tree: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    _copy_backwards(hard_tree, other)
    assert of_directory(other) == of_directory(hard_tree)
    images = []
    for number, (source, threads) in enumerate([(hard_tree, 1), (hard_tree, 7), (other, 3)]):
        built(source, tmp_path / str(number), BuildOptions(threads=threads))
        images.append(content(tmp_path / str(number)))
    assert images[0] == images[1] == images[2]


def test_helper_processes_do_not_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    make_hard_tree(tree, names=1000)
    built(tree, tmp_path / "threads")
    monkeypatch.setattr("rafs.sources.helpers.MANY", 1)
    built(tree, tmp_path / "processes")
    assert content(tmp_path / "threads") == content(tmp_path / "processes")


def test_the_names_are_the_digests(hard_tree: Path, tmp_path: Path) -> None:
    result = built(hard_tree, tmp_path)
    facts = ImageFile.decode((tmp_path / "image.json").read_bytes())
    assert facts.digest == result.bootstrap
    assert facts.digest.matches((tmp_path / "image.boot").read_bytes())
    assert [blob.id for blob in facts.blobs] == list(result.blobs) == [result.blob]
    data = (tmp_path / "blobs" / str(result.blob)).read_bytes()
    assert hashlib.sha256(data).hexdigest() == result.blob
    assert len(data) == result.blob_size
    assert sorted(content(tmp_path)) == [f"blobs/{result.blob}", "image.boot", "image.json"]


def test_equal_chunks_are_stored_once(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    data = os.urandom(600_000)
    for name in "abc":
        (tree / name).write_bytes(data)
    result = built(tree, tmp_path / "image", BuildOptions(codec=Codec.NONE))
    assert result.shared == 1_200_000
    assert result.chunks == 3
    assert result.blob_size < 700_000


def test_a_codec_that_saves_little_is_dropped_for_the_chunk(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "random").write_bytes(os.urandom(10_000))
    (tree / "text").write_bytes(b"naiad " * 2000)
    built(tree, tmp_path / "image")
    image = Bootstrap.open(tmp_path / "image" / "image.boot")
    assert [chunk.codec for chunk in image.chunks(0)] == [Codec.NONE, Codec.LZ4]
    image.close()


def test_holes_cost_no_reading_and_share_one_chunk(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        file.truncate(5 << 30)
        file.seek(3 << 30)
        file.write(b"in the middle")
    result = built(tree, tmp_path / "image")
    assert result.size == 5 << 30
    assert result.chunks == 2
    assert result.blob_size < 100_000
    with opened(tmp_path / "image") as image:
        nid = image.lookup(image.root, b"sparse")
        assert nid is not None
        assert len(image.extents(nid, 0, 1 << 40)) == 5 * 1024


@pytest.mark.parametrize(("size", "expected"), [(399 << 20, 256 << 10), (400 << 20, 1 << 20)])
def test_chunks_are_small_in_small_images(tmp_path: Path, size: int, expected: int) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    with (tree / "hole").open("wb") as file:
        file.truncate(size)
    assert built(tree, tmp_path / "image").chunk_size == expected


def test_an_empty_tree_is_an_image_without_blobs(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    result = built(tmp_path / "tree", tmp_path / "image")
    assert result.blobs == ()
    assert of_image(tmp_path / "image") == of_directory(tmp_path / "tree")


def test_a_socket_is_left_out_with_a_word(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    bind_socket(tree / "control")
    result = built(tree, tmp_path / "image")
    assert [str(tree / "control") in word for word in result.warnings] == [True]
    assert list(of_image(tmp_path / "image")) == [b""]


def test_a_chunk_dict_lends_what_it_has(hard_tree: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(hard_tree / "data", newer)
    (newer / "more").write_bytes(b"only here" * 1000)
    old = built(hard_tree, tmp_path / "old")
    with opened(tmp_path / "old") as image:
        target = DirectoryTarget(tmp_path / "new", [tmp_path / "none", tmp_path / "old" / "blobs"])
        result = build(DirectorySource(newer), target, BuildOptions(dicts=[image]))
    assert set(result.blobs) == {result.blob, old.blob}
    assert result.blob_size < 20_000
    assert result.warnings == ()
    assert of_image(tmp_path / "new") == of_directory(newer)


def test_an_image_of_lent_chunks_alone_has_no_blob_of_its_own(
    hard_tree: Path, tmp_path: Path
) -> None:
    built(hard_tree, tmp_path / "old")
    with opened(tmp_path / "old") as image:
        result = built(hard_tree, tmp_path / "new", BuildOptions(dicts=[image]))
    assert result.blob is None
    assert not list((tmp_path / "new" / "blobs").iterdir())
    assert [result.blobs[0] in word for word in result.warnings] == [True]


def test_a_chunk_dict_of_another_chunk_size_is_refused(hard_tree: Path, tmp_path: Path) -> None:
    built(hard_tree, tmp_path / "old", BuildOptions(chunk_size=1 << 20))
    with opened(tmp_path / "old") as image, pytest.raises(BadSource, match="1048576"):
        built(hard_tree, tmp_path / "new", BuildOptions(dicts=[image], chunk_size=4096))


def test_files_to_fetch_ahead_are_listed_in_their_order(hard_tree: Path, tmp_path: Path) -> None:
    wanted = (b"/data/text-4096", b"/many", b"no/such", b"a-link", b"/z-link")
    result = built(hard_tree, tmp_path, BuildOptions(prefetch=wanted))
    with opened(tmp_path) as image:
        names = {image.lookup(image.root, name): name for name in (b"many", b"a-link")}
        assert [names.get(nid) for nid in image.prefetch] == [None, b"many", b"a-link"]
    assert [b"no/such" in word.encode() for word in result.warnings] == [True]


def test_chunks_of_listed_files_lie_together_in_their_order(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "lib").mkdir(parents=True)
    for number in range(30):
        (tree / "lib" / f"{number:02d}").write_bytes(os.urandom(5000 + number))
    (tree / "lib" / "shared").write_bytes((tree / "lib" / "03").read_bytes())
    (tree / "link").symlink_to("/lib")
    wanted = (b"/link/17", b"lib/../lib/shared", b"lib/05", b"/lib/17", b"lib")
    options = BuildOptions(prefetch=wanted, chunk_size=4096)
    result = built(tree, tmp_path / "image", options)
    assert of_image(tmp_path / "image") == of_directory(tree)
    with opened(tmp_path / "image") as image:
        lib = image.lookup(image.root, b"lib")
        assert lib is not None
        names = {nid: name for name, nid, _ in image.scan(lib, 0)} | {lib: b"lib"}
        assert [names[nid] for nid in image.prefetch] == [b"17", b"shared", b"05", b"lib"]
        places = [place for nid in image.prefetch[:3] for place in image.file_chunks(nid)]
        assert [place[1].index for place in places if place] == [0, 1, 2, 3, 4, 5]
        chunks = list(image.chunks(0))
        assert [chunk.stored_offset for chunk in chunks[1:]] == [
            chunk.stored_stop for chunk in chunks[:-1]
        ]
    assert result.warnings == ()


def test_listed_files_of_an_archive_lie_together_too(hard_tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "tree.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(hard_tree / "data", ".")
    options = BuildOptions(prefetch=[b"text-4096", b"random-1"])
    build(TarSource(archive), DirectoryTarget(tmp_path / "image"), options)
    with opened(tmp_path / "image") as image:
        found = [place for nid in image.prefetch for place in image.file_chunks(nid)]
        assert [place[1].index for place in found if place] == list(range(len(found)))


def test_a_trial_of_the_image_tells_what_a_start_needs(hard_tree: Path, tmp_path: Path) -> None:
    def trial(draft: Draft) -> list[bytes]:
        assert draft.blob is not None
        with closing(Bootstrap.open(draft.bootstrap.path)) as image:
            assert image.blobs[0].id == draft.blob.digest.hex
            assert draft.blob.digest.matches(draft.blob.path.read_bytes())
            assert image.lookup(image.root, b"many") is not None
        return [b"data/text-4096", b"data/random-1", b"gone", b"gone-2", b"gone-3", b"gone-4"]

    asked = BuildOptions(trace=trial)
    result = built(hard_tree, tmp_path / "tried", asked)
    assert of_image(tmp_path / "tried") == of_directory(hard_tree)
    told = ["not in the image, so not fetched ahead: gone, gone-2, gone-3 and 1 more"]
    assert list(result.warnings) == told
    listed = BuildOptions(prefetch=[b"data/text-4096", b"data/random-1"])
    built(hard_tree, tmp_path / "listed", listed)
    assert content(tmp_path / "tried") == content(tmp_path / "listed")


def test_a_trial_that_fails_leaves_no_image(hard_tree: Path, tmp_path: Path) -> None:
    def trial(draft: Draft) -> list[bytes]:
        raise BadSource("the program does not start")

    with pytest.raises(BadSource, match="does not start"):
        built(hard_tree, tmp_path / "image", BuildOptions(trace=trial))
    assert not (tmp_path / "image").exists()


def test_a_list_keeps_a_chunk_dict_out_of_the_order(hard_tree: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(hard_tree / "data", newer)
    for name in "abc":
        (newer / name).write_bytes(os.urandom(9000))
    built(hard_tree, tmp_path / "old")
    with opened(tmp_path / "old") as image:
        target = DirectoryTarget(tmp_path / "new", [tmp_path / "old" / "blobs"])
        options = BuildOptions(dicts=[image], prefetch=[b"text-4096", b"c", b"a"])
        build(DirectorySource(newer), target, options)
    assert of_image(tmp_path / "new") == of_directory(newer)
    with opened(tmp_path / "new") as image:
        own = [place for nid in image.prefetch[1:] for place in image.file_chunks(nid)]
        assert [place[1].index for place in own if place] == [0, 1]


def test_a_wrong_chunk_size_is_the_callers_fault(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(Malformed, match="5000"):
        built(tmp_path / "tree", tmp_path / "image", BuildOptions(chunk_size=5000))


def test_progress_ends_at_the_whole(hard_tree: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    result = build(
        DirectorySource(hard_tree),
        DirectoryTarget(tmp_path),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == sorted(told)
    assert told[-1] == (result.size, result.size)


def test_the_dict_decides_how_chunks_are_hashed(hard_tree: Path, tmp_path: Path) -> None:
    sketch = Sketch(chunk_size=4096, algorithm=Algorithm.SHA256)
    sketch.root.children[b"older"] = sketch.file(b"you found me")
    old = Bootstrap.decode(sketch.bootstrap())
    result = built(hard_tree, tmp_path, BuildOptions(dicts=[old]))
    assert result.chunk_size == 4096
    assert set(result.blobs) == {result.blob, old.blobs[0].id}
    with opened(tmp_path) as image:
        assert image.algorithm is Algorithm.SHA256


def test_a_dict_that_lies_about_a_size_is_refused(tmp_path: Path) -> None:
    sketch = Sketch(chunk_size=4096)
    node = sketch.file(b"x")
    lie = Chunk(0, Digest.of(b"xx"), 0, 1, 0, 1, Codec.NONE)
    sketch.chunks = ChunkList()
    sketch.chunks.append(0, lie)
    sketch.root.children[b"x"] = node
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "xx").write_bytes(b"xx")
    options = BuildOptions(dicts=[Bootstrap.decode(sketch.bootstrap())])
    with pytest.raises(BadSource, match="chunk dict"):
        built(tmp_path / "tree", tmp_path / "image", options)
    assert not (tmp_path / "image").exists()


def _copy_backwards(source: Path, target: Path) -> None:
    """Copy a tree with everything, making names in the opposite order and links the other way."""
    made: dict[int, Path] = {}
    target.mkdir()
    paths = list(_parents_first(source))
    for path in paths:
        status = path.lstat()
        copy = target / path.relative_to(source)
        if status.st_ino in made and not path.is_dir():
            copy.hardlink_to(made[status.st_ino])
        elif path.is_symlink():
            os.symlink(os.readlink(path), copy)  # noqa: PTH115, PTH211  # pathlib normalises
        elif path.is_dir():
            copy.mkdir()
        elif path.is_file():
            shutil.copyfile(path, copy)
        else:
            os.mknod(copy, status.st_mode, status.st_rdev)
        made.setdefault(status.st_ino, copy)
    for path in [*reversed(paths), source]:
        _copy_attributes(path, target / path.relative_to(source))


def _parents_first(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir(), reverse=True):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _parents_first(path)


def _copy_attributes(path: Path, copy: Path) -> None:
    status = path.lstat()
    os.chown(copy, status.st_uid, status.st_gid, follow_symlinks=False)
    if not path.is_symlink():
        copy.chmod(status.st_mode & 0o7777)
    for name in os.listxattr(path, follow_symlinks=False):
        value = os.getxattr(path, name, follow_symlinks=False)
        os.setxattr(copy, name, value, follow_symlinks=False)
    os.utime(copy, ns=(0, status.st_mtime_ns), follow_symlinks=False)
