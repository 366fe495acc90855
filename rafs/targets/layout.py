"""An OCI layout as a shelf: ``blobs/sha256/``, ``oci-layout``, and an index that names images."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from chunkstore import Digest
from rafs.errors import BadSource
from rafs.scratch import locked, publish, scratch
from rafs.sources.documents import INDEX_TYPES, REFERENCE, Descriptor, Platform

from .draft import Json, Piece
from .oci import OciTarget

_MARK = "oci-layout"
_INDEX = "index.json"


class LayoutShelf:
    """The layout in *folder*, where the image is known as *tag*, or has no name beside others."""

    def __init__(self, folder: Path, tag: str | None) -> None:
        self._folder = folder
        self._tag = tag

    def size(self, digest: Digest) -> int | None:
        """Return the bytes of the file of that name."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def put(self, descriptor: Descriptor, path: Path) -> None:
        """Move the file into the layout."""
        place = self._path(descriptor.checked)
        place.parent.mkdir(parents=True, exist_ok=True)
        publish(path, place)

    def name(self, descriptor: Descriptor) -> None:
        """List the image in ``index.json``, in the place of one that had its name."""
        with locked(self._folder), scratch(self._folder) as folder:
            if not (self._folder / _MARK).exists():
                self._write(folder / "mark", {"imageLayoutVersion": "1.0.0"}, _MARK)
            entry = msgspec.to_builtins(descriptor)
            if self._tag is not None:
                entry["annotations"] = {REFERENCE: self._tag}
            others = [image for image in self._images() if _name_of(image) != self._tag]
            index: Json = {
                "schemaVersion": 2,
                "mediaType": INDEX_TYPES[0],
                "manifests": [*others, entry],
            }
            self._write(folder / "index", index, _INDEX)

    def _images(self) -> list[Json]:
        path = self._folder / _INDEX
        try:
            images = json.loads(path.read_bytes())["manifests"]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as exc:
            raise BadSource(f"{path} is no index of images") from exc
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise BadSource(f"{path} is no index of images")
        return images

    def _write(self, path: Path, value: Json, name: str) -> None:
        data = json.dumps(value, indent=2).encode() + b"\n"
        piece = Piece.write(path, lambda file: file.write(data))
        publish(piece.path, self._folder / name)

    def _path(self, digest: Digest) -> Path:
        return self._folder / "blobs" / digest.algorithm.value / digest.hex


def layout_target(folder: Path, tag: str | None, platform: Platform | None = None) -> OciTarget:
    """Return the OCI layout in *folder* as a target."""
    return OciTarget(LayoutShelf(folder, tag), folder, platform)


def _name_of(image: Json) -> object:
    annotations = image.get("annotations")
    return annotations.get(REFERENCE) if isinstance(annotations, dict) else None
