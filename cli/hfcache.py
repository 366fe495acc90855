"""``--hf-cache``: a mounted model where the hub's own programs look for what they downloaded.

::

    DIR/models--ORG--NAME/snapshots/COMMIT      a symlink to the mountpoint
                          refs/REVISION         COMMIT, for the revision that was asked for; for
                                                main, too, where that says nothing yet
                          blobs/                empty

What is there already and not ours stays as it is. What is ours goes with the mount; after a crash
the next mount replaces it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from chunkstore import Malformed
from chunkstore.origins.hubname import PREFIX, HubName, is_commit
from rafs import BadImage, Bootstrap, Unsupported
from rafs.unhashed import origin_of

logger = logging.getLogger(__name__)

_MAIN = "main"


@contextmanager
def appearing(cache: Path | None, mountpoint: Path, image: Bootstrap, asked: str) -> Iterator[None]:
    """Show *image*, mounted at *mountpoint* under the name *asked*, in the folder *cache*.

    Raises Unsupported where it is no hub's model, OSError.
    """
    if cache is None:
        yield
        return
    name = _named(image)
    folder = cache / name.folder
    for below in ("snapshots", "refs", "blobs"):
        (folder / below).mkdir(parents=True, exist_ok=True)
    snapshot = folder / "snapshots" / name.revision
    _link(snapshot, mountpoint)
    refs = [ref for ref in _refs(folder, asked) if _point(ref, name.revision)]
    try:
        yield
    finally:
        with suppress(OSError):
            if snapshot.readlink() == mountpoint:
                snapshot.unlink()
                _forget(refs, name.revision)


def _named(image: Bootstrap) -> HubName:
    """Return the model that *image* was made of, at its commit."""
    try:
        name = HubName.parse(origin_of(image).partition(" ")[2])
    except (BadImage, Malformed) as exc:
        raise Unsupported("--hf-cache: the image was not made of a hub's model") from exc
    if not is_commit(name.revision):
        raise Unsupported(f"--hf-cache: the image does not say which commit of {name} it is")
    return name


def _link(snapshot: Path, mountpoint: Path) -> None:
    """Make the symlink, unless a download or a mount that lives is there."""
    if snapshot.is_symlink() and not snapshot.exists():
        snapshot.unlink()  # of a mount that is gone
    if not snapshot.is_symlink() and snapshot.is_dir():
        logger.info("left as it is, a download path=%s", snapshot)
        return
    part = snapshot.with_name(f".{snapshot.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    part.symlink_to(mountpoint)
    part.replace(snapshot)


def _refs(folder: Path, asked: str) -> Iterator[Path]:
    """Yield what is to say which commit it is."""
    revision = HubName.parse(asked).revision if asked.startswith(PREFIX) else ""
    if revision and not is_commit(revision):
        yield folder / "refs" / revision
    main = folder / "refs" / _MAIN
    if revision != _MAIN and not main.exists():
        yield main


def _point(ref: Path, commit: str) -> bool:
    """Have *ref* say *commit*; return whether it did not before."""
    with suppress(FileNotFoundError):
        if ref.read_text() == commit:
            return False
    ref.parent.mkdir(parents=True, exist_ok=True)
    part = ref.with_name(f".{ref.name}.{os.getpid()}")
    part.write_text(commit)
    part.replace(ref)
    return True


def _forget(refs: list[Path], commit: str) -> None:
    for ref in refs:
        with suppress(FileNotFoundError):
            if ref.read_text() == commit:
                ref.unlink()
