"""``naiad convert``: the images of a name in a registry as lazy ones under another name."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from chunkstore import Missing
from chunkstore.origins import manifest as documents
from chunkstore.origins.images import Images, RemoteImage
from chunkstore.origins.push import Push
from chunkstore.origins.reference import Reference
from rafs.builder import BuildOptions, BuildResult, build
from rafs.errors import BadSource
from rafs.sources.documents import (
    INDEX_TYPES,
    LAZY_FEATURE,
    Descriptor,
    Platform,
    decode_index,
)
from rafs.targets import OciTarget

from .ends import Ends, image_source
from .image import registry
from .progress import Advance
from .setup import Setup
from .shelf import RegistryShelf

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Original:
    """An image to be converted."""

    image: RemoteImage
    platform: Platform
    described: Descriptor
    """Its entry in an index."""


class Converter:
    """Converts from *source* to *target*."""

    def __init__(self, ends: Ends, setup: Setup, source: Reference, target: Reference) -> None:
        self._ends = ends
        self._source, self._target = source, target
        self._token, client = ends.connected()
        self._from = registry(source, client, plain_http=setup.plain_http)
        self._to = registry(target, client, plain_http=setup.plain_http)
        self._images = Images(self._from)
        self._push = Push(self._to)

    def originals(self, wanted: Sequence[Platform]) -> list[Original]:
        """Return the ordinary images of the source for the platforms *wanted*, or for all.

        Raises Missing where there is none for one of them.
        """
        known = self._run(self._originals)
        if not known:
            raise BadSource(f"{self._source}: loaded lazily already")
        for platform in wanted:
            if not any(one.platform.suits(platform) for one in known):
                there = ", ".join(str(one.platform) for one in known)
                raise Missing(f"{self._source}: no image for {platform}; there is one for {there}")
        if not wanted:
            return known
        return [one for one in known if any(one.platform.suits(each) for each in wanted)]

    def convert(
        self, original: Original, options: BuildOptions, progress: Advance
    ) -> tuple[BuildResult, Descriptor]:
        """Build the lazy image of *original* in the target's repository; it has no name yet."""
        shelf = _NamelessShelf(RegistryShelf(self._to, self._token))
        target = OciTarget(shelf, self._ends.scratch(), original.platform)
        source = image_source(original.image, self._images, self._token, original.platform)
        result = build(source, target, options, progress)
        return result, shelf.image

    def bring(self, original: Original) -> Descriptor:
        """Have *original* itself in the target's repository, and return its entry in an index."""
        image = original.image
        if (self._source.host, self._source.repository) != (
            self._target.host,
            self._target.repository,
        ):
            for blob in (image.manifest.config, *image.manifest.layers):
                self._run(self._bring_blob, blob)
        document = image.document
        self._run(self._push.manifest, document.data, document.media_type, str(image.digest))
        return original.described

    def name(self, images: Sequence[Descriptor], beside: Sequence[Descriptor] = ()) -> str:
        """Name an index of *images*, and return its digest.

        Where it lists originals *beside* them, the lazy images are marked by the platform feature.
        """
        if beside:
            images = [*beside, *map(_marked, images)]
        index = {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPES[0],
            "manifests": msgspec.to_builtins(images),
        }
        data = msgspec.json.encode(index)
        return str(self._run(self._push.manifest, data, INDEX_TYPES[0]))

    async def _originals(self) -> list[Original]:
        document = await self._images.document(self._source.name)
        top = document.decode()
        if isinstance(top, documents.Manifest):
            image = RemoteImage(document.digest, document, top)
            return [await self._alone(image)]
        there = [
            one
            for one in decode_index(document.data, f"index {document.digest}").manifests
            if one.platform is not None and not one.is_lazy and one.platform.os != "unknown"
        ]
        return [await self._entry(one) for one in there]

    async def _entry(self, entry: Descriptor) -> Original:
        document = await self._images.document(entry.digest)
        manifest = document.decode()
        if not isinstance(manifest, documents.Manifest) or entry.platform is None:
            raise BadSource(f"{entry.digest} is an index in an index")
        return Original(RemoteImage(document.digest, document, manifest), entry.platform, entry)

    async def _alone(self, image: RemoteImage) -> Original:
        data = await self._images.content(image.manifest.config, documents.MANIFEST_LIMIT)
        try:
            platform = msgspec.json.decode(data, type=Platform)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise BadSource(f"{self._source}: its config names no platform: {exc}") from exc
        platform = msgspec.structs.replace(platform, features=())
        document = image.document
        described = Descriptor(
            document.media_type, str(image.digest), len(document.data), platform=platform
        )
        return Original(image, platform, described)

    async def _bring_blob(self, blob: documents.Descriptor) -> None:
        if await self._push.has(blob.digest):
            return
        with tempfile.NamedTemporaryFile(prefix="naiad-convert-") as file:
            async with self._images.download(blob) as download:
                await download.copy(file)  # type: ignore[arg-type]  # a file, wrapped
            file.flush()
            await self._push.blob(blob.digest, Path(file.name))

    def _run(self, work: Callable[..., Awaitable[T]], *arguments: object) -> T:
        return trio.from_thread.run(work, *arguments, trio_token=self._token)


def _marked(image: Descriptor) -> Descriptor:
    assert image.platform is not None
    marked = msgspec.structs.replace(image.platform, features=(LAZY_FEATURE,))
    return msgspec.structs.replace(image, platform=marked)


class _NamelessShelf:
    """A shelf on which images get no names: of their index it keeps what it lists."""

    def __init__(self, shelf: RegistryShelf) -> None:
        self._shelf = shelf
        self.size = shelf.size
        self._listed: Sequence[Descriptor] = ()

    @property
    def image(self) -> Descriptor:
        """The image that was put last."""
        return self._listed[-1]

    def put(self, descriptor: Descriptor, path: Path) -> None:
        """Put everything but an index."""
        if descriptor.media_type in INDEX_TYPES:
            self._listed = decode_index(path.read_bytes(), "the new index").manifests
        else:
            self._shelf.put(descriptor, path)

    def name(self, descriptor: Descriptor) -> None:
        """Name nothing."""
