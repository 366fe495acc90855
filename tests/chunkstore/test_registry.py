"""Registries that redirect, forget, throttle and cut, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import trio.testing

from chunkstore import Algorithm, Corrupt, Digest, Missing, Refused, Unreachable
from chunkstore.http import Client, Url
from chunkstore.origins.challenge import Challenge
from chunkstore.origins.credentials import Credentials
from chunkstore.origins.download import Download
from chunkstore.origins.images import Images
from chunkstore.origins.keyring import Keyring
from chunkstore.origins.manifest import Document, Index, Platform
from chunkstore.origins.push import Push
from chunkstore.origins.reference import Reference
from chunkstore.origins.registry import Registry
from chunkstore.origins.registryorigin import RegistryOrigin
from fixtures.faulty import Cut, Fault, FaultyServer, Proper, Raw, Stall, Status, Whole, redirect
from fixtures.guarded import Guard, Realm, Tokens, query
from fixtures.memorynet import MemoryNet
from fixtures.uploads import Uploads

BLOB = bytes(i * 11 % 251 for i in range(100_000))
DIGEST = Digest.of(BLOB, Algorithm.SHA256)
PATH = f"/v2/a/b/blobs/{DIGEST}"
KNOWN = Credentials(environment={"NAIAD_REGISTRY_USER": "u", "NAIAD_REGISTRY_PASSWORD": "p"})
PASSWORD = "Basic dTpw"
TARGET = "http://store/signed?by=somebody"


class Net:
    """A registry, its token server, a blob store, and somebody else."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.memory = MemoryNet(nursery)
        self.tokens = Tokens()
        self.registry = FaultyServer({PATH: BLOB})
        self.realm = FaultyServer({}, after=Realm(tokens=self.tokens))
        self.store = FaultyServer({"/signed": BLOB})
        self.evil = FaultyServer({}, after=Realm(tokens=Tokens()))
        self.memory.add("registry.example", self.registry.serve)
        self.memory.add("tokens", self.realm.serve)
        self.memory.add("store", self.store.serve)
        self.memory.add("evil", self.evil.serve)
        self.client = Client(dial=self.memory.dial)
        self.session = self.known_by(KNOWN)

    def known_by(self, credentials: Credentials) -> Registry:
        self.session = Registry(
            Reference.parse("registry.example/a/b:v1"),
            self.client,
            credentials=credentials,
            plain_http=True,
        )
        self.origin = RegistryOrigin(self.session)
        return self.session

    async def read(self, start: int = 5, stop: int = 50_000) -> None:
        into = bytearray(stop - start)
        await self.origin.read(DIGEST.hex, start, memoryview(into), lambda _count: None)
        assert into == BLOB[start:stop]


@pytest.fixture
async def net(nursery: trio.Nursery) -> AsyncIterator[Net]:
    made = Net(nursery)
    with made.client:
        yield made


def proofs(server: FaultyServer) -> list[str | None]:
    return [asked.headers.get("authorization") for asked in server.asked]


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


async def downloaded(net: Net, size: int = len(BLOB), digest: Digest = DIGEST) -> bytes:
    data = bytearray(size)
    count = 0
    async with Download(net.session, digest, size) as download:
        with memoryview(data) as view:
            while more := await download.receive_into(view[count : count + 30_000]):
                count += more
    return bytes(data[:count])


PLANS: list[list[Fault]] = [
    [],
    [Cut(after=0)],
    [Cut(after=40_000), Cut(after=10), Cut(after=30_000)],
    [Cut(after=40_000), Whole()],
    [Status(code=503), Status(code=429)],
    [Stall(after=50_000)],
    [redirect(TARGET)],
    [Cut(after=99_999)],
]


@pytest.mark.parametrize("plan", PLANS)
async def test_a_download_goes_on_after_a_cut(
    net: Net, autojump_clock: trio.testing.MockClock, plan: list[Fault]
) -> None:
    net.registry.plan[:] = plan
    assert await downloaded(net) == BLOB


async def test_a_download_waits_as_long_as_it_is_asked_to(
    net: Net, autojump_clock: trio.testing.MockClock
) -> None:
    net.registry.plan[:] = [Status(code=429, headers=(("Retry-After", "77"),))]
    began = trio.current_time()
    await downloaded(net)
    assert trio.current_time() - began == 77


async def test_a_download_gives_up_in_the_end(
    net: Net, autojump_clock: trio.testing.MockClock
) -> None:
    net.registry.after = Status(code=503)
    with pytest.raises(Unreachable, match="503"):
        await downloaded(net)
    assert len(net.registry.asked) == 6
    net.registry.after = Status(code=403)
    with pytest.raises(Refused, match="403"):
        await downloaded(net)
    assert len(net.registry.asked) == 7


async def test_a_download_of_other_bytes_is_corrupt(net: Net) -> None:
    other = Digest.of(b"other", Algorithm.SHA256)
    net.registry = FaultyServer({f"/v2/a/b/blobs/{other}": BLOB})
    net.memory.add("registry.example", net.registry.serve)
    with pytest.raises(Corrupt, match="its bytes hash to"):
        await downloaded(net, len(BLOB), other)
    for size in (len(BLOB) - 1, len(BLOB) + 1):
        with pytest.raises(Corrupt, match="100000 bytes, not"):
            await downloaded(net, size, other)


HERE = Platform("amd64", "linux")
NOT_MANIFESTS = [
    b"",
    b"[]",
    b"{}",
    b'{"schemaVersion":2}',
    b'{"schemaVersion":2,"layers":[],"manifests":[]}',
    b'{"schemaVersion":2,"layers":[{"digest":"sha256:00"}]}',
    b'{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"md5:00","size":1}]}',
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","layers":[]}',
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("data", NOT_MANIFESTS)
async def test_what_is_no_manifest_is_corrupt_and_names_the_reference(
    net: Net, data: bytes
) -> None:
    net.registry.plan[:] = [Status(code=200, body=data)]
    with pytest.raises(Corrupt, match=r"registry\.example/a/b:v1"):
        await Images(net.session).find(HERE)


async def test_a_manifest_that_is_not_what_its_digest_says_is_corrupt(net: Net) -> None:
    images = Images(net.session)
    net.registry.after = Status(code=200, body=b"{}")
    with pytest.raises(Corrupt, match="hashes to"):
        await images.document(str(DIGEST))
    said = (("Docker-Content-Digest", str(DIGEST)),)
    net.registry.after = Status(code=200, headers=said, body=b"{}")
    with pytest.raises(Corrupt, match="hashes to"):
        await images.document("v1")


def entry(architecture: str, *features: str, variant: str = "") -> dict[str, object]:
    platform = {"os": "linux", "architecture": architecture, "os.features": list(features)}
    name = f"{architecture}{variant}{features}".encode()
    digest = str(Digest.of(name, Algorithm.SHA256))
    return {
        "mediaType": "m",
        "digest": digest,
        "size": 1,
        "platform": platform | ({"variant": variant} if variant else {}),
    }


LAZY = "nydus.remoteimage.v1"
ENTRIES = [
    entry("arm64", variant="v8"),
    entry("amd64", LAZY),
    entry("amd64"),
    entry("arm", variant="v6"),
    entry("arm", variant="v7"),
]
CHOICES = [
    (Platform("amd64", "linux"), None, 2),
    (Platform("amd64", "linux"), LAZY, 1),
    (Platform("amd64", "linux"), "unknown", 2),
    (Platform("arm64", "linux"), LAZY, 0),
    (Platform.of("aarch64"), None, 0),
    (Platform.of("armv7l"), None, 4),
    (Platform.parse("linux/arm/v6"), None, 3),
]


@pytest.mark.parametrize(("wanted", "feature", "number"), CHOICES)
def test_an_index_is_chosen_from(wanted: Platform, feature: str | None, number: int) -> None:
    data = json.dumps({"schemaVersion": 2, "manifests": ENTRIES}).encode()
    index = Document("", data).decode()
    assert isinstance(index, Index)
    assert index.choose(wanted, feature=feature).digest_text == ENTRIES[number]["digest"]


async def test_a_push_goes_on_where_a_cut_left_it(net: Net, tmp_path: Path) -> None:
    uploads = Uploads(cuts=[0, 10_000, 30_000])
    net.registry.after = uploads
    (tmp_path / "blob").write_bytes(BLOB)
    assert await Push(net.session, whole=30_000, pause=0).blob(DIGEST, tmp_path / "blob")
    assert uploads.blobs == {str(DIGEST): BLOB}


async def test_a_push_that_only_meets_cuts_gives_up(net: Net, tmp_path: Path) -> None:
    net.registry.after = Uploads(cuts=[0] * 100)
    (tmp_path / "blob").write_bytes(BLOB)
    with pytest.raises(Unreachable, match="hung up"):
        await Push(net.session, whole=30_000, pause=0).blob(DIGEST, tmp_path / "blob")


async def test_a_push_whose_token_runs_out_in_the_middle_sends_the_piece_again(
    net: Net, tmp_path: Path
) -> None:
    uploads = Uploads()
    guard = Guard(tokens=net.tokens, inner=uploads)

    class Forgetful(Guard):
        async def answer(self, asked: object, data: object, stream: object) -> None:
            if len(uploads.partial) == 60_000 and net.tokens.made == 1:
                net.tokens.expire()
            await guard.answer(asked, data, stream)  # type: ignore[arg-type]

    net.registry.after = Forgetful()
    (tmp_path / "blob").write_bytes(BLOB)
    assert await Push(net.session, whole=30_000).blob(DIGEST, tmp_path / "blob")
    assert uploads.blobs == {str(DIGEST): BLOB}
    assert net.tokens.made == 2


async def test_an_upload_that_leads_elsewhere_gets_no_token_there(net: Net, tmp_path: Path) -> None:
    net.registry.plan[:] = [
        Guard(tokens=net.tokens),
        Guard(tokens=net.tokens, inner=Status(code=404)),
        Status(code=202, headers=(("Location", "http://evil/upload"),)),
    ]
    net.evil.after = Status(code=201)
    assert await Push(net.session).content(DIGEST, BLOB)
    assert net.evil.asked[0].body == BLOB
    assert proofs(net.evil) == [None]


@pytest.mark.parametrize("size", [0, 1, 30_000, 30_001, 60_000, 100_000])
@pytest.mark.parametrize("fault", [Raw(), Status(code=503), Status(code=404)])
@pytest.mark.parametrize("at", [2, 3])
async def test_a_push_survives_a_fault_wherever_it_comes(
    net: Net, tmp_path: Path, size: int, fault: Fault, at: int
) -> None:
    uploads = Uploads()
    net.registry.after = uploads
    net.registry.plan[:] = [*[uploads] * at, fault]
    data = BLOB[:size]
    digest = Digest.of(data, Algorithm.SHA256)
    (tmp_path / "blob").write_bytes(data)
    await Push(net.session, whole=30_000, pause=0).blob(digest, tmp_path / "blob")
    assert uploads.blobs == {str(digest): data}


async def test_a_push_that_is_refused_is_not_tried_again(net: Net) -> None:
    uploads = Uploads()
    net.registry.plan[:] = [uploads, uploads, Status(code=413)]
    with pytest.raises(Refused, match="413"):
        await Push(net.session, pause=0).content(DIGEST, BLOB)
    assert len(net.registry.asked) == 3
