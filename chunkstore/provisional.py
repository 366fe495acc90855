"""Shelves of files that a hub vouches for as a whole, not chunk by chunk.

``AtOnce`` keeps a blob in which every file is one chunk: its checksum is checked when it arrives.

``Provisional`` keeps a blob that is one larger file. What arrives is believed because of where it
came from, and kept apart, in the image's own file, under the digest that it had: so rot is found,
and nothing of it is shared or offered. When all chunks are there the file is hashed. If it is
right, the digests of its chunks are known from then on, to later mounts as well, and the bytes move
to the shared file, where each is checked against them; such a shelf is then as any other. If it is
wrong, all of it is dropped and fetched again; a second time, it is given up: its reads fail.

::

    unchecked ── all there, right ──► checked: apart/OWNER/BLOB → blobs/BLOB
       │  ▲
       │  └── all there, wrong: dropped, the next bytes go to apart/OWNER/BLOB.1
       └───── wrong again ──► given up

Tasks: any thread may call any method; ``settle`` is called by one at a time. Files are replaced
under ``_changing``; who reads ``files`` gets the old ones or the new ones.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from .blobcache import BlobCache
from .cachefile import CacheFile
from .chunk import Blob, Chunk, Codec
from .digest import Algorithm, Buffer, Digest
from .errors import Corrupt
from .eviction import remove
from .readymap import IN_USE, READY, UNVERIFIED
from .shelf import check
from .whole import STEP, Vouched, Whole

logger = logging.getLogger(__name__)

ATTEMPTS = 2
"""Times that a file is fetched before it is given up: what was wrong may have been on the way."""

_MOVED = 16
"""Chunks that are in both files at a time, while they move."""


class AtOnce:
    """A blob whose chunks are whole files, kept in the image's own file."""

    def __init__(
        self, cache: BlobCache, blob: Blob, owner: Digest, wholes: Sequence[Whole]
    ) -> None:
        """Open the file; raises OSError when there is no room for it."""
        self._cache = cache
        self._wholes = {whole.first: whole for whole in wholes}
        self._known: set[int] = set()
        self._file = cache.open(blob, owner)

    def find(self, chunk: Chunk) -> CacheFile | None:
        """Return the file in which *chunk* is ready."""
        index, file = chunk.index, self._file
        if index not in self._known:
            real = _recorded(file, chunk)
            if real is None or not file.holds(real):
                return None
            self._known.add(index)
        elif file.map.states[index] != READY:
            self._known.discard(index)
            return None
        file.map.uses[index] = IN_USE
        return file

    def put(self, chunk: Chunk, data: Buffer, *, use: int = IN_USE) -> bool:
        """Check *data* and keep it; raises Corrupt, OSError."""
        whole = self._wholes.get(chunk.index)
        if whole is None or len(data) != whole.size or not whole.checksum.matches(data):
            name = whole.name if whole else chunk.index
            raise Corrupt(f"{name}: {len(data)} bytes that are not what the hub says it has")
        return self._file.put(replace(chunk, digest=Digest.of(data)), data, use=use)

    def doubts(self, chunk: Chunk) -> bool:
        """Say whether *chunk* may be here, but must be verified first."""
        return self._file.map.states[chunk.index] == UNVERIFIED

    def verify(self, chunk: Chunk) -> bool:
        """Verify *chunk* if it is here but doubtful since a crash; say whether it is ready now."""
        return self._file.check(chunk.index) is True

    def forget(self, chunk: Chunk) -> None:
        """Treat *chunk* as missing from now on: its bytes cannot be read."""
        self._file.drop(chunk.index)

    @property
    def quick(self) -> bool:
        """Whether a small chunk can be put without waiting."""
        return self._file.quick

    @property
    def files(self) -> tuple[CacheFile, ...]:
        """The files that may hold this image's chunks."""
        return (self._file,)

    def close(self) -> None:
        """Give the file back; may wait for the disk."""
        self._cache.close_file(self._file)


class Provisional:
    """A blob that is one file, whose chunks are hashed as they come."""

    def __init__(
        self,
        cache: BlobCache,
        blob: Blob,
        owner: Digest,
        whole: Whole,
        vouched: Vouched,
        full: Callable[[], None],
    ) -> None:
        """Open the files; raises OSError. *full* is called when all is there to be checked."""
        self.whole = whole
        self.failure: str | None = None
        """Why the file was given up."""
        self.blob = blob
        self._cache = cache
        self._owner = owner
        self._vouched = vouched
        self._full = full
        self._attempt = 1
        self._old: list[CacheFile] = []
        self._known: dict[int, CacheFile] = {}
        self._changing = threading.Lock()
        self._settling = threading.Lock()
        self._stopped = False
        self._digests = vouched.load(whole)
        self._shared = cache.open(blob) if self._digests is not None else None
        self._apart: CacheFile | None = None
        try:
            if self._shared is None or cache.place(blob.id, owner).map.exists():
                self._apart = cache.open(blob, owner)
        except OSError:
            self.close()
            raise
        if self.is_full:
            full()

    @property
    def is_checked(self) -> bool:
        """Say whether the file was checked, in this process or before."""
        return self._digests is not None

    @property
    def is_suspect(self) -> bool:
        """Say whether what came for the file was wrong before."""
        return self._attempt > 1

    def chunk(self, index: int) -> Chunk | None:
        """Return a chunk with its digest, which only a checked file has."""
        digests = self._digests
        if digests is None or not 0 <= index < len(digests):
            return None
        start = index * STEP
        size = min(STEP, self.whole.size - start)
        digest = Digest(Algorithm.BLAKE3, digests[index])
        return Chunk(index, digest, start, size, start, size, Codec.NONE)

    @property
    def is_full(self) -> bool:
        """Say whether all of the file is there and waits to be checked."""
        return not self.is_checked and self._held() == self.whole.count

    @property
    def is_doubtful(self) -> bool:
        """Say whether bytes of the file are here that nobody has checked."""
        return not self.is_checked and self._held() > 0

    @property
    def missing(self) -> Sequence[int]:
        """The chunks that must come before the file can be checked."""
        if self.is_checked or self.failure is not None or self._apart is None:
            return ()
        states = self._apart.map.states[: self.whole.count].tobytes()
        return [i for i, state in enumerate(states) if state not in (READY, UNVERIFIED)]

    def find(self, chunk: Chunk) -> CacheFile | None:
        """Return the file in which *chunk* is ready."""
        index = chunk.index
        known = self._known.get(index)
        if known is not None:
            if known.map.states[index] == READY:
                known.map.uses[index] = IN_USE
                return known
            self._known.pop(index, None)
        for file in self.files:
            real = self._real(chunk) or _recorded(file, chunk)
            if real is not None and file.holds(real):
                self._known[index] = file
                file.map.uses[index] = IN_USE
                return file
        return None

    def put(self, chunk: Chunk, data: Buffer, *, use: int = IN_USE) -> bool:
        """Keep *data*; raises Corrupt where it is known to be wrong, OSError."""
        if self.failure is not None:
            raise Corrupt(self.failure)
        if not self.is_checked:
            self._learn()
        real = self._real(chunk)
        if real is not None and self._shared is not None:
            check(real, data)
            # Apart where another image has claimed the place for something else.
            return self._shared.put(real, data, use=use) or self._own().put(real, data, use=use)
        if len(data) != chunk.size:
            raise Corrupt(f"{self.whole.name}: {len(data)} bytes where {chunk.size} should be")
        found = replace(chunk, digest=Digest.of(data))
        if not self._own().put(found, data, use=use):
            raise Corrupt(f"{self.whole.name}: chunk {chunk.index} is not what it was before")
        if self.is_full:
            self._full()
        return True

    def settle(self) -> bool:
        """Check the file if all of it is here; return False when it was wrong. Takes its time.

        Raises OSError when what was checked cannot be kept.
        """
        with self._settling:
            apart = self._apart
            if not self.is_full or apart is None or self._stopped:
                return True
            digests = self._digests_of(apart)
            if digests is None:
                return True
            if not digests:
                self._drop()
                return False
            self._vouched.save(self.whole, digests)
            self._move(apart, self._believe(digests))
            return True

    def doubts(self, chunk: Chunk) -> bool:
        """Say whether *chunk* may be here, but must be verified first."""
        return any(file.map.states[chunk.index] == UNVERIFIED for file in self.files)

    def verify(self, chunk: Chunk) -> bool:
        """Verify *chunk* if it is here but doubtful since a crash; say whether it is ready now."""
        for file in self.files:
            real = self._real(chunk) or _recorded(file, chunk)
            if real is not None and file.verify(real):
                return True
        return False

    def forget(self, chunk: Chunk) -> None:
        """Treat *chunk* as missing from now on: its bytes cannot be read."""
        for file in self.files:
            file.drop(chunk.index)

    @property
    def quick(self) -> bool:
        """Whether a small chunk can be put without waiting."""
        return all(file.quick for file in self.files)

    @property
    def files(self) -> tuple[CacheFile, ...]:
        """The files that may hold this image's chunks."""
        return tuple(file for file in (self._shared, self._apart) if file is not None)

    def close(self) -> None:
        """Give the files back; what is of no use any more goes."""
        self._stopped = True
        with self._settling:
            self._close()

    def _close(self) -> None:
        gone = list(self._old)
        if self._apart is not None:
            if (self.is_checked and not self._held()) or self._attempt > 1:
                gone.append(self._apart)
            else:
                self._cache.close_file(self._apart)
        for file in gone:
            self._cache.close_file(file)
            with suppress(OSError):  # somebody else was quicker, or reads it
                remove(self._cache, file.place)
        if self._shared is not None:
            self._cache.close_file(self._shared)

    def _digests_of(self, apart: CacheFile) -> Sequence[bytes] | None:
        """Return the digests of all chunks if the file is right, none if it is wrong.

        None where it cannot be told: an evictor came between. What is missing then is fetched when
        it is read.
        """
        hasher, digests = self.whole.checksum.hasher(self.whole.size), []
        for index in range(self.whole.count):
            data = _content(apart, index)
            if data is None or self._stopped:
                return None
            hasher.update(data)
            digests.append(Digest.of(data).raw)
        return digests if hasher.digest() == self.whole.checksum.raw else ()

    def _learn(self) -> None:
        """See whether another process has checked the file meanwhile."""
        digests = self._vouched.load(self.whole)
        if digests is not None:
            self._believe(digests)

    def _believe(self, digests: Sequence[bytes]) -> CacheFile:
        """Take *digests* for the chunks', and return the shared file."""
        with self._changing:
            if self._shared is None:
                self._shared = self._cache.open(self.blob)
            self._digests, self._known = digests, {}
            return self._shared

    def _drop(self) -> None:
        """Leave what is here to nobody."""
        name = f"{self.blob.id}.{self._attempt}"
        self._attempt += 1
        fresh = self._cache.open(replace(self.blob, id=name), self._owner)
        with self._changing:
            if self._apart is not None:
                self._old.append(self._apart)
            self._apart, self._known = fresh, {}
            if self._attempt > ATTEMPTS:
                self.failure = f"{self.whole.name}: the hub sends what does not match its checksum"

    def _move(self, apart: CacheFile, shared: CacheFile) -> None:
        """Bring the chunks to the shared file, a few at a time."""
        for start in range(0, self.whole.count, _MOVED):
            moved = []
            if self._stopped:
                return  # the next one finds these apart, or fetches them
            for index in range(start, min(start + _MOVED, self.whole.count)):
                data, chunk = _content(apart, index), self.chunk(index)
                if data is None or chunk is None or not chunk.digest.matches(data):
                    continue
                if shared.put(chunk, data):
                    moved.append(index)
            apart.evict(moved, 0.0)

    def _own(self) -> CacheFile:
        """Return the file apart, opening it where there was none."""
        with self._changing:
            if self._apart is None:
                self._apart = self._cache.open(self.blob, self._owner)
            return self._apart

    def _real(self, chunk: Chunk) -> Chunk | None:
        """Return *chunk* with its digest, which only a checked file has."""
        digests = self._digests
        if digests is None:
            return None
        return replace(chunk, digest=Digest(Algorithm.BLAKE3, digests[chunk.index]))

    def _held(self) -> int:
        """Return how many chunks lie apart."""
        if self._apart is None:
            return 0
        states = self._apart.map.states[: self.whole.count].tobytes()
        return states.count(READY) + states.count(UNVERIFIED)


def _recorded(file: CacheFile, chunk: Chunk) -> Chunk | None:
    """Return *chunk* with the digest that it had when it came; None where it never did."""
    record = file.map.record(chunk.index)
    if record is None or (record.offset, record.size) != (chunk.offset, chunk.size):
        return None
    return replace(chunk, digest=record.digest)


def _content(file: CacheFile, index: int) -> bytearray | None:
    """Return the bytes of a chunk; None where they are not there any more."""
    record = file.map.record(index)
    if record is None:
        return None
    data = bytearray(record.size)
    with file.lease.shared():
        if file.map.states[index] not in (READY, UNVERIFIED):
            return None
        return data if file.read(record.offset, memoryview(data)) else None
