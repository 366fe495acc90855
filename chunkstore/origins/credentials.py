"""Credentials: who we are to a registry, as Docker and Podman keep it, or as the environment says.

Looked up only when a registry asks, per host, and never shown: no value here has a telling repr.
"""

from __future__ import annotations

import logging
import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

import msgspec
import trio

from chunkstore.errors import Malformed, Refused

logger = logging.getLogger(__name__)

_HELPER_DEADLINE = 20.0
"""Seconds for a credential helper; one that asks a person for a touch takes several."""

_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TOKEN_USER = "<token>"
"""What helpers call the user whose secret is an identity token."""

_HUB_KEY = "https://index.docker.io/v1/"
_LARGEST = 4 << 20

_SECRET_KEYS = (".dockerconfigjson", ".dockercfg")
"""What a Kubernetes secret of a registry keeps its Docker config under, new and old."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A user and what proves it."""

    user: str = field(repr=False)
    secret: str = field(repr=False)
    is_identity: bool = False
    """The secret is an identity token, to be exchanged and never sent as a password."""

    @property
    def userinfo(self) -> str:
        """``USER:PASSWORD``."""
        return f"{self.user}:{self.secret}"


class _Entry(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class _Config(msgspec.Struct):
    auths: dict[str, _Entry] = msgspec.field(default_factory=dict)
    creds_store: str = msgspec.field(name="credsStore", default="")
    cred_helpers: dict[str, str] = msgspec.field(name="credHelpers", default_factory=dict)


class _Secret(msgspec.Struct):
    """A Kubernetes secret, as ``kubectl get secret -o json`` prints it."""

    kind: str = ""
    data: dict[str, str] = msgspec.field(default_factory=dict)


class _Answer(msgspec.Struct):
    user: str = msgspec.field(name="Username")
    secret: str = msgspec.field(name="Secret")


class Credentials:
    """Finds a host's credential in the environment, in files, or with a helper program."""

    def __init__(self, files: Sequence[Path] = (), environment: Mapping[str, str] | None = None):
        """Read *files* in this order; *environment* goes before all of them."""
        self._files = tuple(files)
        self._environment = environment or {}

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Credentials:
        """Look where Docker and Podman do, for somebody with this environment."""
        home = Path(environment.get("HOME") or "/root")
        docker = Path(environment.get("DOCKER_CONFIG") or home / ".docker")
        files = [docker / "config.json"]
        if environment.get("REGISTRY_AUTH_FILE"):
            files.insert(0, Path(environment["REGISTRY_AUTH_FILE"]))
        if environment.get("XDG_RUNTIME_DIR"):
            files.append(Path(environment["XDG_RUNTIME_DIR"]) / "containers" / "auth.json")
        return cls(files, environment)

    async def find(self, host: str) -> Credential | None:
        """Return the credential for *host*, a registry as references write it, if there is one.

        Raises Malformed for a file that cannot be read, Refused for a helper that hangs.
        """
        told = self._told(host)
        if told is not None:
            return told
        for path in self._files:
            config = await trio.to_thread.run_sync(_read, path)
            found = await self._in_config(config, host) if config else None
            if found is not None:
                return found
        return None

    def _told(self, host: str) -> Credential | None:
        user = self._environment.get("NAIAD_REGISTRY_USER")
        secret = self._environment.get("NAIAD_REGISTRY_PASSWORD")
        meant = self._environment.get("NAIAD_REGISTRY_HOST") or host
        return Credential(user, secret) if user and secret and meant == host else None

    async def _in_config(self, config: _Config, host: str) -> Credential | None:
        key = _HUB_KEY if host == "docker.io" else host
        helper = config.cred_helpers.get(host) or config.creds_store
        if helper:
            found = await _ask(helper, key, self._environment.get("PATH"))
            if found is not None:
                return found
        for name, entry in config.auths.items():
            if name == key or _host(name) == host:
                return _decoded(entry)
        return None


def _host(key: str) -> str:
    return key.rpartition("://")[2].partition("/")[0]


def _decoded(entry: _Entry) -> Credential | None:
    user, secret = entry.username, entry.password
    if entry.auth:
        try:
            text = b64decode(entry.auth, validate=True).decode()
        except ValueError:
            raise Malformed("a credential in the Docker config is not base64 text") from None
        user, _, secret = text.partition(":")
    if entry.identitytoken:
        return Credential(user, entry.identitytoken, is_identity=True)
    return Credential(user, secret.rstrip("\0")) if user and secret else None


def _read(path: Path) -> _Config | None:
    """Read a Docker config, new or old, or the Kubernetes secret of one, a file or as mounted."""
    try:
        if path.is_dir():
            found = (_read(path / name) for name in _SECRET_KEYS)
            return next((one for one in found if one is not None), None)
        with path.open("rb") as file:
            return _config(file.read(_LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise Malformed(f"{path}: {exc.strerror}") from exc
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # The decoder's words could quote what they stumbled over, which may be the secret.
        raise Malformed(f"{path}: not a Docker config") from None


def _config(text: bytes) -> _Config:
    """Read what a file holds; raises MsgspecError."""
    secret = msgspec.json.decode(text, type=_Secret)
    if secret.kind == "Secret":
        kept = next((secret.data[key] for key in _SECRET_KEYS if key in secret.data), "e30=")
        try:
            text = b64decode(kept, validate=True)
        except ValueError:
            raise msgspec.DecodeError("not base64") from None
    config = msgspec.json.decode(text, type=_Config)
    if config.auths or config.creds_store or config.cred_helpers:
        return config
    try:
        return _Config(auths=msgspec.json.decode(text, type=dict[str, _Entry]))
    except msgspec.ValidationError:
        return config


async def _ask(helper: str, key: str, path: str | None) -> Credential | None:
    if not _HELPER.fullmatch(helper):
        raise Malformed(f"not a credential helper's name: {helper[:100]!r}")
    name = f"docker-credential-{helper}"
    program = which(name, path=path)
    if program is None:
        logger.warning("credential helper is not installed program=%s", name)
        return None
    try:
        with trio.fail_after(_HELPER_DEADLINE):
            done = await trio.run_process(
                [program, "get"],
                stdin=key.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    except trio.TooSlowError as exc:
        raise Refused(f"{name}: no answer in {_HELPER_DEADLINE:g} s") from exc
    except OSError as exc:
        logger.warning("credential helper does not run program=%s reason=%s", name, exc)
        return None
    if done.returncode:
        logger.debug("credential helper knows nothing program=%s key=%s", name, key)
        return None
    try:
        answer = msgspec.json.decode(done.stdout, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Malformed(f"{name}: its answer cannot be read") from None
    return Credential(answer.user, answer.secret, is_identity=answer.user == _TOKEN_USER)
