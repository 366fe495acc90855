"""Hub: a repository of the Hugging Face Hub, or of a server that speaks as it does.

A revision is resolved to a commit once; all that is asked afterwards names the commit, so what
moves meanwhile changes nothing. Every file has a checksum in the listing: large ones, which lie in
Git LFS, their SHA-256, small ones that of their Git blob.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeVar

import msgspec

from chunkstore.checksum import Checksum, Kind
from chunkstore.errors import ChunkstoreError, Corrupt, Malformed, Missing, Refused
from chunkstore.http import Client, Request, Response, Url
from chunkstore.http.client import REDIRECTS, refused

from .hubname import HubAccess, HubName, is_commit, quoted

T = TypeVar("T")

_DOCUMENT = 16 << 20
"""Bytes of an answer; a page of a listing has at most 1,000 files."""

_FILES = 100_000
"""Files of a repository; the hub itself advises to stay below that."""

_LARGEST = 1 << 43
"""Bytes of a file."""

_TOKEN = "HF_TOKEN, or the file that `hf auth login` writes"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository."""

    path: str
    size: int
    checksum: Checksum


class _Revision(msgspec.Struct):
    sha: str


class _Lfs(msgspec.Struct):
    oid: str
    size: int


class _Entry(msgspec.Struct):
    type: str
    path: str
    size: int = 0
    oid: str = ""
    lfs: _Lfs | None = None


class Hub:
    """The repository that *name* names."""

    def __init__(
        self, name: HubName, access: HubAccess, client: Client, *, patience: float | None = None
    ) -> None:
        """Allow *patience* seconds without progress, or as many as the client does."""
        self.name = name
        self.client = client
        self._access = access
        self._patience = patience

    @property
    def endpoint(self) -> Url:
        """Where the hub is."""
        return self._access.endpoint

    async def commit(self) -> str:
        """Return the commit that the revision means now; raises ChunkstoreError."""
        path = f"{self.name.api}/revision/{quoted(self.name.revision)}"
        async with self.ask(self._request(path)) as response:
            found = await self._document(response, _Revision)
        if not is_commit(found.sha):
            raise Corrupt(f"{self.name}: the hub names no commit: {found.sha[:100]!r}")
        return found.sha

    async def listing(self, commit: str) -> Sequence[HubFile]:
        """Return the files of *commit*, sorted by path; raises ChunkstoreError."""
        path = f"{self.name.api}/tree/{commit}?recursive=true&expand=false"
        request: Request | None = self._request(path)
        found: dict[str, HubFile] = {}
        while request is not None:
            async with self.ask(request) as response:
                entries = await self._document(response, list[_Entry])
                request = self._next(request, response)
            for entry in entries:
                if entry.type == "file":
                    found[entry.path] = self._file(entry)
            if len(found) > _FILES:
                raise Corrupt(f"{self.name}: more than {_FILES} files")
        self._check_folders(found)
        return [found[path] for path in sorted(found)]

    def file(self, commit: str, path: str) -> Request:
        """Return the question for a file."""
        return self._request(f"{self.name.files}/resolve/{commit}/{quoted_path(path)}")

    @asynccontextmanager
    async def ask(self, request: Request, *, redirects: int = REDIRECTS) -> AsyncIterator[Response]:
        """Ask; the token goes to the hub itself only, wherever it redirects to."""
        token = self._access.token
        if token is not None and request.url.site == self.endpoint.site:
            request = replace(request, authorization=f"Bearer {token}")
        async with self.client.request(request, redirects=redirects) as response:
            yield response

    async def refusal(self, response: Response) -> ChunkstoreError:
        """Return the error that an unwanted answer is, in words that help."""
        code = response.headers.get("x-error-code", "")
        repository = str(self.name).partition("@")[0]
        token = self._access.token
        if code == "GatedRepo":
            page = f"{self.endpoint.scheme}://{self.endpoint.authority}{self.name.files}"
            said = "its token has no access" if token else f"needs a token ({_TOKEN})"
            return Refused(f"{repository} is gated: {said}; access is asked for at {page}")
        if code == "RevisionNotFound":
            return Missing(f"{repository}: no revision {self.name.revision}")
        if code == "EntryNotFound":
            return Missing(f"{response.url}: no such file")
        if code == "RepoNotFound" or response.status == 404:
            whom = "not for this token" if token else f"one that needs a token ({_TOKEN})"
            return Missing(f"{repository}: no such repository, or {whom}")
        if response.status in (401, 403):
            said = "the token is refused" if token else f"needs a token ({_TOKEN})"
            return Refused(f"{repository}: {said}, or there is no such repository")
        return await refused(response)

    def _request(self, path: str) -> Request:
        target = self.endpoint.target.rstrip("/") + path
        return Request("GET", replace(self.endpoint, target=target), patience=self._patience)

    async def _document(self, response: Response, kind: type[T]) -> T:
        if response.status != 200:
            raise await self.refusal(response)
        data = await response.read(_DOCUMENT)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise Corrupt(f"{response.url}: not what a hub answers: {exc}") from exc

    def _next(self, request: Request, response: Response) -> Request | None:
        """Return the question for the listing's next page."""
        for link in response.headers.get("link", "").split(","):
            where, _, rest = link.partition(";")
            if 'rel="next"' in rest.replace(" ", ""):
                url = response.url.join(where.strip().strip("<>"))
                if url.site != self.endpoint.site or url == request.url:
                    raise Corrupt(f"{response.url}: its next page is {url}")
                return replace(request, url=url)
        return None

    def _file(self, entry: _Entry) -> HubFile:
        """Check what the hub says of a file."""
        kind, size, digits = Kind.GIT, entry.size, entry.oid
        if entry.lfs is not None:
            kind, size, digits = Kind.SHA256, entry.lfs.size, entry.lfs.oid
        if not is_path(entry.path.split("/")) or not 0 <= size <= _LARGEST:
            raise Corrupt(f"{self.name}: a file {entry.path[:200]!r} of {size} bytes")
        try:
            checksum = Checksum.parse(f"{kind.value}:{digits.removeprefix('sha256:')}")
        except Malformed as exc:
            raise Corrupt(f"{self.name}: {entry.path[:200]!r}: {exc}") from exc
        return HubFile(entry.path, size, checksum)

    def _check_folders(self, files: Iterable[str]) -> None:
        """See that no file is a folder, too."""
        known = set(files)
        for path in known:
            above = path
            while above := above.rpartition("/")[0]:
                if above in known:
                    raise Corrupt(f"{self.name}: {above[:200]!r} is a file and a folder")

    def __repr__(self) -> str:
        return f"Hub({self.name})"


def is_path(names: Sequence[str]) -> bool:
    """Say whether *names* lead to a file inside a repository."""
    return all(
        name not in ("", ".", "..")
        and "\0" not in name
        and len(name.encode(errors="replace")) < 256
        for name in names
    )


def quoted_path(path: str) -> str:
    """Return *path* as a url has it."""
    return "/".join(map(quoted, path.split("/")))


def chosen(
    files: Sequence[HubFile], allow: Sequence[str], ignore: Sequence[str]
) -> Sequence[HubFile]:
    """Return the files that a pattern of *allow* fits, if there are any, and none of *ignore*.

    Patterns are the shell's, and ``*`` goes over slashes; one that ends with a slash means all that
    is in the folder. So the hub's own tools read them.
    """
    allowed, ignored = _patterns(allow), _patterns(ignore)
    return [
        file
        for file in files
        if (not allowed or _fits(file.path, allowed)) and not _fits(file.path, ignored)
    ]


def _patterns(patterns: Sequence[str]) -> list[str]:
    return [pattern + "*" if pattern.endswith("/") else pattern for pattern in patterns]


def _fits(path: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)
