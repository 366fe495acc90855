"""A model artifact as a target: every file as it is, a layer each (CNCF ModelPack, model-spec).

What a client pulls is plain files, whatever it is: ORAS, modctl, the kubelet's drivers. Their bytes
are read out of the image that was built, chunk by chunk, verified, and leave it one file at a time.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import msgspec

from chunkstore import Buffer
from rafs.bootstrap import Bootstrap
from rafs.content import SPAN, Place, places
from rafs.errors import BadSource
from rafs.sources.documents import MANIFEST_TYPES, Descriptor, Manifest
from rafs.sources.modelpack import (
    ARTIFACT_TYPE,
    CONFIG_TYPE,
    FILEPATH,
    LAYER_TYPE,
    METADATA,
    TITLE,
)
from rafs.storedreader import StoredReader
from rafs.tarformat import shown

from .draft import Draft, Json, Piece
from .oci import Shelf

_KINDS = (
    (r".*\.(safetensors|gguf|ggml|bin|pt|pth|ckpt|onnx|h5|hdf5|msgpack|tflite|npz|npy)", "weight"),
    (r"(.*/)?(readme|license|licence|notice|copying)[^/]*|.*\.(md|rst|pdf)", "doc"),
    (r".*\.(py|ipynb|sh|c|cc|cpp|cu|h|hpp|js|ts|go|rs|java|jinja)", "code"),
    (r".*\.(csv|tsv|parquet|arrow|jsonl)", "dataset"),
)
"""What a file is, by its name, in lower case; all else configures the weights."""

_LARGE = 16 << 20
"""Bytes from which on a file of no known kind is taken for weights."""


class ModelPackTarget:
    """The model goes to *shelf*; *place* is a folder to work in."""

    def __init__(self, shelf: Shelf, place: Path, name: str) -> None:
        """Call the model *name*."""
        self.place = place
        self._shelf = shelf
        self._name = name

    def publish(self, draft: Draft) -> list[str]:
        """Put every file, then config and manifest, and name it; raises BadSource, OSError."""
        words: list[str] = []
        with closing(Bootstrap.open(draft.bootstrap.path)) as image:
            layers = [
                self._layer(draft, image, place)
                for place in places(image)
                if _is_packed(place, words)
            ]
        config = {
            "descriptor": {"name": self._name},
            "modelfs": {"type": "layers", "diffIds": [layer.digest for layer in layers]},
            "config": {},
        }
        described = self._put_json(draft.folder / "config", config, CONFIG_TYPE)
        manifest = Manifest(described, tuple(layers), ARTIFACT_TYPE)
        value: Json = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPES[0],
            **msgspec.to_builtins(manifest),
        }
        self._shelf.name(self._put_json(draft.folder / "manifest", value, MANIFEST_TYPES[0]))
        return words

    def _layer(self, draft: Draft, image: Bootstrap, place: Place) -> Descriptor:
        """Put one file and return what describes it."""
        piece = Piece.write(draft.folder / "file", lambda out: _write(draft, image, place, out))
        path = _text(place.path)
        facts = {
            "name": path.rpartition("/")[2],
            "mode": stat.S_IMODE(place.mode),
            "uid": place.uid,
            "gid": place.gid,
            "size": place.size,
        }
        layer = Descriptor(
            LAYER_TYPE.format(kind=_kind(path, place.size)),
            str(piece.digest),
            piece.size,
            annotations={
                FILEPATH: path,
                METADATA: msgspec.json.encode(facts).decode(),
                TITLE: path,
            },
        )
        self._shelf.put(layer, piece.path)
        piece.path.unlink(missing_ok=True)
        return layer

    def _put_json(self, path: Path, value: Json, media_type: str) -> Descriptor:
        data = msgspec.json.encode(value)
        piece = Piece.write(path, lambda file: file.write(data))
        descriptor = Descriptor(media_type, str(piece.digest), piece.size)
        self._shelf.put(descriptor, piece.path)
        return descriptor


def _is_packed(place: Place, words: list[str]) -> bool:
    """Say whether a layer is made of *place*; tell of what a model cannot have."""
    if stat.S_ISREG(place.mode):
        return True
    if not stat.S_ISDIR(place.mode):
        words.append(f"left out, a model has but files: {os.fsdecode(place.path)}")
    return False


def _text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError as exc:
        raise BadSource(f"{shown(path)}: a model artifact has names in UTF-8 only") from exc


def _kind(path: str, size: int) -> str:
    for pattern, kind in _KINDS:
        if re.fullmatch(pattern, path.lower()):
            return kind
    return "weight" if size >= _LARGE else "weight.config"


def _write(draft: Draft, image: Bootstrap, place: Place, out: BinaryIO) -> None:
    """Write a file's bytes to *out*; raises BadSource where a blob is elsewhere."""
    blob = draft.blob
    own = blob.digest.hex if blob is not None else ""

    def read(blob_id: str, start: int, stop: int) -> Buffer:
        if blob is None or blob_id != own:
            raise BadSource(f"blob {blob_id} of the chunk dict: a model artifact holds its files")
        with blob.path.open("rb") as file:
            return os.pread(file.fileno(), stop - start, start)

    reader = StoredReader(read)
    for start in range(0, place.size, SPAN):
        extents = image.extents(place.nid, start, start + SPAN)
        for extent in extents:
            out.write(reader.read([extent]))
