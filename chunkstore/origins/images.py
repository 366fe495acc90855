"""Images: the manifests of a repository, and what they name."""

from __future__ import annotations

from dataclasses import dataclass

from chunkstore.digest import Algorithm, Digest
from chunkstore.errors import Corrupt
from chunkstore.http import Request
from chunkstore.http.client import refused

from .download import Download
from .manifest import ACCEPTED, MANIFEST_LIMIT, Descriptor, Document, Index, Manifest, Platform
from .registry import Registry


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """One image for one platform."""

    digest: Digest
    """Of the manifest."""
    document: Document
    manifest: Manifest


class Images:
    """Reads the images of a repository; everything is checked against its digest."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def find(
        self, platform: Platform, *, feature: str | None = None, name: str | None = None
    ) -> RemoteImage:
        """Return the image that the reference (or *name*, a tag or digest) means on *platform*.

        Where an index has two for the platform, the one with the ``os.features`` entry *feature*
        is taken, or one without features when *feature* is None. Raises Missing, Corrupt,
        Unreachable or Refused.
        """
        document = await self.document(name or self._registry.reference.name)
        described = self._read(document)
        if isinstance(described, Index):
            entry = described.choose(platform, feature=feature)
            document = await self.document(str(entry.digest))
            described = self._read(document)
            if isinstance(described, Index):
                raise Corrupt(f"{self._registry.reference}: an index within an index")
        return RemoteImage(document.digest, document, described)

    def _read(self, document: Document) -> Manifest | Index:
        try:
            return document.decode()
        except Corrupt as exc:
            raise Corrupt(f"{self._registry.reference}: {exc}") from exc

    async def document(self, name: str) -> Document:
        """Return the manifest or index *name*, a tag or digest."""
        url = self._registry.url(f"manifests/{name}")
        request = Request("GET", url, (("Accept", ACCEPTED),), patience=self._registry.patience)
        async with self._registry.ask(request) as response:
            if response.status != 200:
                raise await refused(response)
            kind = response.headers.get("content-type", "").partition(";")[0].strip()
            document = Document(kind, await response.read(MANIFEST_LIMIT))
            said = response.headers.get("docker-content-digest")
        for wanted in (name, said):
            if wanted and wanted.startswith("sha256:") and str(document.digest) != wanted:
                raise Corrupt(f"{url}: hashes to {document.digest}, not {wanted}")
        return document

    async def content(self, descriptor: Descriptor, limit: int) -> bytes:
        """Return a small blob, such as an image's configuration, of at most *limit* bytes."""
        if not 0 <= descriptor.size <= limit:
            raise Corrupt(
                f"{self._registry.reference}: a document of {descriptor.size} bytes, "
                f"where {limit} are the most"
            )
        data = bytearray(descriptor.size)
        count = 0
        async with self.download(descriptor) as download:
            with memoryview(data) as view:
                while more := await download.receive_into(view[count:]):
                    count += more
        return bytes(data)

    def download(self, descriptor: Descriptor) -> Download:
        """Return the stream of a blob, to be used in an ``async with``; raises Corrupt."""
        if descriptor.digest.algorithm is not Algorithm.SHA256 or descriptor.size < 0:
            raise Corrupt(f"{self._registry.reference}: no blob can be {descriptor.digest}")
        return Download(self._registry, descriptor.digest, descriptor.size)
