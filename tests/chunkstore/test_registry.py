"""Registries that ask who one is, and that redirect, in virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

from chunkstore import Missing, Refused, Unreachable
from chunkstore.http import Client, Url
from chunkstore.origins.challenge import Challenge
from chunkstore.origins.credentials import Credentials
from chunkstore.origins.keyring import Keyring
from fixtures.faulty import Cut, FaultyServer, Proper, Status, redirect
from fixtures.guarded import Guard, Tokens, query
from fixtures.registrynet import BLOB, DIGEST, KNOWN, PASSWORD, TARGET, Net, proofs


async def test_a_token_that_is_refused_in_the_middle_is_renewed_once_for_all(net: Net) -> None:
    net.registry.after = Guard(tokens=net.tokens)
    await net.read()
    net.tokens.expire()
    async with trio.open_nursery() as nursery:
        for start in range(8):
            nursery.start_soon(net.read, start)
    assert net.tokens.made == 2
    assert proofs(net.realm) == [PASSWORD] * 2
    assert set(proofs(net.registry)) == {None, "Bearer token-1", "Bearer token-2"}


async def test_a_token_is_renewed_before_it_runs_out(
    net: Net, autojump_clock: trio.testing.MockClock
) -> None:
    net.tokens.told = 100
    net.registry.after = Guard(tokens=net.tokens)
    for pause in (0, 89, 2, 10):
        await trio.sleep(pause)
        await net.read()
    assert net.tokens.made == 2
    assert proofs(net.registry) == [None, *["Bearer token-1"] * 2, *["Bearer token-2"] * 2]


async def test_a_token_that_is_never_good_is_refused_after_few_tries(net: Net) -> None:
    net.registry.after = Guard(tokens=Tokens())
    with pytest.raises(Refused, match="401"):
        await net.read()
    assert len(net.registry.asked) == 3


async def test_what_is_asked_of_the_token_server(net: Net) -> None:
    net.registry.after = Guard(tokens=net.tokens)
    await net.read()
    assert query(net.realm.asked[0]) == [
        ("service", "here"),
        ("scope", "repository:a/b:pull"),
        ("account", "u"),
    ]


async def test_an_identity_token_is_exchanged_and_never_sent_as_a_password(
    net: Net, tmp_path: Path
) -> None:
    config = {"auths": {"registry.example": {"auth": "PHRva2VuPjo=", "identitytoken": "refresh"}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    net.known_by(Credentials([tmp_path / "config.json"]))
    net.registry.after = Guard(tokens=net.tokens)
    await net.read()
    asked = net.realm.asked[0]
    assert asked.method == "POST"
    assert ("refresh_token", "refresh") in query(asked)
    assert "authorization" not in asked.headers


async def test_a_token_server_that_fails_is_told_apart(net: Net) -> None:
    net.registry.after = Guard(tokens=net.tokens)
    net.realm.plan[:] = [Status(code=401)]
    with pytest.raises(Refused, match="the credential is not accepted"):
        await net.read()
    net.realm.plan[:] = [Status(code=503, headers=(("Retry-After", "9"),))]
    with pytest.raises(Unreachable, match="503") as caught:
        await net.read()
    assert caught.value.retry_after == 9
    for body in (b"", b"{}", b'{"token":"a b\\r\\n"}', b"[" * 100_000):
        net.realm.plan[:] = [Status(code=200, body=body)]
        with pytest.raises(Unreachable, match="no token"):
            await net.read()
    await net.read()


async def test_a_password_is_never_sent_unencrypted_for_a_registry_that_is() -> None:
    with Client() as client:
        keys = Keyring(client, Url.parse("https://registry.example"), "registry.example", KNOWN)
        offered = [Challenge("bearer", (("realm", "http://tokens/"),))]
        with pytest.raises(Refused, match="unencrypted"):
            await keys.renew("repository:a/b:pull", None, offered)
        for realm in ("", "nowhere", "ftp://tokens/"):
            with pytest.raises(Unreachable, match="address cannot be read"):
                await keys.renew("x", None, [Challenge("bearer", (("realm", realm),))])
        with pytest.raises(Refused, match="naiad does not know"):
            await keys.renew("x", None, [Challenge("negotiate")])


async def test_a_password_is_sent_to_its_own_host_only(net: Net) -> None:
    only = {**KNOWN._environment, "NAIAD_REGISTRY_HOST": "other.example"}
    net.known_by(Credentials(environment=only))
    net.registry.after = Guard(tokens=net.tokens)
    await net.read()
    assert proofs(net.realm) == [None]


async def test_a_store_that_asks_for_a_password_gets_none_and_names_no_realm(net: Net) -> None:
    net.registry.after = redirect(TARGET)
    net.store.after = Guard(tokens=Tokens(realm="http://evil/token"))
    for _again in range(2):
        with pytest.raises(Refused, match="http://store/signed: answered 401"):
            await net.read()
    assert proofs(net.store) == [None, None]
    assert net.evil.asked == []
    assert net.realm.asked == []


async def test_a_redirect_is_remembered(net: Net) -> None:
    net.registry.after = Guard(tokens=net.tokens, inner=redirect(TARGET))
    for start in range(5):
        await net.read(start)
    assert await net.origin.size(DIGEST.hex) == len(BLOB)
    assert len(net.registry.asked) == 2
    assert len(net.store.asked) == 6
    assert set(proofs(net.store)) == {None}


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410])
async def test_a_redirect_that_ran_out_is_asked_for_again(net: Net, code: int) -> None:
    net.registry.after = redirect(TARGET)
    await net.read()
    net.store.plan[:] = [Status(code=code)]
    await net.read()
    assert len(net.registry.asked) == 2


async def test_a_redirect_to_a_store_that_died_is_asked_for_again_next_time(net: Net) -> None:
    net.registry.after = redirect(TARGET)
    await net.read()
    net.store.plan[:] = [Cut(after=10)]
    with pytest.raises(Unreachable, match="cut off"):
        await net.read()
    net.registry.after = Proper()
    await net.read()
    assert len(net.store.asked) == 2


async def test_a_redirect_that_never_works_names_the_store(net: Net) -> None:
    net.registry.after = redirect(TARGET)
    net.store.after = Status(code=403)
    with pytest.raises(Refused, match="http://store/signed: answered 403"):
        await net.read()
    net.registry.after = redirect("http://dead/x")
    with pytest.raises(Unreachable, match="http://dead/x"):
        await net.read()


async def test_a_redirect_within_the_registry_is_followed_with_its_token(net: Net) -> None:
    net.registry = FaultyServer({"/elsewhere": BLOB}, after=Guard(tokens=net.tokens))
    net.registry.plan[:] = [
        Guard(tokens=net.tokens),
        Guard(tokens=net.tokens, inner=redirect("/elsewhere")),
    ]
    net.memory.add("registry.example", net.registry.serve)
    await net.read()
    assert proofs(net.registry)[-1] == "Bearer token-1"


async def test_what_is_no_digest_is_not_asked_for(net: Net) -> None:
    with pytest.raises(Missing, match="holds no blob"):
        await net.origin.size("../../other/blobs/x")
    assert net.registry.asked == []
