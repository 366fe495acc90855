"""SOURCE and TARGET: what ``naiad build`` reads and what it writes, as they are typed."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import click
import trio

from chunkstore import Malformed
from chunkstore.http import Client
from chunkstore.origins.contents import Contents
from chunkstore.origins.hubname import PREFIX
from chunkstore.origins.images import Images, RemoteImage
from chunkstore.origins.reference import Reference
from rafs.scratch import scratch
from rafs.sources.directory import DirectorySource
from rafs.sources.documents import Descriptor, Platform
from rafs.sources.oci import OciSource
from rafs.sources.source import Source
from rafs.sources.tarball import TarSource
from rafs.targets import (
    DirectoryTarget,
    LayoutShelf,
    ModelPackTarget,
    OciTarget,
    Target,
    layout_target,
)
from rafs.targets.directory import BLOBS

from .clients import client_of
from .hub import hub_source
from .image import registry
from .loop import background_loop
from .names import split_layout
from .oci import machine
from .setup import Setup
from .shelf import RegistryShelf


class Ends:
    """Makes sources and targets of words; what they need open is closed with the stack."""

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        self._setup = setup
        self._stack = stack
        self._token: trio.lowlevel.TrioToken | None = None
        self._client: Client | None = None

    def source(self, text: str) -> Source:
        """Return what *text* names; raises UsageError, BadSource, ChunkstoreError."""
        if text.startswith(PREFIX):
            token, client = self.connected()
            return hub_source(text, self._setup, client, token)
        if self._setup.allow or self._setup.ignore:
            raise click.UsageError("--allow and --ignore choose among a hub's files: hf:ORG/NAME")
        if text == "-":
            return TarSource(None)
        if text.startswith("oci:"):
            return OciSource.layout(*split_layout(text))
        path = Path(text)
        if path.is_dir():
            return DirectorySource(path)
        if path.exists():
            return TarSource(path)
        if text.startswith((".", "/")):
            raise click.UsageError(f"SOURCE {text!r}: no such file or directory")
        return self._remote(_reference("SOURCE", text))

    def target(self, text: str, form: str = "rafs", dicts: Sequence[str] = ()) -> Target:
        """Return what *text* names; a path is one with a slash or dot in front, or one that exists.

        *form* ``modelpack`` makes a model artifact of it. A folder gets what it needs of the blobs
        of *dicts* that are folders too. Raises UsageError.
        """
        if form == "modelpack":
            return self._model(text)
        if text.startswith("oci:"):
            return layout_target(*split_layout(text))
        if not _is_path(text):
            return OciTarget(self._shelf(text), self.scratch())
        lenders = [folder for name in dicts if (folder := Path(name) / BLOBS).is_dir()]
        return DirectoryTarget(Path(text), lenders)

    def _model(self, text: str) -> Target:
        if text.startswith("oci:"):
            folder, tag = split_layout(text)
            return ModelPackTarget(LayoutShelf(folder, tag), folder, tag or folder.name)
        if _is_path(text):
            raise click.UsageError(f"TARGET {text}: a model artifact goes to oci: or a registry")
        name = target_reference(text).repository.rpartition("/")[2]
        return ModelPackTarget(self._shelf(text), self.scratch(), name)

    def _shelf(self, text: str) -> RegistryShelf:
        token, client = self.connected()
        named = registry(target_reference(text), client, plain_http=self._setup.plain_http)
        return RegistryShelf(named, token)

    def scratch(self) -> Path:
        """Return a new folder to work in; what killed builds had there goes."""
        return self._stack.enter_context(scratch(Path(tempfile.gettempdir())))

    def _remote(self, named: Reference) -> Source:
        token, client = self.connected()
        images = Images(registry(named, client, plain_http=self._setup.plain_http))
        found = trio.from_thread.run(partial(images.find, machine()), trio_token=token)
        return image_source(found, images, token)

    def connected(self) -> tuple[trio.lowlevel.TrioToken, Client]:
        """Return an event loop, in a thread of its own, and a client for HTTP in it."""
        if self._token is None or self._client is None:
            self._token = self._stack.enter_context(background_loop())
            self._client = client_of(self._setup)
            close = partial(trio.from_thread.run_sync, trio_token=self._token)
            self._stack.callback(close, self._client.close)
        return self._token, self._client


def image_source(
    found: RemoteImage,
    images: Images,
    token: trio.lowlevel.TrioToken,
    platform: Platform | None = None,
) -> Source:
    """Return the image *found* as a source, whose layers come as they are read."""
    store = _Remote(found, Contents(images, found.manifest, token))
    top = Descriptor(found.document.media_type, str(found.digest), len(found.document.data))
    return OciSource(store, top, platform)


class _Remote:
    """A registry's image as a source reads it."""

    def __init__(self, image: RemoteImage, contents: Contents) -> None:
        self._image = image
        self._contents = contents

    def open(self, descriptor: Descriptor) -> BinaryIO:
        """Return the manifest, which is here, or a blob, as it comes."""
        if descriptor.checked == self._image.digest:
            return io.BytesIO(self._image.document.data)
        return self._contents.open(descriptor.checked)


def target_reference(text: str) -> Reference:
    """Return the name that an image is to get; raises UsageError."""
    try:
        found = Reference.parse(text)
    except Malformed as exc:
        raise click.UsageError(str(exc)) from exc
    if found.digest is not None:
        raise click.UsageError(f"{text}: a digest names what is there; a new image gets a tag")
    return found


@contextmanager
def ends(setup: Setup) -> Iterator[Ends]:
    """Yield what makes sources and targets."""
    with ExitStack() as stack:
        yield Ends(setup, stack)


def _is_path(text: str) -> bool:
    if text.startswith((".", "/")) or Path(text).is_dir():
        return True
    try:
        Reference.parse(text)
    except Malformed:
        return True
    return False


def _reference(what: str, text: str) -> Reference:
    try:
        return Reference.parse(text)
    except Malformed as exc:
        raise click.UsageError(f"{what} {text!r}: no such file, and no registry reference") from exc
