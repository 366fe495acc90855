"""Who vouches for servers and proxies, and who we are to them: by real TLS on loopback."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from chunkstore.errors import Malformed, Refused, Unreachable
from chunkstore.http import Client, Identity, Proxies, Trust, Url
from chunkstore.origins.http import HttpOrigin
from fixtures.certificates import Certificate, self_signed
from fixtures.choosy import choosy
from fixtures.faulty import FaultyServer, redirect
from fixtures.proxy import Proxy

BODY = bytes(i % 251 for i in range(1_000_000))
FAR = "203.0.113.7"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def near(folder: Path) -> Certificate:
    """Return the certificate of 127.0.0.1."""
    return self_signed(folder, "near")


@pytest.fixture(scope="module")
def far(folder: Path) -> Certificate:
    return self_signed(folder, "far", FAR)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Certificate:
    return self_signed(folder, "ours")


@pytest.fixture(scope="module")
def both(folder: Path, near: Certificate, far: Certificate) -> Path:
    """Return a file of both authorities."""
    path = folder / "both.pem"
    path.write_text(near.certificate.read_text() + far.certificate.read_text())
    return path


@asynccontextmanager
async def served(server: FaultyServer, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Serve by TLS; yields the port."""

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await server.serve(stream)
        except* trio.BrokenResourceError:
            pass

    plain = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listeners = [trio.SSLListener(one, context, https_compatible=True) for one in plain]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, listeners))
        yield plain[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read(client: Client, base: str, start: int, size: int) -> bytes:
    into = bytearray(size)
    await HttpOrigin(base, client).read("a", start, memoryview(into), lambda _count: None)
    return bytes(into)


async def test_https_goes_through_a_proxy_that_is_reached_by_tls(
    near: Certificate, far: Certificate, both: Path
) -> None:
    server = FaultyServer({"/blobs/a": BODY})
    async with served(server, far.server_context()) as port:
        proxy = Proxy({f"{FAR}:443": port}, password="me:it")
        async with proxy.listening(near.server_context()) as way:
            proxies = Proxies.of({"https_proxy": way.replace("//", "//me:it@")})
            with Client(proxies=proxies, trust=Trust(ca_file=both)) as client:
                for start in (0, 10, 500_000):
                    found = await read(client, f"https://{FAR}", start, 400_000)
                    assert found == BODY[start : start + 400_000]
                assert client.idle == 1
    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(f"CONNECT {FAR}:443 HTTP/1.1")


async def test_http_goes_through_a_proxy_that_is_reached_by_tls(near: Certificate) -> None:
    server = FaultyServer({"/blobs/a": BODY})
    async with server.listening() as url:
        proxy = Proxy({"store.example": Url.parse(url).port})
        async with proxy.listening(near.server_context()) as way:
            trust = Trust(ca_file=near.certificate)
            with Client(proxies=Proxies.of({"http_proxy": way}), trust=trust) as client:
                found = await read(client, "http://store.example", 5, 100_000)
    assert found == BODY[5:100_005]
    assert "GET http://store.example/blobs/a HTTP/1.1" in proxy.heads[0]


async def test_a_proxy_that_nobody_vouches_for_is_named_and_told_nothing(
    near: Certificate, far: Certificate
) -> None:
    proxy = Proxy({}, password="me:it")
    async with proxy.listening(near.server_context()) as way:
        proxies = Proxies.of({"https_proxy": way.replace("//", "//me:it@")})
        trust = Trust(ca_file=far.certificate)
        with (
            Client(proxies=proxies, trust=trust) as client,
            pytest.raises(Refused, match=f"{way}/: its certificate is not trusted") as caught,
        ):
            await client.get(f"https://{FAR}/a", 10)
    assert "me:it" not in str(caught.value)
    assert proxy.heads == []


def test_a_proxy_of_another_kind_is_named_by_its_variable() -> None:
    with pytest.raises(Malformed, match="https_proxy: not an http or https url: socks5"):
        Proxies.of({"HTTPS_PROXY": "socks5://p:1"})


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "a").write_bytes(BODY)
    return tmp_path


async def test_a_server_that_asks_who_we_are_is_told(
    near: Certificate, ours: Certificate, blobs: Path
) -> None:
    identity = Identity(ours.certificate, ours.key)
    with choosy(blobs, near.server_context(ours)) as url:
        with Client(trust=Trust(ca_file=near.certificate, identity=identity)) as client:
            assert await read(client, url, 7, 9000) == BODY[7:9007]
        with (
            Client(trust=Trust(ca_file=near.certificate)) as client,
            pytest.raises(Refused, match="our certificate, or lack of one"),
        ):
            await read(client, url, 7, 9000)


@pytest.mark.parametrize("place", ["127.0.0.1:{}", "elsewhere:{}"])
async def test_folders_of_docker_and_podman_say_it_for_one_server(
    near: Certificate, ours: Certificate, tmp_path: Path, place: str
) -> None:
    server = FaultyServer({"/blobs/a": BODY})
    async with served(server, near.server_context(ours)) as port:
        told = tmp_path / "certs.d" / place.format(port)
        told.mkdir(parents=True)
        (told / "ca.crt").write_bytes(near.certificate.read_bytes())
        (told / "client.cert").write_bytes(ours.certificate.read_bytes())
        (told / "client.key").write_bytes(ours.key.read_bytes())
        trust = Trust(folders=[tmp_path / "none", tmp_path / "certs.d"])
        with Client(trust=trust) as client:
            if place.startswith("127"):
                assert await read(client, f"https://127.0.0.1:{port}", 0, 10) == BODY[:10]
            else:
                with pytest.raises(Refused, match="not trusted"):
                    await read(client, f"https://127.0.0.1:{port}", 0, 10)


async def test_where_another_site_leads_us_we_are_nobody(
    near: Certificate, ours: Certificate, blobs: Path
) -> None:
    identity = Identity(ours.certificate, ours.key)
    first = FaultyServer({"/a": b""})
    with choosy(blobs, near.server_context(ours)) as there:
        first.plan[:] = [redirect(f"{there}/blobs/a")]
        async with first.listening() as url:
            with (
                Client(trust=Trust(ca_file=near.certificate, identity=identity)) as client,
                pytest.raises(Refused, match="our certificate, or lack of one"),
            ):
                await client.get(f"{url}/a", 10)


@pytest.mark.parametrize("what", ["a key of another", "no key", "no authority"])
async def test_files_of_no_use_are_named(
    near: Certificate, ours: Certificate, far: Certificate, tmp_path: Path, what: str
) -> None:
    told = tmp_path / "127.0.0.1"
    told.mkdir()
    if what == "no authority":
        (told / "bad.crt").write_text("nothing")
    else:
        (told / "bad.cert").write_bytes(ours.certificate.read_bytes())
        if what == "a key of another":
            (told / "bad.key").write_bytes(far.key.read_bytes())
    trust = Trust(folders=[tmp_path])
    with pytest.raises(Malformed, match=r"127\.0\.0\.1/bad\."):
        await trust.context(Url.parse("https://127.0.0.1"))


async def test_a_server_that_hangs_up_in_the_handshake_is_unreachable(near: Certificate) -> None:
    async def rude(stream: trio.SocketStream) -> None:
        await stream.receive_some(10)
        await stream.aclose()

    proxy = Proxy({})
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, rude, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        proxy.ports = {f"{FAR}:443": port}
        async with proxy.listening(near.server_context()) as way:
            trust = Trust(ca_file=near.certificate)
            with (
                Client(proxies=Proxies.of({"https_proxy": way}), trust=trust) as client,
                pytest.raises(Unreachable, match=FAR),
            ):
                await client.get(f"https://{FAR}/a", 10)
        nursery.cancel_scope.cancel()
