"""Images made of listings, whose chunks have no digests: what they are read from.

A hub tells its files with their checksums; so does the manifest of a model artifact, where every
file that is a layer as it is (``.raw``) has the layer's digest. Files in a layer that is a plain
tar are read where they lie in it, and checked with the whole tar: its headers are looked through
when it is mounted, on the connection's word as all of it is until then.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from chunkstore import Buffer, Digest, Origin
from chunkstore.checksum import Checksum, Kind
from chunkstore.origins.manifest import Manifest
from chunkstore.whole import Whole
from rafs import Unsupported
from rafs.sources import modelpack
from rafs.sources.archive import Archive
from rafs.sources.documents import Descriptor
from rafs.sources.seeking import Seeking
from rafs.tarformat import Member, Type, shown
from rafs.unhashed import Unread

FUSE_ALONE = "only FUSE can drop what turns out to be wrong"
"""Why such an image is not shown by the kernel's EROFS."""


class Unhashed(enum.Enum):
    """What of an image whose chunks have no digests."""

    REFUSED = enum.auto()
    ALLOWED = enum.auto()
    KNOWN = enum.auto()
    """It is one: it was found out when it was opened before."""


@dataclass(frozen=True, slots=True)
class Files:
    """What an image of whole files is read from."""

    commit: str
    """Which commit of a hub's repository; empty where there is no such thing."""
    wholes: Mapping[str, Sequence[Whole]]
    """By blob."""
    origin: Origin


def without_digests(name: str) -> Unsupported:
    """Return the error for who needs digests of chunks."""
    return Unsupported(
        f"{name}: its chunks have no digests: mount it, or let naiad build make an image of it"
    )


def is_model(manifest: Manifest) -> bool:
    """Say whether *manifest* is a model artifact's."""
    return modelpack.is_model_type(manifest.artifact_type or manifest.config.media_type)


Read = Callable[[str, int, int], Buffer]
"""Returns a range of a layer, by the layer's hexadecimal digest; in a thread."""


def layers(manifest: Manifest) -> Sequence[Descriptor]:
    """Return the layers of a model artifact; raises BadSource, Unsupported for what is packed."""
    found = []
    for entry in manifest.layers:
        facts = dict(entry.annotations or {})
        layer = Descriptor(entry.media_type, str(entry.digest), entry.size, facts)
        if modelpack.form(layer) not in ("raw", "tar"):
            raise Unsupported(
                f"layer {layer.digest}: a compressed tar has no files to be read by themselves: "
                "let naiad build make an image of it"
            )
        found.append(layer)
    return found


def unread(manifest: Manifest, read: Read) -> Sequence[Unread]:
    """Return the files of a model artifact, whose tars are looked through by *read*.

    Raises BadSource, Unsupported where they cannot be read where they lie.
    """
    found: list[Unread] = []
    for layer in layers(manifest):
        digest = Digest.parse(layer.digest)
        checksum = Checksum(Kind(digest.algorithm.value), digest.raw)
        if modelpack.form(layer) == "raw":
            found.append(Unread(modelpack.path_of_layer(layer), layer.size, checksum))
        else:
            name = f"layer {layer.digest}"
            tar = Archive(Seeking(partial(read, digest.hex), layer.size, name))
            within = ((member, (layer.size, tar.stream.position)) for member in tar)
            found += (
                Unread(_text(member, name), member.size, checksum, place, member.mode & 0o777)
                for member, place in within
                if _is_file(member, name)
            )
    return found


def _text(member: Member, where: str) -> str:
    try:
        return member.name.decode()
    except UnicodeDecodeError as exc:
        raise Unsupported(f"{where}: {shown(member.name)} is not in UTF-8") from exc


def _is_file(member: Member, where: str) -> bool:
    """Say whether a member is a file as it is; folders are made as paths want them."""
    if member.type is Type.FILE and member.regions is None:
        return True
    if member.type is Type.DIRECTORY:
        return False
    raise Unsupported(
        f"{where}: {shown(member.name)} is no plain file: let naiad build make an image of it"
    )
