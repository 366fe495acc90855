from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from fixtures.smalldisk import small_disk
from fixtures.snapshotting import TableImages, snapshotter
from fusefs.containerd.messages import Kind, Mount
from fusefs.containers.snapshots import DATA, LONGEST_KEY, LONGEST_LABEL, Change
from fusefs.containers.snapshotter import SECRETS, TARGET, Snapshotter
from fusefs.errors import BadRequest, NoSnapshot, NotInThisState, SnapshotError, SnapshotExists


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Snapshotter]:
    with snapshotter(tmp_path) as made:
        yield made


async def layers(service: Snapshotter, *names: str) -> None:
    """Commit layers, each standing on the one before."""
    parent = ""
    for name in names:
        await service.prepare(f"making {name}", parent, {})
        await service.commit(f"making {name}", name, "", {})
        parent = name


def folders(root: Path) -> list[str]:
    """Return the names of what is in the folder of snapshots."""
    return sorted(path.name for path in (root / "snapshots").iterdir())


def databases(root: Path) -> list[bytes]:
    """Return all that the database has written."""
    return [path.read_bytes() for path in root.glob("metadata.db*")]


async def names(service: Snapshotter, *filters: str) -> list[str]:
    return [snapshot.key for snapshot in await service.listed(filters)]


_ERRORS: list[tuple[Callable[[Snapshotter], Awaitable[object]], type[SnapshotError]]] = [
    (lambda to: to.stat("none"), NoSnapshot),
    (lambda to: to.stat(""), BadRequest),
    (lambda to: to.mounts("none"), NoSnapshot),
    (lambda to: to.mounts("base"), NotInThisState),
    (lambda to: to.usage("none"), NoSnapshot),
    (lambda to: to.remove("none"), NoSnapshot),
    (lambda to: to.remove("base"), NotInThisState),
    (lambda to: to.prepare("", "base", {}), BadRequest),
    (lambda to: to.prepare("active", "base", {}), SnapshotExists),
    (lambda to: to.prepare("base", "", {}), SnapshotExists),
    (lambda to: to.prepare("new", "none", {}), NoSnapshot),
    (lambda to: to.prepare("new", "active", {}), BadRequest),
    (lambda to: to.prepare("x" * (LONGEST_KEY + 1), "", {}), BadRequest),
    (lambda to: to.prepare("new", "", {"l": "x" * LONGEST_LABEL}), BadRequest),
    (lambda to: to.view("active", "base", {}), SnapshotExists),
    (lambda to: to.view("new", "view", {}), BadRequest),
    (lambda to: to.commit("none", "new", "", {}), NoSnapshot),
    (lambda to: to.commit("active", "", "", {}), BadRequest),
    (lambda to: to.commit("active", "base", "", {}), SnapshotExists),
    (lambda to: to.commit("active", "new", "other", {}), BadRequest),
    (lambda to: to.commit("free", "new", "none", {}), NoSnapshot),
    (lambda to: to.commit("free", "new", "active", {}), NotInThisState),
    (lambda to: to.commit("view", "new", "", {}), NotInThisState),
    (lambda to: to.commit("base", "new", "", {}), NotInThisState),
    (lambda to: to.update("none", Change()), NoSnapshot),
    (lambda to: to.update("base", Change(paths=("parent",))), BadRequest),
    (lambda to: to.update("base", Change(paths=("labels.a", "kind"))), BadRequest),
    (lambda to: to.listed(["kind=="]), BadRequest),
]


@pytest.mark.parametrize(("work", "error"), _ERRORS)
async def test_what_cannot_be_done_has_containerds_error_and_changes_nothing(
    service: Snapshotter, tmp_path: Path, work: Callable[..., Awaitable[object]], error: type
) -> None:
    await layers(service, "base")
    await service.prepare("active", "base", {})
    await service.prepare("free", "", {})
    await service.view("view", "base", {})
    before = list(await service.listed(())), folders(tmp_path)
    with pytest.raises(error):
        await work(service)
    assert (list(await service.listed(())), folders(tmp_path)) == before


async def test_a_snapshot_is_stacked_on_all_that_it_stands_on(
    service: Snapshotter, tmp_path: Path
) -> None:
    await layers(service, "one", "two")
    folder = tmp_path / "snapshots"
    (mount,) = await service.prepare("top", "two", {})
    assert mount.type == "overlay"
    assert f"lowerdir={folder}/2/fs:{folder}/1/fs" in mount.options
    assert f"upperdir={folder}/3/fs" in mount.options
    assert f"workdir={folder}/3/work" in mount.options
    assert await service.mounts("top") == (mount,)
    (bottom,) = await service.prepare("bottom", "", {})
    assert (bottom.type, bottom.source, bottom.options) == (
        "bind",
        f"{folder}/4/fs",
        ("rw", "rbind"),
    )
    (seen,) = await service.view("seen", "one", {})
    assert seen == Mount("bind", f"{folder}/1/fs", options=("ro", "rbind"))
    (both,) = await service.view("both", "two", {})
    assert not any(option.startswith("upperdir") for option in both.options)


async def test_a_commit_keeps_the_files_measures_them_and_replaces_the_labels(
    service: Snapshotter, tmp_path: Path
) -> None:
    await service.prepare("active", "", {"old": "1"})
    tree = tmp_path / "snapshots/1/fs"
    (tree / "file").write_bytes(b"x" * 10_000)
    (tree / "link").hardlink_to(tree / "file")
    assert (await service.usage("active")).inodes == 2
    await service.commit("active", "layer", "", {"new": "2"})
    snapshot = await service.stat("layer")
    assert (snapshot.kind, snapshot.labels) == (Kind.COMMITTED, {"new": "2"})
    (tree / "later").mkdir()
    usage = await service.usage("layer")
    assert usage.inodes == 2
    assert 10_000 <= usage.size <= 40_000
    assert await names(service) == ["layer"]


async def test_a_commit_may_give_a_parent_to_what_had_none(service: Snapshotter) -> None:
    await layers(service, "base")
    await service.prepare("active", "", {})
    await service.commit("active", "top", "base", {})
    assert (await service.stat("top")).parent == "base"
    with pytest.raises(NotInThisState):
        await service.remove("base")


async def test_labels_are_changed_as_the_mask_says(service: Snapshotter) -> None:
    await service.prepare("one", "", {"a": "1", "b.c": "2"})
    created = (await service.stat("one")).created
    changed = await service.update(
        "one", Change({"b.c": "3", "d": "4"}, ("labels.b.c", "labels.a"))
    )
    assert changed.labels == {"b.c": "3"}
    assert changed.created == created < changed.updated
    assert (await service.update("one", Change({"e": "5", "f": ""}))).labels == {"e": "5"}
    assert (await service.stat("one")).labels == {"e": "5"}


async def test_a_new_layer_is_owned_as_the_one_below(service: Snapshotter, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives files away")
    await service.prepare("making", "", {})
    os.chown(tmp_path / "snapshots/1/fs", 1234, 5678)
    await service.commit("making", "base", "", {})
    await service.prepare("top", "base", {})
    found = (tmp_path / "snapshots/2/fs").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 5678, 0o755)


@pytest.mark.parametrize(
    "key", ["../../etc", "a/../b", "new\nline", "'; DROP TABLE snapshots", "é\0"]
)
async def test_odd_keys_and_labels_are_only_names(
    service: Snapshotter, tmp_path: Path, key: str
) -> None:
    (mount,) = await service.prepare(key, "", {key: key})
    assert mount.source == f"{tmp_path}/snapshots/1/fs"
    assert (await service.stat(key)).labels == {key: key}
    assert await names(service, "kind==active") == [key]
    await service.remove(key)
    assert list((tmp_path / "snapshots").iterdir()) == []


async def test_secrets_are_not_kept(service: Snapshotter, tmp_path: Path) -> None:
    secrets = dict.fromkeys(SECRETS, "hush-hush") | {"other": "told"}
    await service.prepare("active", "", secrets)
    await service.update("active", Change(secrets))
    await service.commit("active", "layer", "", secrets)
    assert (await service.stat("layer")).labels == {"other": "told"}
    assert not any(b"hush-hush" in data for data in databases(tmp_path))


async def test_removing_frees_the_folder_and_cleaning_up_takes_strays(
    service: Snapshotter, tmp_path: Path
) -> None:
    await layers(service, "one", "two")
    (tmp_path / "snapshots/99").mkdir()
    (tmp_path / "snapshots/new-abc/fs").mkdir(parents=True)
    await service.cleanup()
    assert folders(tmp_path) == ["1", "2"]
    await service.remove("two")
    await service.remove("one")
    assert folders(tmp_path) == []


async def test_many_at_once_each_get_their_own(service: Snapshotter, tmp_path: Path) -> None:
    await layers(service, "base")
    refused = 0

    async def container(number: int) -> None:
        nonlocal refused
        try:
            await service.prepare(f"container {number // 2}", "base", {})
        except SnapshotExists:
            refused += 1

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(container, number)
    assert refused == 20
    assert len(folders(tmp_path)) == 21


async def test_lazily_loaded_layers_are_lent_and_stacked_as_one(tmp_path: Path) -> None:
    tree = tmp_path / "image"
    tree.mkdir()
    images = TableImages({"sha256:data": DATA, "sha256:top": "image"}, tmp_path)
    with snapshotter(tmp_path, images) as service:
        for key, parent, chain in (
            ("ns/1/a", "", "sha256:data"),
            ("ns/2/b", "sha256:data", "sha256:top"),
        ):
            with pytest.raises(SnapshotExists):
                await service.prepare(key, parent, {TARGET: chain})
        assert await names(service, f'labels."{TARGET}"==sha256:top,parent=="sha256:data"') == [
            "sha256:top"
        ]
        (mount,) = await service.prepare("container", "sha256:top", {})
        assert f"lowerdir={tree}" in mount.options
        (seen,) = await service.view("seen", "sha256:top", {})
        assert (seen.type, seen.source) == ("bind", str(tree))
        assert (await service.usage("sha256:top")).size == len("image")
        await layers_on(service, "sha256:top", "more")
        (mount,) = await service.prepare("container 2", "more", {})
        assert mount.options[-1].endswith(f"/fs:{tree}")


async def layers_on(service: Snapshotter, parent: str, name: str) -> None:
    await service.prepare("making", parent, {})
    await service.commit("making", name, "", {})


async def test_a_second_namespace_shares_what_is_lent_where_it_stands_on_the_same(
    tmp_path: Path,
) -> None:
    images = TableImages({"sha256:data": DATA, "sha256:top": "image"})
    with snapshotter(tmp_path, images) as service:
        await layers(service, "ns2/base")
        for key, parent in (("ns1/1/a", ""), ("ns2/1/a", ""), ("ns2/7/c", "ns2/base")):
            with pytest.raises(SnapshotExists):
                await service.prepare(key, parent, {TARGET: "sha256:data"})
        assert await names(service) == ["ns2/7/c sha256:data", "ns2/base", "sha256:data"]


async def test_an_image_is_released_with_its_last_snapshot(tmp_path: Path) -> None:
    images = TableImages({"sha256:one": "image", "sha256:two": "image"})
    with snapshotter(tmp_path, images) as service:
        for target in images.layers:
            with pytest.raises(SnapshotExists):
                await service.prepare("key", "", {TARGET: target})
        await service.remove("sha256:one")
        assert images.released == []
        await service.remove("sha256:two")
        assert images.released == ["image"]


async def test_nothing_ordinary_stands_on_a_data_layer(tmp_path: Path) -> None:
    with snapshotter(tmp_path, TableImages({"sha256:data": DATA})) as service:
        with pytest.raises(SnapshotExists):
            await service.prepare("key", "", {TARGET: "sha256:data"})
        for make in (service.prepare, service.view):
            with pytest.raises(NotInThisState, match="data layer"):
                await make("container", "sha256:data", {})
        assert folders(tmp_path) == []


@pytest.mark.kernel
async def test_a_full_disk_is_freed_by_removing(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root mounts a small disk")
    root = tmp_path / "root"
    with small_disk(root, "4m"), snapshotter(root) as service:
        await service.prepare("big", "", {})
        fill(root / "snapshots/1/fs/big")
        with pytest.raises((sqlite3.OperationalError, OSError)):
            await many(service)
        await service.remove("big")
        await service.prepare("another", "", {})
        assert (root / "metadata.db.reserve").stat().st_size > 0


async def many(service: Snapshotter) -> None:
    for number in range(100):
        await service.prepare(f"more {number}", "", {})


def fill(path: Path) -> None:
    """Write a file until there is no room."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
