"""Pull and push with a registry that people run."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from chunkstore import Algorithm, Corrupt, Digest, Missing, Refused, SizedOrigin
from chunkstore.http import Client
from chunkstore.origins.contents import Contents
from chunkstore.origins.credentials import Credentials
from chunkstore.origins.images import Images
from chunkstore.origins.manifest import OCI_INDEX, OCI_MANIFEST, Platform
from chunkstore.origins.push import Push
from chunkstore.origins.reference import Reference
from chunkstore.origins.registry import Registry
from chunkstore.origins.registryorigin import RegistryOrigin
from fixtures.rangeserver import RangeServer
from fixtures.registry import (
    PASSWORD,
    USER,
    RealRegistry,
    is_installed,
    running_registry,
)
from fixtures.tokens import TokenServer, token_server
from tests.conformance.origin import BIG, FILES, OriginConformance

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not is_installed(), reason="there is no docker-registry"),
]

KNOWN = Credentials(environment={"NAIAD_REGISTRY_USER": USER, "NAIAD_REGISTRY_PASSWORD": PASSWORD})
HERE = Platform("amd64", "linux")


def digest_of(data: bytes) -> Digest:
    return Digest.of(data, Algorithm.SHA256)


def described(data: bytes, kind: str = "application/octet-stream") -> dict[str, object]:
    return {"mediaType": kind, "digest": str(digest_of(data)), "size": len(data)}


class Desk:
    """A client at a registry."""

    def __init__(
        self,
        client: Client,
        host: str,
        credentials: Credentials | None = None,
        name: str = "a/b:v1",
    ) -> None:
        reference = Reference.parse(f"{host}/{name}")
        self.registry = Registry(reference, client, credentials=credentials, plain_http=True)
        self.push = Push(self.registry, whole=100_000)
        self.images = Images(self.registry)
        self.origin = RegistryOrigin(self.registry)

    async def put_image(self, *layers: bytes) -> Digest:
        config = b'{"architecture":"amd64","os":"linux"}'
        for data in (config, *layers):
            await self.push.content(digest_of(data), data)
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [described(data) for data in layers],
        }
        return await self.push.manifest(json.dumps(manifest).encode(), OCI_MANIFEST)

    async def read(self, data: bytes, start: int, stop: int) -> bytes:
        into = bytearray(stop - start)
        blob_id = digest_of(data).hex
        await self.origin.read(blob_id, start, memoryview(into), lambda _count: None)
        return bytes(into)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
async def desk(registry: RealRegistry) -> AsyncIterator[Desk]:
    with Client() as client:
        yield Desk(client, registry.host)


class _Named:
    """Takes the conformance class's names for the digests that a registry goes by."""

    def __init__(self, origin: SizedOrigin) -> None:
        self._origin = origin

    def _id(self, name: str) -> str:
        return digest_of(FILES[name]).hex if name in FILES else name

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: object) -> None:
        try:
            await self._origin.read(self._id(blob_id), start, into, arrived)  # type: ignore[arg-type]
        except Corrupt as exc:
            raise Corrupt(f"{blob_id}: {exc}") from exc

    async def size(self, blob_id: str) -> int:
        return await self._origin.size(self._id(blob_id))


class TestRegistry(OriginConformance):
    @pytest.fixture
    async def origin(self, desk: Desk) -> SizedOrigin:
        for data in FILES.values():
            await desk.push.content(digest_of(data), data)
        return _Named(desk.origin)


async def test_a_file_goes_up_in_pieces_and_comes_back(desk: Desk, tmp_path: Path) -> None:
    data = os.urandom(450_000)
    (tmp_path / "layer").write_bytes(data)
    assert await desk.push.blob(digest_of(data), tmp_path / "layer") is True
    assert await desk.push.blob(digest_of(data), tmp_path / "layer") is False
    assert await desk.read(data, 99_000, 401_000) == data[99_000:401_000]


async def test_a_file_of_exactly_the_pieces_size_goes_up(desk: Desk, tmp_path: Path) -> None:
    for size in (0, 1, 100_000, 200_000, 100_001):
        data = os.urandom(size)
        (tmp_path / "layer").write_bytes(data)
        await desk.push.blob(digest_of(data), tmp_path / "layer")
        assert await desk.push.has(digest_of(data))


async def test_bytes_that_do_not_hash_to_their_name_are_not_taken(desk: Desk) -> None:
    with pytest.raises(Refused, match="DIGEST_INVALID"):
        await desk.push.content(digest_of(b"other"), b"these")
    assert not await desk.push.has(digest_of(b"other"))


async def test_an_image_is_found_by_tag_by_digest_and_in_an_index(desk: Desk) -> None:
    digest = await desk.put_image(b"layer one", BIG)
    found = await desk.images.find(HERE)
    assert found.digest == digest
    assert [layer.size for layer in found.manifest.layers] == [9, len(BIG)]
    assert (await desk.images.find(HERE, name=str(digest))).manifest == found.manifest
    assert await desk.images.content(found.manifest.layers[0], 100) == b"layer one"
    entry = {
        **described(found.document.data, OCI_MANIFEST),
        "platform": {"architecture": "amd64", "os": "linux"},
    }
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    await desk.push.manifest(json.dumps(index).encode(), OCI_INDEX, "many")
    assert (await desk.images.find(HERE, name="many")).digest == digest
    with pytest.raises(Missing, match="no image for linux/riscv64; there is one for linux/amd64"):
        await desk.images.find(Platform("riscv64", "linux"), name="many")


async def test_what_is_not_there_is_missing(desk: Desk) -> None:
    with pytest.raises(Missing, match="MANIFEST_UNKNOWN"):
        await desk.images.find(HERE, name="nothing")
    with pytest.raises(Missing, match="BLOB_UNKNOWN"):
        await desk.read(b"never pushed", 0, 1)


async def test_a_worker_thread_reads_layers_as_files(desk: Desk) -> None:
    await desk.put_image(BIG)
    found = await desk.images.find(HERE)
    contents = Contents(desk.images, found.manifest)

    def work() -> bytes:
        with contents.open(digest_of(BIG)) as file:
            return file.read(1000) + file.read()

    assert await trio.to_thread.run_sync(work) == BIG


async def test_a_password_opens_and_none_or_a_wrong_one_is_refused(tmp_path: Path) -> None:
    wrong = Credentials(
        environment={"NAIAD_REGISTRY_USER": USER, "NAIAD_REGISTRY_PASSWORD": "guess"}
    )
    with running_registry(tmp_path, password=True) as registry, Client() as client:
        known = Desk(client, registry.host, KNOWN)
        await known.put_image(BIG)
        assert await known.read(BIG, 5, 50) == BIG[5:50]
        for credentials, words in ((None, "none is known"), (wrong, "does not accept")):
            with pytest.raises(Refused, match=words) as caught:
                await Desk(client, registry.host, credentials).read(BIG, 0, 1)
            assert "guess" not in "".join(traceback.format_exception(caught.value))


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    with token_server(tmp_path / "tokens") as server:
        yield server


async def test_tokens_are_fetched_once_per_scope(tmp_path: Path, tokens: TokenServer) -> None:
    with running_registry(tmp_path, tokens=tokens.auth) as registry, Client() as client:
        desk = Desk(client, registry.host, KNOWN)
        await desk.put_image(BIG)
        async with trio.open_nursery() as nursery:
            for start in range(0, 100_000, 10_000):
                nursery.start_soon(desk.read, BIG, start, start + 10_000)
        assert sorted(tokens.scopes) == ["repository:a/b:pull", "repository:a/b:pull,push"]
        assert set(tokens.accounts) == {f"{USER}:{PASSWORD}"}


async def test_without_a_password_what_is_public_can_be_read(
    tmp_path: Path, tokens: TokenServer
) -> None:
    tokens.is_anonymous = True
    with running_registry(tmp_path, tokens=tokens.auth) as registry, Client() as client:
        await Desk(client, registry.host, KNOWN).put_image(BIG)
        stranger = Desk(client, registry.host)
        assert await stranger.read(BIG, 7, 70) == BIG[7:70]
        with pytest.raises(Refused, match="no credential is known"):
            await stranger.put_image(b"x")


@pytest.mark.parametrize("told", [None, 300.0])
async def test_a_token_that_runs_out_in_the_middle_is_renewed(
    tmp_path: Path, tokens: TokenServer, told: float | None
) -> None:
    with running_registry(tmp_path, tokens=tokens.auth) as registry, Client() as client:
        desk = Desk(client, registry.host, KNOWN)
        await desk.put_image(BIG)
        tokens.life, tokens.told = 2.0, told
        before = len(tokens.scopes)
        with trio.fail_after(20):
            while len(tokens.scopes) < before + 2:
                assert await desk.read(BIG, 3, 30_000) == BIG[3:30_000]
        assert await desk.read(BIG, 9, 90) == BIG[9:90]


async def test_a_redirecting_store_serves_the_blobs_and_gets_no_password(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    with RangeServer(tmp_path / "storage") as store, Client() as client:
        with running_registry(tmp_path, password=True, redirect=f"{store.url}/") as registry:
            desk = Desk(client, registry.host, KNOWN)
            await desk.put_image(BIG)
            for start in range(0, 200_000, 20_000):
                assert await desk.read(BIG, start, start + 20_000) == BIG[start : start + 20_000]
            assert await desk.origin.size(digest_of(BIG).hex) == len(BIG)
            found = await desk.images.find(HERE)
            assert await desk.images.content(found.manifest.layers[0], len(BIG)) == BIG
        assert store.statistics.requests == 12
        assert not any("authorization" in headers for headers in store.statistics.headers)
