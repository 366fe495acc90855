"""Shelves of files that are checked as a whole: what is trusted when, and what is kept where."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from chunkstore import Blob, Chunk, Codec, Corrupt, Digest
from chunkstore.blobcache import BlobCache
from chunkstore.checksum import Checksum, Kind
from chunkstore.provisional import AtOnce, Provisional
from chunkstore.shelf import Shelf
from chunkstore.whole import STEP, Vouched, Whole, placeholder

DATA = random.Random(5).randbytes(3 * STEP + 1234)
CHECKSUM = Checksum(Kind.SHA256, hashlib.sha256(DATA).digest())
BLOB = Blob(CHECKSUM.raw.hex(), len(DATA), len(DATA), 4)
WHOLE = Whole("weights", len(DATA), CHECKSUM, BLOB.id, 0, 0)
OWNER, OTHER_OWNER = Digest.of(b"an image"), Digest.of(b"another one")

Open = Callable[..., Provisional]


def chunk(index: int) -> Chunk:
    start = index * STEP
    size = min(STEP, len(DATA) - start)
    return Chunk(index, placeholder(CHECKSUM, index), start, size, start, size, Codec.NONE)


def data(index: int) -> bytes:
    return DATA[index * STEP : (index + 1) * STEP]


def put_all(shelf: Provisional) -> None:
    for index in range(4):
        assert shelf.put(chunk(index), data(index))


def found(shelf: Provisional) -> list[str | None]:
    """Return the folder in which each chunk is."""
    files = [shelf.find(chunk(index)) for index in range(4)]
    return [None if file is None else file.place.folder.parent.name for file in files]


@pytest.fixture
def open_shelf(tmp_path: Path) -> Iterator[Open]:
    """Return what opens a shelf in a cache of its own process, so to speak."""
    with ExitStack() as stack:

        def opened(full: Callable[[], None] = lambda: None, owner: Digest = OWNER) -> Provisional:
            cache = stack.enter_context(closing(BlobCache(tmp_path / "cache")))
            return Provisional(cache, BLOB, owner, WHOLE, Vouched(cache.root), full)

        yield opened


def test_what_nobody_has_checked_lies_apart_and_is_found_again(open_shelf: Open) -> None:
    shelf = open_shelf()
    assert found(shelf) == [None] * 4
    shelf.put(chunk(1), data(1))
    assert found(shelf) == [None, "apart", None, None]
    assert shelf.is_doubtful
    shelf.close()
    assert found(open_shelf()) == [None, "apart", None, None]
    assert found(open_shelf(owner=OTHER_OWNER)) == [None] * 4


def test_a_file_that_is_right_moves_to_the_shared_cache(open_shelf: Open, tmp_path: Path) -> None:
    told: list[bool] = []
    shelf = open_shelf(lambda: told.append(True))
    assert shelf.settle()
    assert not shelf.is_checked
    put_all(shelf)
    assert told == [True]
    assert shelf.settle()
    assert shelf.is_checked
    assert not shelf.is_doubtful
    assert [name == "apart" for name in found(shelf)] == [False] * 4
    shelf.close()
    assert not list((tmp_path / "cache" / "apart").glob("*/*"))
    other = open_shelf(owner=OTHER_OWNER)
    assert other.is_checked
    assert None not in found(other)
    with pytest.raises(Corrupt):
        other.put(chunk(0), data(1))


def test_a_file_that_is_wrong_is_dropped_and_then_given_up(open_shelf: Open) -> None:
    shelf = open_shelf()
    for attempt in range(2):
        assert found(shelf) == [None] * 4
        assert shelf.failure is None, attempt
        put_all(shelf)
        shelf.forget(chunk(2))
        with pytest.raises(Corrupt, match="not what it was before"):
            shelf.put(chunk(2), bytes(STEP))
        assert shelf.put(chunk(2), data(2))
        _spoil(shelf)
        assert not shelf.settle()
    assert found(shelf) == [None] * 4
    with pytest.raises(Corrupt, match="weights: the hub sends what does not match"):
        shelf.put(chunk(0), data(0))
    shelf.close()
    again = open_shelf()
    assert found(again) == [None] * 4
    put_all(again)
    assert again.settle()
    assert again.is_checked


def _spoil(shelf: Provisional) -> None:
    """Change the file on the disk."""
    (file,) = shelf.files
    with file.place.data.open("r+b") as opened:
        opened.seek(STEP)
        opened.write(b"spoiled")


def test_what_an_evictor_took_is_missing_and_checked_when_it_is_back(open_shelf: Open) -> None:
    shelf = open_shelf()
    put_all(shelf)
    (file,) = shelf.files
    assert file.evict([2], 1.0)
    assert shelf.settle()
    assert not shelf.is_checked
    assert found(shelf) == ["apart", "apart", None, "apart"]
    shelf.put(chunk(2), data(2))
    assert shelf.settle()
    assert shelf.is_checked


def test_what_another_process_has_checked_is_learnt(open_shelf: Open) -> None:
    first, second = open_shelf(), open_shelf()
    put_all(first)
    assert None not in found(second)
    assert first.settle()
    assert found(second) == [None] * 4, "moved"
    second.put(chunk(1), data(1))
    assert second.is_checked
    assert None not in found(second)
    with pytest.raises(Corrupt):
        second.put(chunk(2), data(1))


def test_what_is_full_when_it_is_opened_says_so(open_shelf: Open) -> None:
    shelf = open_shelf()
    put_all(shelf)
    shelf.close()
    told: list[bool] = []
    open_shelf(lambda: told.append(True))
    assert told == [True]


def test_a_list_of_digests_that_rotted_is_not_believed(open_shelf: Open, tmp_path: Path) -> None:
    shelf = open_shelf()
    put_all(shelf)
    assert shelf.settle()
    shelf.close()
    (kept,) = (tmp_path / "cache" / "vouched").iterdir()
    kept.write_bytes(kept.read_bytes()[:-1] + b"\0")
    again = open_shelf()
    assert not again.is_checked
    assert found(again) == [None] * 4


def test_an_image_that_took_the_place_before_poisons_nothing(open_shelf: Open) -> None:
    wrong = replace(chunk(0), digest=Digest.of(bytes(STEP)))
    with closing(BlobCache(open_shelf()._cache.root)) as attacker:
        assert Shelf(attacker, BLOB, OTHER_OWNER).put(wrong, bytes(STEP))
    shelf = open_shelf()
    put_all(shelf)
    assert shelf.settle()
    assert shelf.is_checked
    assert found(shelf)[0] == "apart"
    file = shelf.find(chunk(0))
    assert file is not None
    into = bytearray(STEP)
    with file.lease.shared():
        assert file.read(0, memoryview(into))
    assert into == data(0)


class TestAtOnce:
    small = Whole(
        "config", 5, Checksum(Kind.GIT, hashlib.sha1(b"blob 5\0hello").digest()), "x", 0, 0
    )
    blob = Blob("x", 4096, 4096, 1)
    chunk = Chunk(0, placeholder(small.checksum, 0), 0, 5, 0, 5, Codec.NONE)

    def test_only_what_matches_its_checksum_gets_in(self, tmp_path: Path) -> None:
        cache = BlobCache(tmp_path / "cache")
        shelf = AtOnce(cache, self.blob, OWNER, [self.small])
        for wrong in (b"hullo", b"hello!", b""):
            with pytest.raises(Corrupt, match="config"):
                shelf.put(self.chunk, wrong)
        assert shelf.find(self.chunk) is None
        assert shelf.put(self.chunk, b"hello")
        assert shelf.find(self.chunk) is not None
        shelf.forget(self.chunk)
        assert shelf.find(self.chunk) is None
        assert shelf.put(self.chunk, b"hello")
        shelf.close()
        again = AtOnce(cache, self.blob, OWNER, [self.small])
        assert again.find(self.chunk) is not None
        cache.close()
