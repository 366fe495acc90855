"""Cache files: what is ready stays right whatever images, crashes and damage bring."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chunkstore import Blob, CacheUnusable, Corrupt, Digest
from chunkstore.blobcache import BlobCache
from chunkstore.shelf import Shelf
from fixtures.blobs import MadeBlob, make_blob
from fixtures.cacheuser import BLOB, OWNER, peek
from fixtures.shelves import put_all, reopened

OTHER_OWNER = Digest.of(b"another image")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    opened = BlobCache(tmp_path / "cache")
    yield opened
    opened.close()


@pytest.fixture
def shelf(cache: BlobCache) -> Shelf:
    return Shelf(cache, BLOB.blob, OWNER)


def hostile_twin(index: int = 3) -> MadeBlob:
    """Return a blob that claims the shared blob's id with other bytes."""
    return make_blob([65536] * 24 + [5000], seed=666, blob_id=BLOB.blob.id)


class TestFolder:
    def test_it_is_made_private(self, tmp_path: Path) -> None:
        BlobCache(tmp_path / "a" / "b").close()
        assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700

    @pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777])
    def test_one_open_to_others_is_refused(self, tmp_path: Path, mode: int) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache").chmod(mode)
        with pytest.raises(CacheUnusable, match="0700"):
            BlobCache(tmp_path / "cache")

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_one_of_another_user_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir(0o700)
        os.chown(tmp_path / "cache", 12345, 12345)
        with pytest.raises(CacheUnusable, match="12345"):
            BlobCache(tmp_path / "cache")

    def test_a_file_in_its_place_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_bytes(b"")
        with pytest.raises(CacheUnusable):
            BlobCache(tmp_path / "cache")

    def test_blob_ids_too_long_for_a_file_name_are_hashed(self, cache: BlobCache) -> None:
        blob = replace(BLOB.blob, id="x" * 255)
        shelf = Shelf(cache, blob, OWNER)
        assert shelf.put(BLOB.chunks[0], BLOB.data(0))
        assert len(shelf.shared.place.name) == 65
        shelf.close()
        file = cache.reopen(cache.place(blob.id))
        assert file is not None
        cache.close_file(file)

    def test_blob_ids_like_our_suffixes_are_told_apart(self, cache: BlobCache) -> None:
        ids = ["b", "b.map", "b.data", "b.new", "b.map.map"]
        shelves = [Shelf(cache, replace(BLOB.blob, id=name), OWNER) for name in ids]
        for number, shelf in enumerate(shelves):
            assert shelf.put(BLOB.chunks[number], BLOB.data(number))
        for number, shelf in enumerate(shelves):
            ready = [i for i in range(len(ids)) if shelf.find(BLOB.chunks[i]) is not None]
            assert ready == [number]


class TestReady:
    def test_what_was_put_is_found(self, shelf: Shelf) -> None:
        assert peek(shelf, 3) is None
        put_all(shelf)
        assert [peek(shelf, i) for i in range(25)] == [BLOB.data(i) for i in range(25)]

    def test_wrong_bytes_never_get_in(self, shelf: Shelf) -> None:
        spoilt = bytearray(BLOB.data(3))
        spoilt[7] ^= 1
        for data in (spoilt, b"", BLOB.data(3)[:-1], BLOB.data(3) + b"x", BLOB.data(4)):
            with pytest.raises(Corrupt):
                shelf.put(BLOB.chunks[3], data)
        assert shelf.shared.map.states[3] == 0
        assert shelf.shared.allocated == 0

    def test_a_second_daemon_finds_what_the_first_put(self, cache: BlobCache, shelf: Shelf) -> None:
        put_all(shelf)
        other_cache, other = reopened(cache.root)
        assert [peek(other, i) for i in range(25)] == [BLOB.data(i) for i in range(25)]
        other_cache.close()

    def test_a_chunk_of_no_slot_or_place_is_not_kept(self, shelf: Shelf) -> None:
        chunk = BLOB.chunks[3]
        for odd in (
            replace(chunk, index=25),
            replace(chunk, index=1 << 23),
            replace(chunk, offset=BLOB.blob.size - 4096),
            replace(chunk, offset=1 << 60),
        ):
            assert not shelf.put(odd, BLOB.data(3))
            assert shelf.find(odd) is None

    def test_images_that_list_parts_of_a_blob_share_its_slots(
        self, cache: BlobCache, shelf: Shelf
    ) -> None:
        part = Shelf(cache, BLOB.blob, OTHER_OWNER)
        for index in (20, 3, 24):
            assert part.put(BLOB.chunks[index], BLOB.data(index))
        assert [i for i in range(25) if peek(shelf, i)] == [3, 20, 24]
        assert shelf.put(BLOB.chunks[4], BLOB.data(4))
        assert part.find(BLOB.chunks[4]) is not None
        assert part.apart is None

    def test_threads_may_put_the_same_chunks(self, shelf: Shelf) -> None:
        threads = [threading.Thread(target=put_all, args=(shelf,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))

    def test_a_view_outlives_the_shelf(self, cache: BlobCache, shelf: Shelf) -> None:
        put_all(shelf)
        chunk = BLOB.chunks[2]
        view = shelf.shared.piece(chunk.offset, chunk.stop)
        shelf.close()
        assert view == BLOB.data(2)


@pytest.mark.logs("kept apart")
class TestHostileImages:
    """A bootstrap may name any blob id with digests and places of its own."""

    def test_one_that_came_first_poisons_nobody(self, cache: BlobCache, shelf: Shelf) -> None:
        twin = hostile_twin()
        attacker = Shelf(cache, twin.blob, OTHER_OWNER)
        for chunk in twin.chunks:
            assert attacker.put(chunk, twin.data(chunk.index))
        assert all(shelf.find(chunk) is None for chunk in BLOB.chunks)
        put_all(shelf)
        assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))
        assert shelf.apart is not None
        assert all(peek_as(attacker, twin, i) == twin.data(i) for i in range(25))

    def test_one_that_came_later_reads_nothing(self, cache: BlobCache, shelf: Shelf) -> None:
        put_all(shelf)
        twin = hostile_twin()
        attacker = Shelf(cache, twin.blob, OTHER_OWNER)
        assert all(attacker.find(chunk) is None for chunk in twin.chunks)
        assert attacker.put(twin.chunks[3], twin.data(3))
        assert attacker.apart is not None
        assert peek(shelf, 3) == BLOB.data(3)

    def test_a_shifted_place_finds_and_overwrites_nothing(
        self, cache: BlobCache, shelf: Shelf
    ) -> None:
        put_all(shelf)
        attacker = Shelf(cache, BLOB.blob, OTHER_OWNER)
        for odd in (
            replace(BLOB.chunks[3], offset=BLOB.chunks[4].offset),
            replace(BLOB.chunks[3], offset=BLOB.chunks[3].offset + 1),
            replace(BLOB.chunks[3], index=4),
        ):
            assert attacker.find(odd) is None
            attacker.put(odd, BLOB.data(3))
            assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))

    def test_claims_that_overlap_go_apart(self, cache: BlobCache, shelf: Shelf) -> None:
        assert shelf.put(BLOB.chunks[3], BLOB.data(3))
        attacker = Shelf(cache, BLOB.blob, OTHER_OWNER)
        over = replace(BLOB.chunks[5], offset=BLOB.chunks[3].offset + 100)
        assert attacker.put(over, BLOB.data(5))
        assert attacker.apart is not None
        assert peek(shelf, 3) == BLOB.data(3)

    def test_a_blob_said_to_be_small_grows_for_those_who_know_better(
        self, cache: BlobCache
    ) -> None:
        tiny = Blob(BLOB.blob.id, 4096, 0, 1)
        small = Shelf(cache, tiny, OTHER_OWNER)
        shelf = Shelf(cache, BLOB.blob, OWNER)
        put_all(shelf)
        assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))
        assert small.shared is shelf.shared

    def test_a_blob_said_to_be_huge_harms_nobody(self, cache: BlobCache) -> None:
        huge = Blob(BLOB.blob.id, 1 << 43, 0, 1 << 20)
        attacker = Shelf(cache, huge, OTHER_OWNER)
        shelf = Shelf(cache, BLOB.blob, OWNER)
        put_all(shelf)
        assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))
        assert shelf.shared.allocated < 2 * BLOB.blob.size
        attacker.close()

    def test_each_image_has_its_own_apart(self, cache: BlobCache, shelf: Shelf) -> None:
        put_all(shelf)
        owners = [Digest.of(bytes([n])) for n in range(3)]
        twins = [make_blob([65536] * 3, seed=n, blob_id=BLOB.blob.id) for n in range(7, 10)]
        shelves = [
            Shelf(cache, twin.blob, owner) for twin, owner in zip(twins, owners, strict=True)
        ]
        for twin, each in zip(twins, shelves, strict=True):
            assert each.put(twin.chunks[1], twin.data(1))
        for twin, each in zip(twins, shelves, strict=True):
            assert peek_as(each, twin, 1) == twin.data(1)
        assert len(list((cache.root / "apart").iterdir())) == 3

    def test_an_image_finds_its_own_apart_again(self, cache: BlobCache, shelf: Shelf) -> None:
        put_all(shelf)
        twin = hostile_twin()
        first = Shelf(cache, twin.blob, OTHER_OWNER)
        assert first.put(twin.chunks[3], twin.data(3))
        first.close()
        again = Shelf(cache, twin.blob, OTHER_OWNER)
        assert peek_as(again, twin, 3) == twin.data(3)


def peek_as(shelf: Shelf, made: MadeBlob, index: int) -> bytes | None:
    chunk = made.chunks[index]
    file = shelf.find(chunk)
    if file is None:
        return None
    piece = file.piece(chunk.offset, chunk.stop)
    return None if piece is None else bytes(piece)


class TestFullDisk:
    def test_no_room_for_a_chunk_leaves_it_missing(self, shelf: Shelf) -> None:
        with (
            file_size_limit(BLOB.chunks[10].offset),
            pytest.raises(OSError, match="large") as raised,
        ):
            shelf.put(BLOB.chunks[10], BLOB.data(10))
        assert raised.value.errno == errno.EFBIG
        assert shelf.find(BLOB.chunks[10]) is None
        assert shelf.put(BLOB.chunks[10], BLOB.data(10))

    def test_no_room_for_the_files_leaves_none(self, cache: BlobCache) -> None:
        with file_size_limit(4096), pytest.raises(OSError, match="large"):
            Shelf(cache, BLOB.blob, OWNER)
        assert list((cache.root / "blobs").iterdir()) == []
        assert cache.open_files() == []
        put_all(Shelf(cache, BLOB.blob, OWNER))


class file_size_limit:  # noqa: N801
    """No file of this process grows beyond a size meanwhile: a full disk without a disk."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> None:
        self._signal = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self._limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._limits[1]))

    def __exit__(self, *exc: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._limits)
        signal.signal(signal.SIGXFSZ, self._signal)
