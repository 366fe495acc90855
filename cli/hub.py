"""``hf:ORG/NAME[@REVISION]``: a model of a hub, as a source of builds and as an image to mount.

An image is made of the hub's listing alone, so a mount costs two questions: which commit, and its
files. The bootstrap says which commit that was; whatever opens it again asks for no other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO

import trio

from chunkstore import Algorithm, Digest, Missing, SizedOrigin
from chunkstore.http import Client
from chunkstore.origins.hub import Hub, HubFile, chosen
from chunkstore.origins.hubname import HubAccess, HubName, is_commit
from chunkstore.origins.huborigin import HubOrigin
from chunkstore.origins.wholefile import File, WholeFiles
from chunkstore.origins.wholesorigin import WholesOrigin
from chunkstore.retrying import Retrying
from rafs import BadImage, Bootstrap, unhashed
from rafs.sources.listing import Listed, ListingSource

from .models import Files, without_digests
from .places import Promise
from .setup import Setup


def hub_of(text: str, client: Client) -> Hub:
    """Return the repository that *text* names, asked as this user; raises Malformed."""
    return Hub(HubName.parse(text), HubAccess.of(os.environ), client)


def hub_source(
    text: str, setup: Setup, client: Client, token: trio.lowlevel.TrioToken
) -> ListingSource:
    """Return what *text* names as a source; *client* lives in the loop of *token*.

    Raises ChunkstoreError.
    """
    hub = hub_of(text, client)
    commit = trio.from_thread.run(hub.commit, trio_token=token)
    files = wanted(hub, setup, trio.from_thread.run(partial(hub.listing, commit), trio_token=token))
    origin = Retrying(HubOrigin(hub, commit), deadline=setup.patience)
    whole = WholeFiles(origin, [File(one.path, one.size, one.checksum) for one in files], token)
    listed = [Listed(one.path.encode(), one.size) for one in files]
    source = ListingSource(str(hub.name), listed, lambda file: whole.blocks(file.path.decode()))
    source.xattrs = {unhashed.ORIGIN: origin_text(hub, commit).encode()}
    return source


def origin_text(hub: Hub, commit: str) -> str:
    """Return what an image says of where its files are from."""
    repository = str(hub.name).rpartition("@")[0]
    return f"{hub.endpoint.absolute.rstrip('/')} {repository}@{commit}"


def wanted(hub: Hub, setup: Setup, files: Sequence[HubFile]) -> Sequence[HubFile]:
    """Return the files that the setup's patterns choose; raises Missing where they choose none."""
    found = chosen(files, setup.allow, setup.ignore)
    if files and not found:
        raise Missing(f"{hub.name}: none of its {len(files)} files is one that was asked for")
    return found


class HubPlace:
    """A repository as the place of an image that is made of its listing."""

    within = ""
    is_unhashed = True

    def __init__(self, hub: Hub, setup: Setup) -> None:
        self._hub = hub
        self._setup = setup
        self._commit: str | None = None

    @property
    def origin(self) -> SizedOrigin:
        """Nowhere: what its blobs are made of only its bootstrap says; see ``files``."""
        raise without_digests(str(self._hub.name))

    async def promise(self) -> Promise:
        """Ask which commit is meant; the same files of the same commit make the same image."""
        name = self._hub.name
        self._commit = name.revision if name.is_pinned else await self._hub.commit()
        named = "\0".join([origin_text(self._hub, self._commit), *self._patterns()])
        return Promise(packed=Digest.of(named.encode(), Algorithm.SHA256))

    async def fetch(self, out: BinaryIO) -> None:
        """Make the bootstrap of the commit's listing."""
        commit = self._commit or await self._hub.commit()
        files = wanted(self._hub, self._setup, await self._hub.listing(commit))
        unread = [unhashed.Unread(file.path, file.size, file.checksum) for file in files]
        await trio.to_thread.run_sync(unhashed.encode, origin_text(self._hub, commit), unread, out)

    def files(self, image: Bootstrap) -> Files:
        """Return what *image*, which was made here once, reads from; raises BadImage."""
        source = unhashed.origin_of(image)
        commit = source.rpartition("@")[2]
        if source != origin_text(self._hub, commit) or not is_commit(commit):
            raise BadImage(f"{self._hub.name}: the image is of {source[:200]}")
        known = unhashed.wholes(image)
        return Files(commit, known, WholesOrigin(HubOrigin(self._hub, commit), known))

    def _patterns(self) -> Iterator[str]:
        yield from (f"allow {pattern}" for pattern in self._setup.allow)
        yield from (f"ignore {pattern}" for pattern in self._setup.ignore)
