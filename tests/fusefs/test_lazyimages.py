"""Which layers are lent and which image they are, and what is left to containerd."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import pytest
import trio
import trio.testing

from chunkstore import Corrupt, Unreachable
from chunkstore.origins.credentials import Credential
from fixtures.lazyimages import (
    BOOTSTRAP,
    CHAINS,
    DIFF_IDS,
    LAYERS,
    MANIFEST_DIGEST,
    PLAN,
    REFERENCE,
    NotedMounter,
    TableSources,
    labels,
    layer,
    lent,
    sha,
)
from fusefs.containers.lazyimages import (
    BOOTSTRAP_MARK,
    DATA_MARK,
    MANIFEST,
    REFERENCES,
    SECRET,
    USER,
    LazyImage,
    RegistryImages,
)
from fusefs.containers.plan import Plan, chain_ids
from fusefs.containers.snapshots import DATA, Snapshot, Usage
from fusefs.errors import MountFailed


async def test_data_layers_are_lent_and_the_bootstraps_layer_mounts_the_image(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    sources, mounter = TableSources(), NotedMounter()
    images = RegistryImages(sources, mounter, nursery)
    assert await images.offer(CHAINS[0], [], labels(DATA_MARK)) == DATA
    assert await images.offer(CHAINS[1], [lent(CHAINS[0])], labels(DATA_MARK)) == DATA
    assert mounter.mounted == []
    text = await images.offer(CHAINS[2], [lent(CHAINS[1])], labels(BOOTSTRAP_MARK))
    assert text is not None
    image = LazyImage("registry.example/app", str(MANIFEST_DIGEST), str(BOOTSTRAP))
    assert LazyImage.decode(text) == image
    assert mounter.mounted == [(image, None)]
    asked = [what for what, _ in sources.asked]
    assert asked[0] == f"plan {MANIFEST_DIGEST}"
    assert set(asked[1:]) == {"bootstrap"}, "ahead, and when it is needed"
    assert await images.usage(text) == Usage(1, 2)
    await images.release(text)
    assert mounter.mounted == []


def changed(index: int, mark: str) -> Plan:
    layers = list(LAYERS)
    layers[index] = layer(str(LAYERS[index].digest), mark)
    return Plan(REFERENCE, MANIFEST_DIGEST, layers, DIFF_IDS)


def claiming(index: int, diff_id: str) -> Plan:
    diff_ids = [*DIFF_IDS[:index], diff_id, *DIFF_IDS[index + 1 :]]
    return Plan(REFERENCE, MANIFEST_DIGEST, LAYERS, diff_ids)


VICTIM = sha("somebody's layer")

_DOUBTFUL: list[tuple[str, Plan, str, Sequence[Snapshot], str]] = [
    ("a chain id that is no layer's", PLAN, sha("other"), [], DATA_MARK),
    ("another's diff id", claiming(0, VICTIM), VICTIM, [], DATA_MARK),
    ("data where a bootstrap is", PLAN, CHAINS[2], [lent(CHAINS[1])], DATA_MARK),
    ("a bootstrap where data is", PLAN, CHAINS[1], [lent(CHAINS[0])], BOOTSTRAP_MARK),
    (
        "a bootstrap below data",
        changed(1, BOOTSTRAP_MARK),
        CHAINS[1],
        [lent(CHAINS[0])],
        BOOTSTRAP_MARK,
    ),
    ("nothing below", PLAN, CHAINS[1], [], DATA_MARK),
    ("something below", PLAN, CHAINS[0], [lent(CHAINS[1])], DATA_MARK),
    ("an ordinary layer below", PLAN, CHAINS[1], [lent(CHAINS[0], None)], DATA_MARK),
    ("an image below", PLAN, CHAINS[1], [lent(CHAINS[0], "image")], DATA_MARK),
    ("another image's data below", PLAN, CHAINS[1], [lent(CHAINS[2])], DATA_MARK),
]


@pytest.mark.logs("left to containerd")
@pytest.mark.parametrize(
    ("plan", "target", "parents", "mark"),
    [row[1:] for row in _DOUBTFUL],
    ids=[row[0] for row in _DOUBTFUL],
)
async def test_what_does_not_prove_itself_is_left_to_containerd(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
    plan: Plan,
    target: str,
    parents: Sequence[Snapshot],
    mark: str,
) -> None:
    mounter = NotedMounter()
    images = RegistryImages(TableSources(plan), mounter, nursery)
    assert await images.offer(target, parents, labels(mark)) is None
    assert mounter.mounted == []


_ORDINARY: list[Mapping[str, str]] = [
    {},
    {REFERENCES[0]: str(REFERENCE)},
    {DATA_MARK: "true"},
    labels("containerd.io/snapshot/other"),
    {DATA_MARK: "false", REFERENCES[0]: str(REFERENCE)},
]


@pytest.mark.parametrize("said", _ORDINARY)
async def test_ordinary_layers_ask_no_registry(
    nursery: trio.Nursery, said: Mapping[str, str]
) -> None:
    sources = TableSources()
    assert await RegistryImages(sources, NotedMounter(), nursery).offer(CHAINS[0], [], said) is None
    assert sources.asked == []


@pytest.mark.logs("left to containerd")
@pytest.mark.parametrize(
    "said",
    [
        labels(DATA_MARK, **{REFERENCES[0]: "../../etc/passwd\n"}),
        labels(DATA_MARK, **{MANIFEST: "sha256:short"}),
    ],
)
async def test_labels_that_cannot_be_read_are_left_to_containerd(
    nursery: trio.Nursery, said: Mapping[str, str]
) -> None:
    assert (
        await RegistryImages(TableSources(), NotedMounter(), nursery).offer(CHAINS[0], [], said)
        is None
    )


async def test_clients_that_name_the_image_in_stargz_words_are_understood(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    sources = TableSources()
    said = {REFERENCES[1]: str(REFERENCE), DATA_MARK: "true"}
    assert await RegistryImages(sources, NotedMounter(), nursery).offer(CHAINS[0], [], said) == DATA
    assert sources.asked[0] == ("plan lazy", None)


@pytest.mark.parametrize(
    "fault", [Unreachable("the registry is away"), Corrupt("the bootstrap is another")]
)
async def test_a_lazy_image_that_cannot_be_had_is_an_error_that_says_why(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock, fault: Exception
) -> None:
    mounter = NotedMounter()
    images = RegistryImages(TableSources(fault=fault), mounter, nursery)
    with pytest.raises(MountFailed, match=str(fault)):
        await images.offer(CHAINS[2], [lent(CHAINS[1])], labels(BOOTSTRAP_MARK))
    assert mounter.mounted == []


async def test_a_mount_that_does_not_come_is_given_up(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    images = RegistryImages(TableSources(), NotedMounter(delay=1000), nursery)
    started = trio.current_time()
    with pytest.raises(MountFailed, match="not mounted in 60 s"):
        await images.offer(CHAINS[2], [lent(CHAINS[1])], labels(BOOTSTRAP_MARK))
    assert trio.current_time() - started == 60


async def test_the_layers_of_an_image_asked_for_at_once_look_it_up_once(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sources = TableSources()
    images = RegistryImages(sources, NotedMounter(), nursery)
    async with trio.open_nursery() as pullers:
        for _ in range(20):
            pullers.start_soon(images.offer, CHAINS[0], [], labels(DATA_MARK))
    assert [what for what, _ in sources.asked].count(f"plan {MANIFEST_DIGEST}") == 1


async def test_credentials_come_from_labels_or_from_who_pulls_and_are_never_shown(
    nursery: trio.Nursery,
    autojump_clock: trio.testing.MockClock,
) -> None:
    sources, mounter = TableSources(), NotedMounter()
    images = RegistryImages(sources, mounter, nursery)
    images.introduce(REFERENCE, Credential("puller", "hush"))
    text = await images.offer(CHAINS[2], [lent(CHAINS[1])], labels(BOOTSTRAP_MARK))
    assert mounter.mounted[0][1] == Credential("puller", "hush")
    said = labels(BOOTSTRAP_MARK, **{USER: "kubelet", SECRET: "hush"})
    await images.offer(CHAINS[2], [lent(CHAINS[1])], said)
    assert mounter.mounted[1][1] == Credential("kubelet", "hush")
    said = labels(BOOTSTRAP_MARK, **{SECRET: "hush"})
    await images.offer(CHAINS[2], [lent(CHAINS[1])], said)
    known = mounter.mounted[2][1]
    assert known is not None
    assert known.is_identity
    assert "hush" not in f"{text} {mounter.mounted}"


def test_an_image_is_named_by_repository_and_manifest() -> None:
    one = LazyImage("registry.example/app", str(MANIFEST_DIGEST), str(BOOTSTRAP))
    assert one.name != LazyImage("registry.example/app2", one.manifest, one.bootstrap).name
    assert one.name != LazyImage(one.repository, sha("other"), one.bootstrap).name
    assert LazyImage.decode(one.encode()) == one
    assert one.reference.digest == MANIFEST_DIGEST


def test_chain_ids_are_those_of_the_specification() -> None:
    first = "sha256:" + "1" * 64
    second = "sha256:" + "2" * 64
    joined = hashlib.sha256(f"{first} {second}".encode()).hexdigest()
    assert chain_ids([first, second]) == [first, f"sha256:{joined}"]
    assert chain_ids([]) == []


def test_a_config_of_another_number_of_layers_is_corrupt() -> None:
    with pytest.raises(Corrupt, match="3 layers"):
        Plan(REFERENCE, MANIFEST_DIGEST, LAYERS, DIFF_IDS[:2])
