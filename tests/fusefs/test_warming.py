from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from chunkstore import Unreachable
from fixtures.extents import DecodedFiles
from fixtures.small import BIG
from fusefs.errors import FusefsError
from fusefs.warming import REMEMBERED, Warming
from rafs import Bootstrap

SMALL = 12 + 12345 + 6
"""Bytes of the files but the big one; two names of one file count once."""


class Asked:
    """Warming over the small image, asked in words."""

    def __init__(self, image: Path) -> None:
        self.reader = DecodedFiles(image / "decoded", ready=False)
        self.warming = Warming(Bootstrap.open(image / "image.boot"), self.reader)

    async def ask(self, *paths: str) -> Mapping[str, object]:
        return await self.warming.ask(json.dumps({"paths": paths}).encode())


@pytest.fixture
async def asked(image: Path, nursery: trio.Nursery, autojump_clock: MockClock) -> Asked:
    made = Asked(image)
    nursery.start_soon(made.warming.run)
    await wait_all_tasks_blocked()
    return made


async def test_a_file_is_fetched_and_who_asks_again_is_told_how_far_it_is(asked: Asked) -> None:
    told = await asked.ask("big")
    assert (told["files"], told["bytes"], told["here_bytes"]) == (1, len(BIG), 0)
    await wait_all_tasks_blocked()
    asked.reader.arrive()
    assert (await asked.ask("big"))["here_bytes"] == 1 << 20
    while asked.reader.expected:
        asked.reader.arrive()
    assert (await asked.ask("big"))["here_bytes"] == len(BIG)


@pytest.mark.parametrize(
    ("paths", "size"),
    [
        ((), SMALL + len(BIG)),
        (("folder",), 6),
        (("folder/inside", "/folder//again", "link"), 6),
        (("folder/../hello", "."), SMALL + len(BIG)),
        (("empty",), 0),
    ],
)
async def test_paths_name_files_once(asked: Asked, paths: tuple[str, ...], size: int) -> None:
    assert (await asked.ask(*paths))["bytes"] == size


@pytest.mark.parametrize("path", ["absent", "hello/below", "folder/absent"])
async def test_what_is_not_there_is_refused(asked: Asked, path: str) -> None:
    with pytest.raises(FusefsError, match=path):
        await asked.ask(path)
    with pytest.raises(FusefsError):
        await asked.warming.ask(b'{"what": 1}')


async def test_what_cannot_be_had_is_told(asked: Asked) -> None:
    await asked.ask("hello")
    await wait_all_tasks_blocked()
    asked.reader.arrive(Unreachable("the origin is silent"))
    told = await asked.ask("hello")
    assert (told["failed_bytes"], told["last_error"]) == (12, "the origin is silent")
    assert (await asked.ask("hello"))["failed_bytes"] == 0, "and tried anew"


async def test_a_reader_without_room_is_waited_for(asked: Asked, autojump_clock: MockClock) -> None:
    asked.reader.room = 0
    await asked.ask("hello")
    await trio.sleep(3)
    asked.reader.room = 1
    await trio.sleep(1)
    assert len(asked.reader.expected) == 1


async def test_requests_are_bounded(asked: Asked) -> None:
    for number in range(REMEMBERED):
        await asked.ask("hello", *["."] * number)
    with pytest.raises(FusefsError, match="under way"):
        await asked.ask("big")
