"""``hf:ORG/NAME[@REVISION]``: a model of a hub, as a source of builds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial

import trio

from chunkstore import Missing
from chunkstore.http import Client
from chunkstore.origins.hub import Hub, HubFile, chosen
from chunkstore.origins.hubname import HubAccess, HubName
from chunkstore.origins.huborigin import HubOrigin
from chunkstore.origins.wholefile import File, WholeFiles
from chunkstore.retrying import Retrying
from rafs.sources.listing import Listed, ListingSource

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
    return ListingSource(str(hub.name), listed, lambda file: whole.blocks(file.path.decode()))


def wanted(hub: Hub, setup: Setup, files: Sequence[HubFile]) -> Sequence[HubFile]:
    """Return the files that the setup's patterns choose; raises Missing where they choose none."""
    found = chosen(files, setup.allow, setup.ignore)
    if files and not found:
        raise Missing(f"{hub.name}: none of its {len(files)} files is one that was asked for")
    return found
