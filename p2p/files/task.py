"""File tasks: a file at a url as something that a swarm shares. Pure.

A task is named by what makes two requests mean the same file: the url without the query's keys that
only sign it, a tag, and every header, because a header may be a credential or choose the content;
``--share`` says so instead of them. Each field goes into the name with its length, so that no two
requests can be taken for one another. A seed makes the name anew from what it is told to read, so
that nobody can have it publish one file's digests as another's.

What the origin says of the file (its state) makes a *version* of the task. Versions have caches of
their own, so that pieces of two of them never meet.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote_plus

from blake3 import blake3

from chunkstore import Algorithm, Blob, Chunk, Codec, Digest, Malformed
from chunkstore.http import Url
from chunkstore.http.client import basic
from chunkstore.origins.url import State

PIECE_SIZE = 256 << 10
"""Bytes of a piece. What is passed on is whole pieces, so small ones are at all hosts sooner: ten
hosts on links of 100 Mbit/s want 400 and more of a file."""

LARGE_PIECE_SIZE = 1 << 20
"""The same of a file that is larger than ``SMALL_FILE``, or whose length nobody knows: a piece is
a request, an announcement and a digest."""

SMALL_FILE = 1 << 30
"""Bytes."""

MOST_PIECES = 1 << 24
"""What piece numbers allow: files of 16 TiB."""

MOST_SIZE = MOST_PIECES * LARGE_PIECE_SIZE

_DIGEST_SIZE = 32
_NONE = bytes(_DIGEST_SIZE)
_PAGE = 1024
"""Pieces of a page of digests: 32 KiB."""

_IN_ORDER = "once:"
"""How a validator begins that stands for a single reading of an origin that gives none."""


class Sharing(enum.Enum):
    """Who else gets what a request's headers open."""

    PLAIN = "plain"
    """There are no headers."""
    PRIVATE = "private"
    """Who sends the same ones."""
    SHARED = "shared"
    """Who says so of the same url."""


@dataclass(frozen=True, slots=True)
class FileTask:
    """What is asked for."""

    url: Url
    """Without a password: that is a header."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    tag: str = ""
    ignored: frozenset[str] = frozenset()
    """Keys of the query that make no difference."""
    shared: bool = False
    """What headers open is for everybody who says so."""

    @classmethod
    def of(
        cls,
        url: Url,
        headers: tuple[tuple[str, str], ...] = (),
        tag: str = "",
        ignored: frozenset[str] = frozenset(),
        shared: bool = False,
    ) -> FileTask:
        """Return the task, with a password in *url* as the header that it is sent as."""
        if url.userinfo and not any(name.lower() == "authorization" for name, _ in headers):
            headers = (*headers, ("Authorization", basic(url.userinfo) or ""))
        return cls(replace(url, userinfo=None), headers, tag, ignored, shared)

    @property
    def id(self) -> bytes:
        """The task's name, 32 bytes."""
        hasher = blake3(derive_key_context="naiad file task, version 1")
        for text in self._fields():
            data = text.encode("utf-8", "surrogateescape")
            hasher.update(len(data).to_bytes(8, "little") + data)
        return hasher.digest()

    @property
    def sharing(self) -> Sharing:
        """Who else may have it."""
        if not self.headers:
            return Sharing.PLAIN
        return Sharing.SHARED if self.shared else Sharing.PRIVATE

    def _fields(self) -> Iterator[str]:
        # The ignored keys are part of it: whoever says so himself must be content with what
        # others made of them, and nobody else.
        yield without_keys(self.url, self.ignored).absolute
        yield self.tag
        yield "&".join(sorted(self.ignored))
        yield self.sharing.value
        if self.sharing is Sharing.PRIVATE:
            for name, value in sorted((name.lower(), value) for name, value in self.headers):
                yield name
                yield value


def without_keys(url: Url, keys: Collection[str]) -> Url:
    """Return *url* without the parts of its query that *keys* name."""
    path, mark, query = url.target.partition("?")
    if not keys or not mark:
        return url
    kept = [part for part in query.split("&") if unquote_plus(part.partition("=")[0]) not in keys]
    return replace(url, target=path + ("?" + "&".join(kept) if kept else ""))


@dataclass(frozen=True, slots=True)
class Version:
    """One state of a task's file."""

    task: bytes
    length: int | None
    """None while only its end will tell."""
    validator: str

    def __post_init__(self) -> None:
        if self.length is not None and not 0 <= self.length <= MOST_SIZE:
            raise Malformed(f"a file of {self.length} bytes: 16 TiB are the most")

    @property
    def id(self) -> bytes:
        """Its name among hosts that exchange its pieces, 32 bytes."""
        hasher = blake3(derive_key_context="naiad file version, version 2")
        hasher.update(self.task)
        length = "" if self.in_order else str(self.length)  # which is learned at the end only
        hasher.update(length.encode() + b"\0")
        hasher.update(self.validator.encode("utf-8", "surrogateescape"))
        return hasher.digest()

    @property
    def blob_id(self) -> str:
        """The name of its blob in the cache."""
        return "file-" + self.id.hex()[:40]

    @property
    def owner(self) -> Digest:
        """Under whom the cache keeps it: nobody can make an image whose digest this is."""
        return Digest(Algorithm.BLAKE3, self.task)

    @property
    def in_order(self) -> bool:
        """Whether it exists only as one reading of its origin, from the first byte to the last."""
        return self.validator.startswith(_IN_ORDER)

    @property
    def state(self) -> State:
        """Return what its origin must say."""
        told = self.validator.removeprefix(_IN_ORDER) if self.in_order else self.validator
        if self.in_order and not told.startswith(('"', "W/")) and " " not in told:
            told = ""  # a nonce
        return State(self.length, told, ranged=not self.in_order)

    @property
    def shareable(self) -> bool:
        """Whether other hosts can come to the same version: it has a length and a validator."""
        return bool(self.length and self.state.validator)

    @property
    def piece_size(self) -> int:
        """Bytes of every piece but the last."""
        # the length of one that is read in order may be learnt when pieces of it are here already
        small = not self.in_order and self.length is not None and self.length <= SMALL_FILE
        return PIECE_SIZE if small else LARGE_PIECE_SIZE

    @property
    def count(self) -> int:
        """How many pieces it has; as many as there can be while nobody knows."""
        return MOST_PIECES if self.length is None else -(-self.length // self.piece_size)

    def blob(self) -> Blob:
        """Return what the cache keeps it as, which has a place for a piece at least."""
        length = self.length or 0
        return Blob(self.blob_id, length, length, max(1, -(-length // self.piece_size)))

    def size(self, piece: int) -> int:
        """Return the bytes of *piece*."""
        if not 0 <= piece < self.count:
            raise Malformed(f"piece {piece} of {self.count}")
        if self.length is None:
            return self.piece_size
        return min(self.piece_size, self.length - piece * self.piece_size)

    def chunk(self, piece: int, digest: Digest) -> Chunk:
        """Return *piece* as the chunk it is once its digest is known."""
        start, size = piece * self.piece_size, self.size(piece)
        return Chunk(piece, digest, start, size, start, size, Codec.NONE)


def version(task: bytes, state: State, nonce: str) -> Version:
    """Return the version that an origin in *state* has.

    One that cannot be asked for parts, or does not say which file a part is of, can only be read
    from its beginning to its end. *nonce* then tells that reading from all others, unless the
    origin's own validator does.
    """
    if state.length is not None and state.ranged and state.validator:
        return Version(task, state.length, state.validator)
    return Version(task, state.length, _IN_ORDER + (state.validator or nonce))


class Digests:
    """What is known of the digests of a file's pieces; the first that was told stays.

    Kept in pages, so that one telling of a piece far away costs a page and not a terabyte's table.
    """

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self.known = 0
        """How many."""

    def get(self, piece: int) -> Digest | None:
        """Return the digest of *piece*, if it is known."""
        raw = self.raw(piece)
        return None if raw is None else Digest(Algorithm.BLAKE3, raw)

    def raw(self, piece: int) -> bytes | None:
        """Return the 32 bytes of it."""
        number, at = divmod(piece, _PAGE)
        page = self._pages.get(number)
        if page is None:
            return None
        raw = bytes(page[at * _DIGEST_SIZE : (at + 1) * _DIGEST_SIZE])
        return raw if raw != _NONE else None

    def add(self, first: int, digests: Sequence[bytes]) -> list[int]:
        """Take digests of the pieces from *first* on; return which were not known before."""
        return [piece for piece, raw in enumerate(digests, first) if self._put(piece, raw)]

    def forget(self, pieces: Iterable[int]) -> None:
        """Let go of what is told of *pieces*: whoever told it is not believed any more."""
        for piece in pieces:
            if self.raw(piece) is not None:
                number, at = divmod(piece, _PAGE)
                self._pages[number][at * _DIGEST_SIZE : (at + 1) * _DIGEST_SIZE] = _NONE
                self.known -= 1

    def runs(self, most: int) -> Iterator[tuple[int, list[bytes]]]:
        """Yield what is known as messages carry it: first piece, and at most *most* digests."""
        first, run = 0, list[bytes]()
        for piece, raw in self:
            if run and (piece != first + len(run) or len(run) == most):
                yield first, run
                run = []
            if not run:
                first = piece
            run.append(raw)
        if run:
            yield first, run

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for number in sorted(self._pages):
            for piece in range(number * _PAGE, (number + 1) * _PAGE):
                raw = self.raw(piece)
                if raw is not None:
                    yield piece, raw

    def _put(self, piece: int, raw: bytes) -> bool:
        if raw == _NONE or self.raw(piece) is not None:
            return False
        number, at = divmod(piece, _PAGE)
        page = self._pages.setdefault(number, bytearray(_PAGE * _DIGEST_SIZE))
        page[at * _DIGEST_SIZE : (at + 1) * _DIGEST_SIZE] = raw
        self.known += 1
        return True
