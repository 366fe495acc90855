"""Images that are mounted ahead while they are pulled."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio
import trio.testing

from chunkstore import Corrupt, Unreachable
from chunkstore.origins.credentials import Credential
from fixtures.lazyimages import (
    BOOTSTRAP,
    CHAINS,
    MANIFEST_DIGEST,
    PLAN,
    REFERENCE,
    NotedMounter,
    TableSources,
    labels,
    lent,
)
from fusefs.containers.lazyimages import (
    BOOTSTRAP_MARK,
    DATA_MARK,
    LazyImage,
    RegistryImages,
)
from fusefs.containers.snapshots import DATA
from fusefs.errors import MountFailed

IMAGE = LazyImage("registry.example/app", str(MANIFEST_DIGEST), str(BOOTSTRAP))


class Noted:
    """Notes what is to be let go."""

    def __init__(self) -> None:
        self.gone: list[str] = []

    async def __call__(self, image: str) -> None:
        self.gone.append(image)


async def test_an_expected_image_is_mounted_while_its_layers_are_asked_for_and_not_again(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sources, mounter, let_go = TableSources(), NotedMounter(delay=2), Noted()
    images = RegistryImages(sources, mounter, nursery)
    images.introduce(REFERENCE, Credential("puller", "hush"))
    async with images.expected(PLAN, let_go):
        await trio.testing.wait_all_tasks_blocked()
        assert sources.asked == [("bootstrap", Credential("puller", "hush"))]
        assert await images.offer(CHAINS[0], [], labels(DATA_MARK)) == DATA
        text = await images.offer(CHAINS[2], [lent(CHAINS[1])], labels(BOOTSTRAP_MARK))
        assert text == IMAGE.encode()
        assert mounter.mounted == [], "its layer need not wait for that"
        await images.ready(text)
        assert mounter.mounted == [(IMAGE, Credential("puller", "hush"))]
        assert let_go.gone == []
    await trio.testing.wait_all_tasks_blocked()
    assert [what for what, _ in sources.asked] == ["bootstrap"], "asked once, and no plan"
    assert let_go.gone == [text]


async def test_an_expected_image_is_unmounted_only_when_the_last_pull_of_it_is_over(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    mounter, let_go = NotedMounter(), Noted()
    images = RegistryImages(TableSources(), mounter, nursery)
    with suppress(Unreachable):
        async with images.expected(PLAN, let_go):
            with suppress(Corrupt):
                async with images.expected(PLAN, let_go):
                    await trio.testing.wait_all_tasks_blocked()
                    raise Corrupt("one pull fails")
            await images.release(IMAGE.encode())
            assert mounter.mounted == [(IMAGE, None)]
            assert let_go.gone == []
            raise Unreachable("and so does the other")
    await trio.testing.wait_all_tasks_blocked()
    assert let_go.gone == [IMAGE.encode()]
    await images.release(IMAGE.encode())
    assert mounter.mounted == []


async def test_an_expected_image_that_is_slow_to_come_is_let_go_when_it_has_come(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    mounter, let_go = NotedMounter(delay=10), Noted()
    images = RegistryImages(TableSources(), mounter, nursery)
    async with images.expected(PLAN, let_go):
        await trio.sleep(1)
    assert let_go.gone == []
    await trio.sleep(10)
    assert let_go.gone == [IMAGE.encode()]


async def test_an_expected_image_that_cannot_be_had_is_an_error_where_it_is_asked_for(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    sources, let_go = TableSources(fault=Unreachable("the registry is away")), Noted()
    images = RegistryImages(sources, NotedMounter(), nursery)
    async with images.expected(PLAN, let_go):
        with pytest.raises(MountFailed, match="the registry is away"):
            await images.offer(CHAINS[2], [lent(CHAINS[1])], labels(BOOTSTRAP_MARK))
    await trio.testing.wait_all_tasks_blocked()
    assert let_go.gone == []


async def test_an_image_that_could_not_be_mounted_is_tried_anew_when_it_is_needed(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    mounter, let_go = NotedMounter(failures=2), Noted()
    images = RegistryImages(TableSources(), mounter, nursery)
    async with images.expected(PLAN, let_go):
        text = await images.offer(CHAINS[2], [lent(CHAINS[1])], labels(BOOTSTRAP_MARK))
    assert text is not None
    with pytest.raises(MountFailed, match="no session"):
        await images.ready(text)
    await images.ready(text)
    assert mounter.mounted == [(IMAGE, None)]


async def test_an_image_that_does_not_come_is_not_waited_for_without_end(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    images = RegistryImages(TableSources(), NotedMounter(delay=1000), nursery)
    started = trio.current_time()
    with pytest.raises(MountFailed, match="not mounted in 60 s"):
        await images.ready(IMAGE.encode())
    assert trio.current_time() - started == 60


async def test_an_expected_image_that_is_unpacked_is_waited_for_by_its_layer(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    mounter, let_go = NotedMounter(delay=30, is_lazy=False), Noted()
    images = RegistryImages(TableSources(), mounter, nursery)
    async with images.expected(PLAN, let_go):
        text = await images.offer(CHAINS[2], [lent(CHAINS[1])], labels(BOOTSTRAP_MARK))
        assert mounter.mounted == [(IMAGE, None)]
    assert text == IMAGE.encode()
