"""What is no manifest, and which image of an index is taken."""

from __future__ import annotations

import json

import pytest

from chunkstore import Algorithm, Corrupt, Digest
from chunkstore.origins.images import Images
from chunkstore.origins.manifest import Document, Index, Platform
from fixtures.faulty import Status
from fixtures.registrynet import DIGEST, Net

HERE = Platform("amd64", "linux")
NOT_MANIFESTS = [
    b"",
    b"[]",
    b"{}",
    b'{"schemaVersion":2}',
    b'{"schemaVersion":2,"layers":[],"manifests":[]}',
    b'{"schemaVersion":2,"layers":[{"digest":"sha256:00"}]}',
    b'{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"md5:00","size":1}]}',
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","layers":[]}',
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", NOT_MANIFESTS)
async def test_what_is_no_manifest_is_corrupt_and_names_the_reference(
    net: Net, data: bytes
) -> None:
    net.registry.plan[:] = [Status(code=200, body=data)]
    with pytest.raises(Corrupt, match=r"registry\.example/a/b:v1"):
        await Images(net.session).find(HERE)


async def test_a_manifest_that_is_not_what_its_digest_says_is_corrupt(net: Net) -> None:
    images = Images(net.session)
    net.registry.after = Status(code=200, body=b"{}")
    with pytest.raises(Corrupt, match="hashes to"):
        await images.document(str(DIGEST))
    said = (("Docker-Content-Digest", str(DIGEST)),)
    net.registry.after = Status(code=200, headers=said, body=b"{}")
    with pytest.raises(Corrupt, match="hashes to"):
        await images.document("v1")


def entry(architecture: str, *features: str, variant: str = "") -> dict[str, object]:
    platform = {"os": "linux", "architecture": architecture, "os.features": list(features)}
    name = f"{architecture}{variant}{features}".encode()
    digest = str(Digest.of(name, Algorithm.SHA256))
    return {
        "mediaType": "m",
        "digest": digest,
        "size": 1,
        "platform": platform | ({"variant": variant} if variant else {}),
    }


LAZY = "nydus.remoteimage.v1"
ENTRIES = [
    entry("arm64", variant="v8"),
    entry("amd64", LAZY),
    entry("amd64"),
    entry("arm", variant="v6"),
    entry("arm", variant="v7"),
]
CHOICES = [
    (Platform("amd64", "linux"), None, 2),
    (Platform("amd64", "linux"), LAZY, 1),
    (Platform("amd64", "linux"), "unknown", 2),
    (Platform("arm64", "linux"), LAZY, 0),
    (Platform.of("aarch64"), None, 0),
    (Platform.of("armv7l"), None, 4),
    (Platform.parse("linux/arm/v6"), None, 3),
]


@pytest.mark.parametrize(("wanted", "feature", "number"), CHOICES)
def test_an_index_is_chosen_from(wanted: Platform, feature: str | None, number: int) -> None:
    data = json.dumps({"schemaVersion": 2, "manifests": ENTRIES}).encode()
    index = Document("", data).decode()
    assert isinstance(index, Index)
    assert index.choose(wanted, feature=feature).digest_text == ENTRIES[number]["digest"]
