"""A file is hashed while it comes."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from chunkstore.blobcache import BlobCache
from p2p.files.prefix import Prefix
from p2p.files.store import FileStore
from p2p.files.task import PIECE_SIZE, Version

DATA = random.Random(8).randbytes(3 * PIECE_SIZE + 100)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileStore]:
    cache = BlobCache(tmp_path)
    made = FileStore(cache, Version(bytes(32), len(DATA), '"v1"'), "http://origin/f")
    await made.open()
    yield made
    await made.close()
    cache.close()


async def put(store: FileStore, prefix: Prefix, piece: int) -> None:
    await store.put(piece, DATA[piece * PIECE_SIZE : (piece + 1) * PIECE_SIZE])
    prefix.moved()


async def test_what_follows_on_from_the_beginning_is_hashed(store: FileStore) -> None:
    prefix = Prefix(store)
    hashed = []
    for piece in (1, 3, 0, 2):
        await put(store, prefix, piece)
        prefix.advance()
        hashed.append(prefix.done)
    assert hashed == [0, 0, 2, 4]
    assert prefix.finish() == SHA256


async def test_what_comes_is_hashed_meanwhile(store: FileStore) -> None:
    prefix = Prefix(store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prefix.follow)
        await put(store, prefix, 0)
        with trio.fail_after(60):
            while not prefix.done:  # it is a thread that moves it
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_what_is_left_is_hashed_in_the_end(store: FileStore) -> None:
    prefix = Prefix(store)
    for piece in range(4):
        await put(store, prefix, piece)
    assert (prefix.done, prefix.finish()) == (0, SHA256)


async def test_there_is_no_digest_of_a_file_that_is_not_here(store: FileStore) -> None:
    prefix = Prefix(store)
    for piece in (0, 1, 3):
        await put(store, prefix, piece)
    assert prefix.finish() is None
    assert prefix.done == 2
