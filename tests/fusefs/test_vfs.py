from __future__ import annotations

import math
import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkstore import Unreachable
from fixtures.extents import DecodedFiles
from fixtures.small import BIG, small
from fusefs.blobfiles import BlobFiles
from fusefs.errors import FusefsError
from fusefs.slots import Slots
from fusefs.vfs import ROOT, SLOT_BITS, SMALL, UNREAD, WAITING_READS, Image, Vfs
from rafs import BadImage, Bootstrap, NoEntry, WrongKind


@pytest.fixture
def reader(image: Path) -> DecodedFiles:
    return DecodedFiles(image / "decoded", ready=False, delay=1.0)


@pytest.fixture
def vfs(image: Path, reader: DecodedFiles) -> Vfs:
    return Vfs(Image("image", Bootstrap.open(image / "image.boot"), reader))


def _node(vfs: Vfs, *names: bytes) -> int:
    node = ROOT
    for name in names:
        found = vfs.lookup(node, name)
        assert found is not None, name
        node = found
    return node


def test_one_image_is_the_root(vfs: Vfs) -> None:
    assert {name for name, _, _ in vfs.listing(ROOT, 0)} == {
        *(b"hello", b"big", b"poison", b"empty", b"link", b"folder")
    }
    assert _node(vfs, b"folder") >> SLOT_BITS == 0
    assert vfs.parent(_node(vfs, b"folder")) == ROOT
    assert vfs.parent(ROOT) == ROOT
    assert vfs.lookup(ROOT, b"absent") is None


def test_several_images_lie_in_a_directory_each(image: Path, reader: DecodedFiles) -> None:
    bootstrap = Bootstrap.open(image / "image.boot")
    vfs = Vfs()
    for name in ("one", "two"):
        vfs.add(Image(name, bootstrap, reader))
    assert [name for name, _, _ in vfs.listing(ROOT, 0)] == [b"one", b"two"]
    assert [name for name, _, _ in vfs.listing(ROOT, 1)] == [b"two"]
    one, two = (_node(vfs, name, b"folder", b"inside") for name in (b"one", b"two"))
    assert (one >> SLOT_BITS, two >> SLOT_BITS) == (1, 2)
    assert vfs.attributes(one) == vfs.attributes(two)
    assert vfs.parent(_node(vfs, b"two")) == ROOT
    assert vfs.parent(_node(vfs, b"two", b"folder")) == _node(vfs, b"two")
    assert vfs.attributes(ROOT)[:2] == (stat.S_IFDIR | 0o755, 4)
    assert vfs.lookup(ROOT, b"three") is None
    assert vfs.size == sum(blob.size for blob in bootstrap.blobs), "they share their blobs"


def test_images_of_one_name_are_a_mistake(image: Path, reader: DecodedFiles) -> None:
    same = Image("one", Bootstrap.open(image / "image.boot"), reader)
    vfs = Vfs()
    vfs.add(same)
    with pytest.raises(FusefsError, match="one: shown already"):
        vfs.add(same)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_what_cannot_be_a_name_is_refused(image: Path, reader: DecodedFiles, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        Vfs().add(Image(name, Bootstrap.open(image / "image.boot"), reader))


def test_removed_image_is_gone_and_its_slot_is_not_given_again(
    image: Path, reader: DecodedFiles
) -> None:
    bootstrap = Bootstrap.open(image / "image.boot")
    vfs = Vfs()
    first = vfs.add(Image("one", bootstrap, reader))
    big = _node(vfs, b"one", b"big")
    vfs.remove("one")
    assert vfs.lookup(ROOT, b"one") is None
    assert list(vfs.listing(ROOT, 0)) == []
    for ask in (vfs.attributes, vfs.parent, lambda node: vfs.look(node, 0, 10)):
        with pytest.raises(NoEntry):
            ask(big)
    assert vfs.add(Image("one", bootstrap, reader)) != first
    with pytest.raises(NoEntry):
        vfs.attributes(big)
    with pytest.raises(NoEntry):
        vfs.remove("two")


def test_slots_are_remembered_over_restarts(
    image: Path, tmp_path: Path, reader: DecodedFiles
) -> None:
    bootstrap = Bootstrap.open(image / "image.boot")
    one, two = (Image(name, bootstrap, reader) for name in ("one", "two"))
    vfs = Vfs(slots=Slots(tmp_path / "slots"))
    nodes = vfs.add(one), vfs.add(two)
    again = Vfs(slots=Slots(tmp_path / "slots"))
    assert (again.add(two), again.add(one)) == nodes[::-1], "in any order"
    again.remove("two")
    third = Vfs(slots=Slots(tmp_path / "slots"))
    assert third.add(two) not in nodes
    assert Slots(tmp_path / "slots").names == {"one", "two"}


def test_slots_that_cannot_be_read_are_no_reason_to_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "slots").write_text("{")
    with pytest.raises(FusefsError, match="cannot be read"):
        Slots(tmp_path / "slots")


def test_node_numbers_are_the_same_after_a_restart(image: Path, vfs: Vfs) -> None:
    again = Vfs(
        Image("image", Bootstrap.open(image / "image.boot"), DecodedFiles(image / "decoded"))
    )
    for names in ((b"big",), (b"folder", b"inside")):
        assert _node(vfs, *names) == _node(again, *names)


def test_hard_links_are_one_node(vfs: Vfs) -> None:
    inside = _node(vfs, b"folder", b"inside")
    assert inside == _node(vfs, b"folder", b"again")
    assert vfs.attributes(inside)[1] == 2
    assert vfs.xattrs(inside) == {b"user.colour": b"blue", b"security.capability": bytes(20)}
    assert vfs.xattrs(_node(vfs, b"big")) == {}


@pytest.mark.parametrize("node", [0, (5 << SLOT_BITS) + 3, (1 << 64) - 1, (1 << SLOT_BITS) - 1])
def test_numbers_that_no_image_gave_are_refused(vfs: Vfs, node: int) -> None:
    with pytest.raises((NoEntry, BadImage)):
        vfs.attributes(node)


def test_what_does_not_fit_the_kind_is_refused(vfs: Vfs) -> None:
    with pytest.raises(WrongKind):
        vfs.target(_node(vfs, b"big"))
    with pytest.raises(WrongKind):
        vfs.look(_node(vfs, b"folder"), 0, 10)
    with pytest.raises(WrongKind):
        list(vfs.listing(_node(vfs, b"big"), 0))


@pytest.fixture(scope="module")
def all_here(tmp_path_factory: pytest.TempPathFactory) -> Vfs:
    folder = tmp_path_factory.mktemp("vfs")
    small().save(folder)
    reader = DecodedFiles(folder / "decoded")
    return Vfs(Image("image", Bootstrap.open(folder / "image.boot"), reader))


@settings(max_examples=50)
@given(start=st.integers(0, len(BIG) + 5000), size=st.integers(0, 1 << 20))
def test_any_range_reads_as_the_file_does(all_here: Vfs, start: int, size: int) -> None:
    found = all_here.look(_node(all_here, b"big"), start, size)
    assert found is not None
    assert bytes(found) == BIG[start : start + size]


def test_empty_reads_need_no_reader(vfs: Vfs) -> None:
    assert vfs.look(_node(vfs, b"empty"), 0, 4096) == b""
    assert vfs.look(_node(vfs, b"big"), len(BIG), 4096) == b""


def test_the_disk_begins_with_a_small_file_when_it_is_opened(
    reader: DecodedFiles, image: Path
) -> None:
    reader.ready = True
    vfs = Vfs(Image("image", Bootstrap.open(image / "image.boot"), reader))
    node = _node(vfs, b"poison")
    vfs.foresee(node, 12345)
    ((start, stop),) = reader.hastened
    assert stop - start == 12345
    assert vfs.look(node, 0, 4096) == bytes(4096), "less than what was foreseen"
    for again in range(2):
        vfs.foresee(node, 12345)
        assert vfs.look(node, 0, 16384) == bytes(12345), again
    assert vfs.look(node, 0, 16384) == bytes(12345), "not foreseen"
    reader.hastened.clear()
    vfs.foresee(_node(vfs, b"big"), len(BIG))
    vfs.foresee(_node(vfs, b"empty"), 0)
    vfs.hasten(node, 0, 4096)
    assert reader.hastened == [], "what is large, empty, or not known yet"


def test_files_that_the_kernel_has_are_not_foreseen(image: Path, reader: DecodedFiles) -> None:
    reader.ready = True
    vfs = Vfs(Image("image", Bootstrap.open(image / "image.boot"), reader))
    node = _node(vfs, b"poison")
    for _ in range(3 * UNREAD):
        vfs.foresee(node, 12345)
    assert len(reader.hastened) == UNREAD
    assert vfs.look(node, 0, 16384) == bytes(12345), "the kernel asks again"
    vfs.foresee(node, 12345)
    assert len(reader.hastened) == UNREAD + 1


def test_the_disk_begins_with_a_small_piece_of_a_blob_before_it_is_looked_for(
    image: Path, reader: DecodedFiles
) -> None:
    bootstrap = Bootstrap.open(image / "image.boot")
    vfs = Vfs(Image("blobs", BlobFiles(bootstrap), reader, direct=True, wholly=False))
    node = _node(vfs, b"0")
    vfs.hasten(node, 8192, 16384)
    vfs.hasten(node, 0, SMALL + 1)
    vfs.hasten(ROOT, 0, 4096)
    assert reader.hastened == [(8192, 8192 + 16384)]


async def test_missing_bytes_are_fetched_and_then_looked_up(
    vfs: Vfs, autojump_clock: trio.testing.MockClock
) -> None:
    node = _node(vfs, b"big")
    assert vfs.look(node, 100, 1000) is None
    began = trio.current_time()
    assert bytes(await vfs.read(node, 100, 1000)) == BIG[100:1100]
    assert trio.current_time() - began == 1.0
    assert bytes(vfs.look(node, 0, 10) or b"") == BIG[:10]


def test_sequential_reader_has_what_follows_fetched(vfs: Vfs, reader: DecodedFiles) -> None:
    node = _node(vfs, b"big")
    vfs.ahead(node, 0, 1 << 17)
    assert reader.wanted == []
    vfs.ahead(node, 1 << 17, 1 << 17)
    first = reader.wanted[0]
    assert reader.wanted == list(range(first, first + 16)), "a window of 1 MiB, chunks of 64 KiB"


def test_blobs_are_fetched_ahead_for_large_reads_only_and_never_as_a_whole(
    image: Path, reader: DecodedFiles
) -> None:
    bootstrap = Bootstrap.open(image / "image.boot")
    blobs = Vfs(Image("blobs", BlobFiles(bootstrap), reader, wholly=False))
    node = _node(blobs, b"0")
    for number in range(40):
        assert blobs.ahead(node, (number * 7 % 40) << 16, 1 << 14) is None, "here and there"
        assert blobs.ahead(node, number << 14, 1 << 14) is None, "small files side by side"
    assert reader.wanted == []
    blobs.ahead(node, 0, 1 << 20)
    assert blobs.ahead(node, 1 << 20, 1 << 20) is None
    assert len(reader.wanted) > 0


async def test_what_there_was_no_room_for_is_asked_for_again(
    vfs: Vfs, reader: DecodedFiles
) -> None:
    node = _node(vfs, b"big")
    vfs.ahead(node, 0, 1 << 17)
    reader.room = 3
    vfs.ahead(node, 1 << 17, 1 << 17)
    assert len(reader.wanted) == 3
    reader.room = 1000
    vfs.ahead(node, 2 << 17, 1 << 17)
    assert reader.wanted[3] - reader.wanted[0] == 2, "the read has gone on by two chunks"


async def test_waiting_reads_are_counted(vfs: Vfs, autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(vfs.read, _node(vfs, b"big"), 0, 4096)
        await trio.sleep(0.5)
        assert vfs.waiting == 1
    assert vfs.waiting == 0


async def test_cancelled_reader_waits_no_more(vfs: Vfs) -> None:
    with trio.move_on_after(0):
        await vfs.read(_node(vfs, b"big"), 0, 4096)
    assert vfs.waiting == 0


async def test_image_that_stalls_does_not_take_all_the_reads_there_are(
    image: Path, autojump_clock: trio.testing.MockClock
) -> None:
    bootstrap = Bootstrap.open(image / "image.boot")
    dead = DecodedFiles(image / "decoded", ready=False, delay=math.inf)
    vfs = Vfs()
    for name in ("dead", "slow"):
        vfs.add(Image(name, bootstrap, dead if name == "dead" else _slow(image)))
    stalled, other = (_node(vfs, name, b"big") for name in (b"dead", b"slow"))
    async with trio.open_nursery() as nursery:
        for _ in range(WAITING_READS):
            nursery.start_soon(vfs.read, stalled, 0, 10)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unreachable, match="dead: 1536 of 1536"):
            await vfs.read(stalled, 0, 10)
        assert bytes(await vfs.read(other, 0, 10)) == BIG[:10]
        nursery.cancel_scope.cancel()


def _slow(image: Path) -> DecodedFiles:
    return DecodedFiles(image / "decoded", ready=False, delay=1.0)
