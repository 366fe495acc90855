"""Keyring: what is sent as ``Authorization`` to one registry, per scope, and how it is renewed.

Tasks: one lock per scope is held while a token is fetched, so that many requests that are refused
at once fetch one; ``_kept`` and ``_challenges`` change between awaits only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import msgspec
import trio

from chunkstore.errors import Malformed, Refused, Unreachable
from chunkstore.http import Client, Request, Url
from chunkstore.http.client import basic, refused

from .challenge import Challenge
from .credentials import Credential, Credentials

_LIFE = 60.0
"""Seconds that a token lives when its maker does not say (the token specification's number)."""

_SAFE_PART = 0.9
"""Of a token's life, after which it is renewed before it is refused."""

_DOCUMENT = 1 << 20
_PRINTABLE = re.compile(r"[!-~]+")
_CLIENT_ID = "naiad"


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float | None = None


@dataclass(frozen=True, slots=True)
class _Key:
    text: str = field(repr=False)
    until: float
    """When it is better renewed; trio's clock."""


class Keyring:
    """The keys to one registry."""

    def __init__(self, client: Client, site: Url, host: str, credentials: Credentials) -> None:
        """Answer for the registry at *site*, whose credential is kept under *host*."""
        self._client = client
        self._site = site
        self._host = host
        self._credentials = credentials
        self._kept: dict[str, _Key] = {}
        self._challenges: dict[str, Challenge] = {}
        self._locks: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)

    async def key(self, scope: str) -> str | None:
        """Return what opens *scope* as far as is known, renewed when it is about to run out."""
        kept = self._kept.get(scope)
        if kept is None or trio.current_time() < kept.until:
            return kept.text if kept else None
        async with self._locks[scope]:
            if self._kept.get(scope) is kept:
                await self._fetch(scope, self._challenges[scope])
            now = self._kept.get(scope)
            return now.text if now else None

    async def renew(self, scope: str, used: str | None, offered: Sequence[Challenge]) -> str:
        """Return another key than *used*, which was refused with the challenges *offered*.

        Raises Refused when there is none, Unreachable when its maker does not answer.
        """
        async with self._locks[scope]:
            kept = self._kept.get(scope)
            if kept is not None and kept.text != used:
                return kept.text
            challenge = _understood(offered)
            if challenge is None:
                raise Refused(f"{self._site}: asks for a proof that naiad does not know")
            self._challenges[scope] = challenge
            await self._fetch(scope, challenge)
            return self._kept[scope].text

    async def _fetch(self, scope: str, challenge: Challenge) -> None:
        credential = await self._credentials.find(self._host)
        if challenge.scheme == "basic":
            self._kept[scope] = self._password(scope, credential)
            return
        self._kept[scope] = await self._token(scope, challenge, credential)

    def _password(self, scope: str, credential: Credential | None) -> _Key:
        if credential is None or credential.is_identity:
            raise Refused(f"{self._site}: asks for a password, and none is known for {self._host}")
        key = _Key(basic(credential.userinfo) or "", float("inf"))
        kept = self._kept.get(scope)
        if kept is not None and kept.text == key.text:
            raise Refused(f"{self._site}: does not accept the password for {self._host}")
        return key

    async def _token(self, scope: str, challenge: Challenge, credential: Credential | None) -> _Key:
        request = self._question(challenge, _scopes(scope, challenge), credential)
        async with self._client.request(request) as response:
            if response.status in (401, 403):
                await response.drain()
                raise Refused(f"{request.url}: no token for {self._host}, {_whose(credential)}")
            if response.status != 200:
                raise await refused(response)
            text = await response.read(_DOCUMENT)
        try:
            told = msgspec.json.decode(text, type=_Token)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise Unreachable(f"{request.url}: its answer is no token") from None
        token = told.token or told.access_token
        if not _PRINTABLE.fullmatch(token):
            raise Unreachable(f"{request.url}: its answer is no token")
        life = _LIFE if told.expires_in is None else max(0.0, told.expires_in)
        return _Key(f"Bearer {token}", trio.current_time() + life * _SAFE_PART)

    def _question(
        self, challenge: Challenge, scopes: Sequence[str], credential: Credential | None
    ) -> Request:
        realm = self._realm(challenge)
        service = [("service", name) for name in (challenge.get("service"),) if name]
        if credential is not None and credential.is_identity:
            grant = [("grant_type", "refresh_token"), ("client_id", _CLIENT_ID)]
            proof = [("scope", " ".join(scopes)), ("refresh_token", credential.secret)]
            kind = (("Content-Type", "application/x-www-form-urlencoded"),)
            return Request("POST", realm, kind, body=urlencode([*service, *grant, *proof]).encode())
        asked = [*service, *(("scope", scope) for scope in scopes)]
        if credential is not None:
            asked.append(("account", credential.user))
        authorization = basic(credential.userinfo) if credential else None
        return Request("GET", realm.with_query(asked), authorization=authorization)

    def _realm(self, challenge: Challenge) -> Url:
        try:
            realm = Url.parse(challenge.get("realm") or "")
        except Malformed as exc:
            raise Unreachable(f"{self._site}: its token server's address cannot be read") from exc
        if self._site.scheme == "https" and realm.scheme != "https":
            raise Refused(f"{self._site}: wants its password sent unencrypted, to {realm}")
        return realm


def _whose(credential: Credential | None) -> str:
    return "the credential is not accepted" if credential else "and no credential is known"


def _scopes(ours: str, challenge: Challenge) -> list[str]:
    # A registry names the scope of the one request that it refused, which is less than what the
    # key is kept for; where it calls the repository something else, its name is asked for as well.
    named = challenge.get("scope") or ours
    same = named.rpartition(":")[0] == ours.rpartition(":")[0]
    return [ours] if same else [ours, named]


def _understood(offered: Sequence[Challenge]) -> Challenge | None:
    by_scheme = {challenge.scheme: challenge for challenge in offered}
    return by_scheme.get("bearer") or by_scheme.get("basic")
