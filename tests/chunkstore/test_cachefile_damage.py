"""Cache files after crashes and damage: nothing wrong is ready, what is right is found again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chunkstore.blobcache import BlobCache, boot_id
from chunkstore.readymap import CLAIMED, CLEAN, READY, UNVERIFIED
from chunkstore.shelf import Shelf
from fixtures.cacheuser import BLOB, OWNER, peek
from fixtures.shelves import edit, map_path, put_all, reopened

MAP_RECORDS = 4096 + (32 << 20)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[BlobCache]:
    opened = BlobCache(tmp_path / "cache")
    yield opened
    opened.close()


@pytest.fixture
def shelf(cache: BlobCache) -> Shelf:
    return Shelf(cache, BLOB.blob, OWNER)


class TestCrashes:
    BOOT, NEXT_BOOT = b"a" * 16, b"b" * 16

    def test_after_a_reboot_chunks_are_verified_at_first_use(self, tmp_path: Path) -> None:
        cache, shelf = reopened(tmp_path / "c", self.BOOT)
        put_all(shelf)
        crash(cache)
        after, shelf = reopened(tmp_path / "c", self.NEXT_BOOT)
        assert set(shelf.shared.map.states) == {UNVERIFIED}
        assert shelf.find(BLOB.chunks[3]) is None
        assert shelf.doubts(BLOB.chunks[3])
        assert shelf.verify(BLOB.chunks[3])
        assert peek(shelf, 3) == BLOB.data(3)
        assert shelf.shared.map.states.tobytes().count(READY) == 1
        after.close()

    @pytest.mark.logs("bad chunk dropped")
    def test_what_a_crash_spoilt_is_dropped_and_can_be_put_again(self, tmp_path: Path) -> None:
        cache, shelf = reopened(tmp_path / "c", self.BOOT)
        put_all(shelf)
        crash(cache)
        edit(cache.place(BLOB.blob.id).data, BLOB.chunks[3].offset, bytes(4096))
        after, shelf = reopened(tmp_path / "c", self.NEXT_BOOT)
        assert not shelf.verify(BLOB.chunks[3])
        assert shelf.shared.map.states[3] == CLAIMED
        assert shelf.put(BLOB.chunks[3], BLOB.data(3))
        assert peek(shelf, 3) == BLOB.data(3)
        assert shelf.verify(BLOB.chunks[4])
        after.close()

    def test_a_clean_close_is_believed_in_the_next_boot(self, tmp_path: Path) -> None:
        cache, shelf = reopened(tmp_path / "c", self.BOOT)
        put_all(shelf)
        cache.close()
        after, shelf = reopened(tmp_path / "c", self.NEXT_BOOT)
        assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))
        after.close()

    def test_only_the_last_user_leaves_it_clean(self, tmp_path: Path) -> None:
        cache, shelf = reopened(tmp_path / "c", self.BOOT)
        other, other_shelf = reopened(tmp_path / "c", self.BOOT)
        put_all(shelf)
        put_all(other_shelf)
        other.close()
        assert header_boot(cache) == self.BOOT
        cache.close()
        assert header_boot(cache) == CLEAN

    def test_the_first_change_after_a_clean_close_takes_the_mark_away(self, tmp_path: Path) -> None:
        cache, shelf = reopened(tmp_path / "c", self.BOOT)
        assert shelf.put(BLOB.chunks[0], BLOB.data(0))
        cache.close()
        cache, shelf = reopened(tmp_path / "c", self.NEXT_BOOT)
        assert peek(shelf, 0) == BLOB.data(0)
        assert header_boot(cache) == CLEAN
        assert shelf.put(BLOB.chunks[1], BLOB.data(1))
        assert header_boot(cache) == self.NEXT_BOOT
        crash(cache)
        cache, shelf = reopened(tmp_path / "c", b"c" * 16)
        assert shelf.find(BLOB.chunks[0]) is None
        assert shelf.doubts(BLOB.chunks[0])
        cache.close()

    def test_the_kernel_names_the_boot(self) -> None:
        assert len(boot_id()) == 16

    def test_a_killed_writer_leaves_nothing_wrong(self, tmp_path: Path) -> None:
        root = tmp_path / "c"
        for lines in (3, 14, 33, 60):
            command = [sys.executable, "-m", "fixtures.cacheuser", "write", str(root)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
                assert writer.stdout is not None
                for _ in range(lines):
                    writer.stdout.readline()
                writer.send_signal(signal.SIGKILL)
            cache, shelf = reopened(root)
            found = [peek(shelf, i) for i in range(25)]
            assert all(data in (None, BLOB.data(i)) for i, data in enumerate(found))
            put_all(shelf)
            assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))
            cache.close()


def crash(cache: BlobCache) -> None:
    """End as if killed: files closed by the kernel, nothing synced, nothing marked."""
    for file in cache.open_files():
        file._pair._close_files()
    cache.lock.close()
    cache.evicting.close()


def header_boot(cache: BlobCache) -> bytes:
    return map_path(cache).read_bytes()[32:48]


class TestDamage:
    @pytest.mark.logs("set aside")
    @pytest.mark.parametrize("at", [0, 8, 12, 16, 24, 32, 48, 79, 82])
    def test_a_flipped_bit_in_the_header_sets_the_map_aside(
        self, cache: BlobCache, shelf: Shelf, at: int
    ) -> None:
        put_all(shelf)
        shelf.close()
        byte = map_path(cache).read_bytes()[at]
        edit(map_path(cache), at, bytes([byte ^ 4]))
        again = Shelf(cache, BLOB.blob, OWNER)
        assert all(again.find(chunk) is None for chunk in BLOB.chunks)
        assert again.shared.allocated == 0
        assert map_path(cache).with_suffix(".damaged").exists()
        put_all(again)
        assert all(peek(again, i) == BLOB.data(i) for i in range(25))

    @pytest.mark.logs("kept apart")
    @pytest.mark.parametrize("bit", range(8))
    def test_a_flipped_bit_in_a_state_serves_no_hole(self, shelf: Shelf, bit: int) -> None:
        for index in range(3):
            assert shelf.put(BLOB.chunks[index], BLOB.data(index))
        states = shelf.shared.map.states
        for index in range(25):
            states[index] ^= 1 << bit
        assert all(shelf.find(chunk) is None for chunk in BLOB.chunks)
        put_all(shelf)
        assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))

    @pytest.mark.logs("without a record|kept apart")
    def test_a_state_that_says_ready_without_bytes_is_found_out(self, shelf: Shelf) -> None:
        with shelf.shared._pair.lock:
            assert shelf.shared.map.claim(BLOB.chunks[4])
        shelf.shared.map.states[4] = shelf.shared.map.states[5] = READY
        assert shelf.find(BLOB.chunks[4]) is None
        assert shelf.find(BLOB.chunks[5]) is None
        assert shelf.shared.map.states[4] == CLAIMED
        put_all(shelf)
        assert all(peek(shelf, i) == BLOB.data(i) for i in range(25))

    @pytest.mark.logs("kept apart|without a record")
    @pytest.mark.parametrize("byte", [0, 31, 32, 40, 44, 45, 46])
    def test_a_flipped_bit_in_a_record_is_never_a_wrong_byte(
        self, cache: BlobCache, shelf: Shelf, byte: int
    ) -> None:
        put_all(shelf)
        at = MAP_RECORDS + 48 * 3 + byte
        edit(map_path(cache), at, bytes([map_path(cache).read_bytes()[at] ^ 2]))
        other_cache, other = reopened(cache.root)  # a process without memories
        assert peek(other, 3) in (None, BLOB.data(3))
        put_all(other)
        assert all(peek(other, i) == BLOB.data(i) for i in range(25))
        other_cache.close()

    @pytest.mark.logs("set aside")
    def test_another_file_under_the_data_files_name_is_not_believed(
        self, cache: BlobCache, shelf: Shelf
    ) -> None:
        put_all(shelf)
        shelf.close()
        data = cache.place(BLOB.blob.id).data
        other = data.with_name("copy")
        other.write_bytes(bytes(data.stat().st_size))
        other.replace(data)
        again = Shelf(cache, BLOB.blob, OWNER)
        assert all(again.find(chunk) is None for chunk in BLOB.chunks)

    @pytest.mark.parametrize("which", ["data", "map"])
    def test_a_lost_file_is_made_anew(self, cache: BlobCache, shelf: Shelf, which: str) -> None:
        put_all(shelf)
        shelf.close()
        place = cache.place(BLOB.blob.id)
        (place.data if which == "data" else place.map).unlink()
        again = Shelf(cache, BLOB.blob, OWNER)
        assert all(again.find(chunk) is None for chunk in BLOB.chunks)
        put_all(again)
        assert all(peek(again, i) == BLOB.data(i) for i in range(25))

    @pytest.mark.logs("set aside")
    def test_a_cut_data_file_is_not_believed(self, cache: BlobCache, shelf: Shelf) -> None:
        put_all(shelf)
        shelf.close()
        os.truncate(cache.place(BLOB.blob.id).data, 100_000)
        again = Shelf(cache, BLOB.blob, OWNER)
        assert all(again.find(chunk) is None for chunk in BLOB.chunks)

    @pytest.mark.logs("set aside")
    def test_a_map_that_was_copied_to_another_blob_is_not_believed(
        self, cache: BlobCache, shelf: Shelf
    ) -> None:
        put_all(shelf)
        shelf.close()
        other = replace(BLOB.blob, id="other")
        here, there = cache.place(BLOB.blob.id), cache.place("other")
        here.map.rename(there.map)
        here.data.rename(there.data)
        again = Shelf(cache, other, OWNER)
        assert all(again.find(chunk) is None for chunk in BLOB.chunks)
