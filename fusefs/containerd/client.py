"""Client: containerd's own services, called from worker threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import grpc

from .messages import (
    Applied,
    Apply,
    Commit,
    ContentInfo,
    DeleteLease,
    Descriptor,
    Empty,
    FieldMask,
    Image,
    Labels,
    Lease,
    Mount,
    Mounts,
    Named,
    Prepare,
    PutImage,
    UpdateContent,
    WriteAction,
    WriteContent,
    WrittenContent,
)
from .protobuf import Message, decode, encode

A = TypeVar("A", bound=Message)

_SERVICES = "/containerd.services"
_PATIENCE = 60.0
"""Seconds for a call that does not unpack anything."""

_UNPACKING = 3600.0
"""Seconds for a layer to be unpacked."""


class ContainerdError(Exception):
    """What containerd says went wrong."""

    def __init__(self, code: grpc.StatusCode, said: str) -> None:
        super().__init__(f"containerd: {said}")
        self.code = code

    @property
    def exists_already(self) -> bool:
        """Say whether something was to be made that is there."""
        return self.code is grpc.StatusCode.ALREADY_EXISTS

    @property
    def is_passing(self) -> bool:
        """Say whether it may go better in a moment."""
        return self.code is grpc.StatusCode.UNAVAILABLE


class Client:
    """containerd at the socket *address*, in one of its namespaces; to be closed."""

    def __init__(self, address: Path, namespace: str) -> None:
        self._channel = grpc.insecure_channel(
            f"unix:{address}", options=[("grpc.default_authority", "localhost")]
        )
        self._metadata: tuple[tuple[str, str | bytes], ...] = (("containerd-namespace", namespace),)

    def lease(self, name: str, expires: str) -> None:
        """Keep what is made from now on from being collected before it has a name.

        The lease *name* ends by itself at *expires*, a time as RFC 3339 writes it.
        """
        self._call("leases.v1.Leases/Create", Lease(name, {"containerd.io/gc.expire": expires}))
        self._metadata = (*self._metadata, ("containerd-lease", name))

    def end_lease(self, name: str, *, collect: bool) -> None:
        """End it; *collect* at once what has no name."""
        self._metadata = self._metadata[:1]
        self._call("leases.v1.Leases/Delete", DeleteLease(name, sync=collect))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def put_content(self, descriptor: Descriptor, parts: Iterable[bytes], labels: Labels) -> None:
        """Store content, unless it is there; then only its labels are set."""
        call = self._channel.stream_stream(
            f"{_SERVICES}.content.v1.Content/Write",
            encode,
            lambda data: decode(WrittenContent, data),
        )
        try:
            with _told():
                for _ in call(
                    _writes(descriptor, parts, labels), metadata=self._metadata, timeout=_UNPACKING
                ):
                    pass
        except ContainerdError as exc:
            if not exc.exists_already:
                raise
            mask = FieldMask(tuple(f"labels.{name}" for name in labels))
            update = UpdateContent(ContentInfo(descriptor.digest, labels=labels), mask)
            self._call("content.v1.Content/Update", update)

    def prepare(self, snapshotter: str, key: str, parent: str, labels: Labels) -> tuple[Mount, ...]:
        """Make an active snapshot and return how to mount it."""
        request = Prepare(snapshotter, key, parent, labels)
        return self._call("snapshots.v1.Snapshots/Prepare", request, Mounts).mounts

    def commit(self, snapshotter: str, key: str, name: str, labels: Labels) -> None:
        """Commit an active snapshot."""
        self._call("snapshots.v1.Snapshots/Commit", Commit(snapshotter, name, key, labels))

    def remove(self, snapshotter: str, key: str) -> None:
        """Remove a snapshot."""
        self._call("snapshots.v1.Snapshots/Remove", Named(snapshotter, key))

    def apply(self, layer: Descriptor, mounts: tuple[Mount, ...]) -> str:
        """Unpack *layer*, which is stored, into *mounts*; return its unpacked digest."""
        done = self._call("diff.v1.Diff/Apply", Apply(layer, mounts), Applied, _UNPACKING)
        return done.applied.digest if done.applied else ""

    def put_image(self, image: Image) -> None:
        """Name an image, or say anew what its name stands for."""
        try:
            self._call("images.v1.Images/Create", PutImage(image))
        except ContainerdError as exc:
            if not exc.exists_already:
                raise
            self._call("images.v1.Images/Update", PutImage(image))

    def _call(
        self,
        method: str,
        request: Message,
        answer: type[A] = Empty,  # type: ignore[assignment]  # mypy: no default for a variable
        patience: float = _PATIENCE,
    ) -> A:
        call = self._channel.unary_unary(
            f"{_SERVICES}.{method}", encode, lambda data: decode(answer, data)
        )
        with _told():
            return call(request, metadata=self._metadata, timeout=patience)


@contextmanager
def _told() -> Iterator[None]:
    """Raise ContainerdError for what grpc does."""
    try:
        yield
    except grpc.RpcError as exc:
        if not isinstance(exc, grpc.Call):
            raise
        raise ContainerdError(exc.code(), exc.details() or str(exc.code())) from exc


def _writes(
    descriptor: Descriptor, parts: Iterable[bytes], labels: Labels
) -> Iterator[WriteContent]:
    ref, at = f"naiad-{descriptor.digest}", 0
    for part in parts:
        yield WriteContent(
            WriteAction.WRITE, ref, descriptor.size, descriptor.digest, offset=at, data=part
        )
        at += len(part)
    yield WriteContent(
        WriteAction.COMMIT, ref, descriptor.size, descriptor.digest, at, labels=labels
    )
