"""HubName and HubAccess: which model is meant, and who asks for it. Pure but for the token file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from chunkstore.errors import Malformed
from chunkstore.http import Url

PREFIX = "hf:"

ENDPOINT = "https://huggingface.co"

_MAIN = "main"

_KINDS = {"datasets/": "datasets", "spaces/": "spaces", "": "models"}
"""What stands in front of a name that is no model's, and what the API calls it."""

_NAME = re.compile(r"(?:[0-9A-Za-z][0-9A-Za-z._-]{0,95}/)?[0-9A-Za-z_][0-9A-Za-z._-]{0,95}")
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._/-]{0,254}")
_COMMIT = re.compile(r"[0-9a-f]{40}")

_LONGEST_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository of a hub, and the revision that is meant."""

    kind: str
    """``models``, ``datasets`` or ``spaces``."""
    name: str
    """``ORG/NAME``; a few old models have no organisation."""
    revision: str
    """A branch, a tag or a commit."""

    @classmethod
    def parse(cls, text: str) -> HubName:
        """Read ``hf:ORG/NAME[@REVISION]``; raises Malformed."""
        name, mark, revision = text.removeprefix(PREFIX).partition("@")
        prefix = next(prefix for prefix in _KINDS if name.startswith(prefix))
        name = name.removeprefix(prefix)
        if not _NAME.fullmatch(name) or ".." in name or (mark and not is_revision(revision)):
            raise Malformed(f"not a model of a hub: {text[:200]!r}; one is hf:ORG/NAME[@REVISION]")
        return cls(_KINDS[prefix], name, revision or _MAIN)

    @property
    def is_pinned(self) -> bool:
        """Say whether it means the same for ever."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def api(self) -> str:
        """The path of the API that tells of the repository."""
        return f"/api/{self.kind}/{self.name}"

    @property
    def files(self) -> str:
        """The path below which its files are."""
        return f"/{self.name}" if self.kind == "models" else f"/{self.kind}/{self.name}"

    @property
    def folder(self) -> str:
        """What its folder in the hub's own cache is called."""
        return "--".join([self.kind, *self.name.split("/")])

    def __str__(self) -> str:
        kind = "" if self.kind == "models" else f"{self.kind}/"
        return f"{PREFIX}{kind}{self.name}@{self.revision}"


def is_revision(text: str) -> bool:
    """Say whether *text* may name a revision."""
    return _REVISION.fullmatch(text) is not None and ".." not in text


def is_commit(text: str) -> bool:
    """Say whether *text* is a commit's full name."""
    return _COMMIT.fullmatch(text) is not None


def quoted(text: str) -> str:
    """Return *text* as one part of a path."""
    return quote(text, safe="")


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Which hub, and the token that says who asks; without one only what is public can be had."""

    endpoint: Url
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> HubAccess:
        """Read what Hugging Face's own tools read; raises Malformed."""
        where = environment.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
        token = environment.get("HF_TOKEN") or environment.get("HUGGING_FACE_HUB_TOKEN")
        token = (token or _token_file(environment)).strip()
        if not token.isascii() or not token.isprintable() or len(token) > _LONGEST_TOKEN:
            raise Malformed("the hub's token: not printable ASCII")
        return cls(Url.parse(where), token or None)


def _token_file(environment: Mapping[str, str]) -> str:
    path = environment.get("HF_TOKEN_PATH")
    if not path:
        home = environment.get("HF_HOME") or str(_cache(environment) / "huggingface")
        path = str(Path(home) / "token")
    try:
        with Path(path).expanduser().open() as file:
            return file.read(_LONGEST_TOKEN + 1)
    except (OSError, UnicodeDecodeError, RuntimeError):
        return ""


def _cache(environment: Mapping[str, str]) -> Path:
    return Path(environment.get("XDG_CACHE_HOME") or "~/.cache")
