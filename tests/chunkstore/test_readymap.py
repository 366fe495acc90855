"""The ready map: claims against a model, and what damage comes to."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from chunkstore import Algorithm, Chunk, Codec, Digest
from chunkstore.direct import resident
from chunkstore.readymap import (
    CLAIMED,
    CLEAN,
    EMPTY,
    READY,
    UNVERIFIED,
    Header,
    ReadyMap,
    any_claimed,
    first_claimed,
    last_claimed,
)

SLOTS = 40


def chunk(index: int, offset: int, size: int, salt: int = 0) -> Chunk:
    digest = Digest.of(f"{index} {offset} {size} {salt}".encode())
    return Chunk(index, digest, offset, size, 0, size, Codec.NONE)


def made(path: Path | None = None, slots: int = SLOTS) -> ReadyMap:
    if path is None:
        fd, name = tempfile.mkstemp()
        Path(name).unlink()
    else:
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
    ready_map = ReadyMap(fd)
    ready_map.store(Header(slots, 1 << 30, 1, CLEAN, bytes(32)))
    ready_map.map(slots)
    return ready_map


@pytest.fixture
def ready_map(tmp_path: Path) -> Iterator[ReadyMap]:
    made_map = made(tmp_path / "map")
    yield made_map
    os.close(made_map._fd)


def test_states_are_five_bits_apart() -> None:
    values = (EMPTY, CLAIMED, READY, UNVERIFIED)
    assert all((a ^ b).bit_count() >= 5 for a in values for b in values if a != b)


def test_a_slot_is_claimed_once(ready_map: ReadyMap) -> None:
    mine, other = chunk(3, 4096, 100), chunk(3, 4096, 100, salt=1)
    assert ready_map.claim(mine)
    assert ready_map.claim(mine)
    assert not ready_map.claim(other)
    assert ready_map.matches(mine)
    assert not ready_map.matches(other)


def test_records_near_one_that_is_read_come_from_the_disk_with_it(tmp_path: Path) -> None:
    ready_map = made(tmp_path / "map", 4000)
    for index in (0, 3999):
        assert ready_map.claim(chunk(index, index << 12, 100))
    handle = ready_map._fd
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    near, size = 4096 + (32 << 20), 4000 * 48
    assert not resident(handle, near, near + 48)
    assert ready_map.matches(chunk(0, 0, 100))
    assert resident(handle, near, near + size)
    os.close(handle)


@pytest.mark.parametrize(
    "other",
    [
        Chunk(3, Digest.of(b"x", Algorithm.SHA256), 4096, 100, 0, 1, Codec.NONE),
        Chunk(3, Digest.of(b"y"), 4096, 100, 0, 1, Codec.NONE),
        Chunk(3, Digest.of(b"x"), 4097, 100, 0, 1, Codec.NONE),
        Chunk(3, Digest.of(b"x"), 4096, 101, 0, 1, Codec.NONE),
    ],
)
def test_digest_algorithm_place_and_size_must_all_be_equal(
    ready_map: ReadyMap, other: Chunk
) -> None:
    assert ready_map.claim(Chunk(3, Digest.of(b"x"), 4096, 100, 0, 1, Codec.NONE))
    assert not ready_map.matches(other)
    assert not ready_map.claim(other)


@pytest.mark.parametrize(
    ("index", "offset", "size", "fits"),
    [
        (5, 2000, 1000, True),
        (5, 1999, 10, False),  # into slot 4
        (5, 2999, 2, False),  # into slot 6
        (7, 0, 1000, False),  # before slot 6, after it in number
        (2, 3100, 10, False),
        (0, 0, 1000, True),
        (39, 3100, 16 << 20, True),
        (39, 3100, (16 << 20) + 1, False),
        (5, 2000, 0, False),
    ],
)
def test_claims_keep_clear_of_claimed_neighbours(
    ready_map: ReadyMap, index: int, offset: int, size: int, fits: bool
) -> None:
    assert ready_map.claim(chunk(4, 1000, 1000))
    assert ready_map.claim(chunk(6, 3000, 100))
    assert ready_map.claim(chunk(index, offset, size)) is fits


def test_a_slot_added_by_another_process_is_in_the_way(tmp_path: Path) -> None:
    small = made(tmp_path / "map", 10)
    large = ReadyMap(os.open(tmp_path / "map", os.O_RDWR))
    large.store(Header(1000, 1 << 30, 1, CLEAN, bytes(32)))
    large.map(1000)
    assert large.claim(chunk(500, 4096, 4096))
    assert not small.claim(chunk(5, 4096, 4096))
    assert small.claim(chunk(5, 0, 4096))
    os.close(small._fd)
    os.close(large._fd)


def test_trust_needs_the_mark(ready_map: ReadyMap) -> None:
    mine = chunk(3, 0, 100)
    assert ready_map.claim(mine)
    ready_map.states[3] = READY  # damage: nobody wrote the bytes
    assert not ready_map.trusted(mine)
    ready_map.mark(3)
    assert ready_map.trusted(mine)
    ready_map.unmark(3)
    assert not ready_map.trusted(mine)
    assert ready_map.matches(mine)


@given(st.integers(0, 3), st.integers(0, 48 * 8 - 1))
@settings(max_examples=60)
def test_a_flipped_bit_in_a_record_makes_it_nobodys(index: int, bit: int) -> None:
    ready_map = made()
    chunks = [chunk(i, i * 4096, 100 + i) for i in range(4)]
    for each in chunks:
        assert ready_map.claim(each)
        ready_map.mark(each.index)
    at = 4096 + (32 << 20) + index * 48 + bit // 8
    byte = os.pread(ready_map._fd, 1, at)[0] ^ 1 << bit % 8
    os.pwrite(ready_map._fd, bytes([byte]), at)
    assert not ready_map.trusted(chunks[index]) or bit // 8 >= 46
    if bit // 8 != 45:
        assert ready_map.record(index) is None
    os.close(ready_map._fd)


def test_a_damaged_state_is_mended_by_the_record(ready_map: ReadyMap) -> None:
    mine = chunk(3, 0, 100)
    assert ready_map.claim(mine)
    ready_map.states[3] = 0x42
    assert not ready_map.claim(chunk(3, 0, 100, salt=1))
    assert ready_map.states[3] == CLAIMED
    ready_map.states[3] = 0x42
    assert ready_map.claim(mine)


def test_a_state_that_was_wiped_frees_no_slot_that_was_filled(ready_map: ReadyMap) -> None:
    mine = chunk(3, 0, 100)
    assert ready_map.claim(mine)
    ready_map.mark(3)
    ready_map.states[3] = EMPTY
    assert not ready_map.claim(chunk(3, 0, 100, salt=1))
    assert ready_map.matches(mine)
    assert ready_map.states[3] == CLAIMED


def test_a_claim_that_was_killed_before_its_state_was_set_is_none(ready_map: ReadyMap) -> None:
    assert ready_map.claim(chunk(3, 0, 100))
    ready_map.states[3] = EMPTY
    assert ready_map.claim(chunk(3, 4096, 100))


def test_after_a_crash_nothing_is_ready_and_lost_records_free_their_slots(
    ready_map: ReadyMap,
) -> None:
    for i in range(4):
        assert ready_map.claim(chunk(i, i * 4096, 100))
    ready_map.states[0] = ready_map.states[1] = READY
    os.pwrite(ready_map._fd, bytes(48), 4096 + (32 << 20) + 48)
    ready_map.distrust(SLOTS)
    assert list(ready_map.states[:5]) == [UNVERIFIED, EMPTY, CLAIMED, CLAIMED, EMPTY]


def test_ready_size_counts_ready_and_doubtful_bytes(ready_map: ReadyMap) -> None:
    for i, state in enumerate((READY, UNVERIFIED, CLAIMED, EMPTY)):
        assert ready_map.claim(chunk(i, i * 4096, 100 + i))
        ready_map.states[i] = state
    assert ready_map.ready_size() == 201


@given(st.integers(0, 5000), st.sets(st.integers(0, 4999), max_size=6))
def test_neighbours_are_what_a_scan_finds(index: int, claimed: set[int]) -> None:
    states = bytearray(5000)
    for at in claimed:
        states[at] = random.Random(at).choice([CLAIMED, READY, UNVERIFIED, 7])
    view = memoryview(states)
    assert last_claimed(view, index) == max((i for i in claimed if i < index), default=None)
    assert first_claimed(view, index) == min((i for i in claimed if i >= index), default=None)
    assert any_claimed(view, 0, index) == any(i < index for i in claimed)


@given(st.binary(max_size=200), st.integers(0, 75), st.integers(0, 7))
def test_only_a_whole_header_decodes(noise: bytes, at: int, bit: int) -> None:
    header = Header(12, 1 << 40, 77, b"b" * 16, b"n" * 32)
    data = header.encode()
    assert Header.decode(data + noise) == header
    damaged = bytearray(data)
    damaged[at % len(data)] ^= 1 << bit
    assert Header.decode(bytes(damaged)) is None
    assert Header.decode(noise) is None


class Claims(RuleBasedStateMachine):
    """Claims against a plain model: what is claimed stays, and nothing overlaps."""

    def __init__(self) -> None:
        super().__init__()
        self.map = made()
        self.model: dict[int, Chunk] = {}

    @rule(
        index=st.integers(0, SLOTS - 1),
        page=st.integers(0, SLOTS + 2),
        size=st.integers(1, 9000),
        salt=st.integers(0, 1),
    )
    def claim(self, index: int, page: int, size: int, salt: int) -> None:
        wanted = chunk(index, page * 4096, size, salt)
        free = index not in self.model and all(
            (other.stop <= wanted.offset) if at < index else (wanted.stop <= other.offset)
            for at, other in self.model.items()
        )
        assert self.map.claim(wanted) == (free or self.model.get(index) == wanted)
        if free:
            self.model[index] = wanted

    @rule(index=st.integers(0, SLOTS - 1), state=st.sampled_from([CLAIMED, READY, UNVERIFIED]))
    def move(self, index: int, state: int) -> None:
        if index in self.model:
            self.map.states[index] = state

    @invariant()
    def records_are_the_models(self) -> None:
        records = {
            index: (record.digest, record.offset, record.size)
            for index, record in self.map.records()
        }
        assert records == {i: (c.digest, c.offset, c.size) for i, c in self.model.items()}

    def teardown(self) -> None:
        os.close(self.map._fd)


TestClaims = Claims.TestCase
TestClaims.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


SET_EVERY_OTHER = """
import os, sys
from chunkstore.readymap import CLAIMED, READY, ReadyMap
ready_map = ReadyMap(os.open(sys.argv[1], os.O_RDWR))
ready_map.map(40)
sys.stdin.read(1)
for turn in range(4001):
    for index in range(int(sys.argv[2]), 40, 2):
        ready_map.states[index] = READY if turn % 2 == 0 else CLAIMED
"""


def test_two_processes_lose_none_of_each_others_states(tmp_path: Path) -> None:
    ready_map = made(tmp_path / "map")
    command = [sys.executable, "-c", SET_EVERY_OTHER, str(tmp_path / "map")]
    others = [subprocess.Popen([*command, first], stdin=subprocess.PIPE) for first in "01"]
    for other in others:
        other.communicate(b"!", timeout=60)
    assert [other.returncode for other in others] == [0, 0]
    assert ready_map.states.tobytes() == bytes([READY]) * SLOTS
    os.close(ready_map._fd)
