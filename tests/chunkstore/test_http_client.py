"""Redirects, credentials, proxies, TLS and uploads, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
import trio

from chunkstore import Buffer, Corrupt, Malformed, Refused, Unreachable
from chunkstore.http import Client, Deadlines, Proxies, Request, Trust, Upload, Url
from chunkstore.origins.http import HttpOrigin
from fixtures.certificates import self_signed
from fixtures.faulty import FaultyServer, Raw, Status, redirect
from fixtures.proxy import Proxy

SECRET = "Bearer of-a-secret"


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    with Client(deadlines=Deadlines(connect=5, progress=5)) as made:
        yield made


def asked_for(server: FaultyServer) -> list[str | None]:
    return [asked.headers.get("authorization") for asked in server.asked]


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_credentials_stay_on_this_host_and_are_never_sent_to_another(
    client: Client, code: int
) -> None:
    here, there = FaultyServer({}), FaultyServer({"/b": b"there"})
    async with here.listening() as url, there.listening() as other:
        here.plan[:] = [redirect("/moved", code), redirect(f"{other}/b", code)]
        request = Request("GET", Url.parse(f"{url}/a"), (("Cookie", "c=1"),), SECRET)
        async with client.request(request) as response:
            assert await response.read(10) == b"there"
    assert asked_for(here) == [SECRET, SECRET]
    assert asked_for(there) == [None]
    assert "cookie" not in there.asked[0].headers


async def test_a_password_in_a_url_stays_on_its_host(client: Client) -> None:
    here, there = FaultyServer({"/a": b"a"}), FaultyServer({"/b": b"there"})
    async with here.listening() as url, there.listening() as other:
        url = url.replace("http://", "http://user:pass@")
        assert await client.get(f"{url}/a", 10) == b"a"
        here.plan[:] = [redirect(f"{other}/b")]
        assert await client.get(f"{url}/a", 10) == b"there"
    assert asked_for(here) == ["Basic dXNlcjpwYXNz"] * 2
    assert asked_for(there) == [None]


async def test_a_redirect_back_does_not_bring_the_credentials_back(client: Client) -> None:
    here, there = FaultyServer({"/b": b"back"}), FaultyServer({})
    async with here.listening() as url, there.listening() as other:
        here.plan[:] = [redirect(f"{other}/x")]
        there.plan[:] = [redirect(f"{url}/b")]
        async with client.request(Request("GET", Url.parse(url), (), SECRET)) as response:
            assert await response.read(10) == b"back"
    assert asked_for(here) == [SECRET, None]


async def test_errors_and_logs_show_neither_query_nor_password(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    server = FaultyServer({}, after=Status(code=500))
    async with server.listening() as url:
        url = url.replace("http://", "http://user:word@") + "/a?signature=hidden"
        with pytest.raises(Unreachable) as caught:
            await client.get(url, 10)
    assert not {"hidden", "word"} & set(str(caught.value).replace("/", " ").split())
    assert "hidden" not in str(caught.value) + caplog.text
    assert "word" not in str(caught.value) + caplog.text


async def test_a_header_with_a_line_in_it_is_refused_before_it_is_sent(client: Client) -> None:
    server = FaultyServer({})
    async with server.listening() as url:
        request = Request("GET", Url.parse(url), (("X", "a\r\nHost: evil"),))
        with pytest.raises(Malformed):
            async with client.request(request):
                pass
    assert server.asked == []


async def test_documents_end_at_their_limit(client: Client) -> None:
    server = FaultyServer({"/a": b"12345"})
    unsized = Raw(b"HTTP/1.1 200 X\r\n\r\n" + b"x" * 70_000)
    async with server.listening() as url:
        assert await client.get(f"{url}/a", 5) == b"12345"
        with pytest.raises(Corrupt, match="5 bytes where 4 are the most"):
            await client.get(f"{url}/a", 4)
        server.plan[:] = [unsized, unsized]
        assert len(await client.get(f"{url}/a", 70_000)) == 70_000
        with pytest.raises(Corrupt, match="more than the 69999 bytes"):
            await client.get(f"{url}/a", 69_999)


async def _parts(count: int) -> AsyncGenerator[Buffer, None]:
    for number in range(count):
        yield b"%05d" % number
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_a_body_is_streamed_and_repeated_after_a_redirect(client: Client, count: int) -> None:
    server = FaultyServer({}, plan=[redirect("/there"), Status(code=201)])
    body = Upload(5 * count, partial(_parts, count))
    async with server.listening() as url:
        request = Request("PUT", Url.parse(url), (), SECRET, body)
        async with client.request(request) as response:
            assert response.status == 201
    expected = b"".join([part async for part in _parts(count)])
    assert [asked.body for asked in server.asked] == [expected, expected]
    assert [asked.method for asked in server.asked] == ["PUT", "PUT"]


async def test_a_post_that_is_answered_with_see_other_becomes_a_get(client: Client) -> None:
    server = FaultyServer({"/there": b"done"}, plan=[redirect("/there", 303)])
    async with server.listening() as url:
        request = Request("POST", Url.parse(url), body=b"question")
        async with client.request(request) as response:
            assert await response.read(10) == b"done"
    assert [(asked.method, asked.body) for asked in server.asked] == [
        ("POST", b"question"),
        ("GET", b""),
    ]


@pytest.mark.parametrize("size", [3, 7])
async def test_a_body_of_another_length_than_it_says_is_malformed(
    client: Client, size: int
) -> None:
    server = FaultyServer({})
    async with server.listening() as url:
        body = Upload(size, partial(_parts, 1))
        with pytest.raises(Malformed, match="was not that long"):
            async with client.request(Request("PUT", Url.parse(url), body=body)):
                pass


async def _many_parts() -> AsyncGenerator[Buffer, None]:
    for _number in range(100):
        yield bytes(1 << 20)


async def _early(stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some(1000)
        await stream.send_all(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")
        # Closing with bytes unread resets the connection, while more are on their way.


async def test_an_answer_that_comes_before_the_body_was_sent_is_heard(
    client: Client, nursery: trio.Nursery
) -> None:
    listeners: list[trio.SocketListener] = await nursery.start(
        partial(trio.serve_tcp, _early, 0, host="127.0.0.1")
    )
    port = listeners[0].socket.getsockname()[1]
    body = Upload(100 << 20, _many_parts)
    request = Request("PUT", Url.parse(f"http://127.0.0.1:{port}/"), body=body)
    async with client.request(request) as response:
        assert response.status == 413
        assert client.idle == 0


async def test_requests_that_change_something_never_travel_on_an_old_connection(
    client: Client,
) -> None:
    server = FaultyServer({"/": b"x"}, plan=[Status(code=200), Raw(b"")])
    async with server.listening() as url:
        await client.get(url, 10)
        assert client.idle == 1
        with pytest.raises(Unreachable):
            async with client.request(Request("POST", Url.parse(url), body=b"once")):
                pass
    assert [asked.method for asked in server.asked] == ["GET", "POST"]


def port_of(url: str) -> int:
    return Url.parse(url).port


async def test_http_goes_through_the_proxy_and_the_proxys_password_to_it_alone() -> None:
    server = FaultyServer({"/blobs/a": b"through"})
    async with server.listening() as url:
        proxy = Proxy({"store.example": port_of(url)}, password="me:it")
        async with proxy.listening() as way:
            way = way.replace("http://", "http://me:it@")
            with Client(proxies=Proxies.of({"http_proxy": way})) as client:
                into = bytearray(3)
                origin = HttpOrigin("http://store.example", client)
                await origin.read("a", 1, memoryview(into), lambda _count: None)
    assert into == b"hro"
    assert "GET http://store.example/blobs/a HTTP/1.1" in proxy.heads[0]


async def _tls(server: FaultyServer, folder: Path, stack: AsyncExitStack) -> int:
    context = self_signed(folder, "server").server_context()

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await server.serve(stream)
        except* trio.BrokenResourceError:
            pass

    nursery = await stack.enter_async_context(trio.open_nursery())
    stack.callback(nursery.cancel_scope.cancel)
    plain = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listeners = [trio.SSLListener(one, context, https_compatible=True) for one in plain]
    nursery.start_soon(partial(trio.serve_listeners, serve, listeners))
    port: int = plain[0].socket.getsockname()[1]
    return port


BIG = bytes(i % 251 for i in range(3_000_000))


async def test_https_is_read_where_its_certificate_is_trusted(tmp_path: Path) -> None:
    server = FaultyServer({"/blobs/a": BIG})
    async with AsyncExitStack() as stack:
        url = f"https://127.0.0.1:{await _tls(server, tmp_path, stack)}"
        with Client(trust=Trust(ca_file=tmp_path / "server.pem")) as client:
            origin = HttpOrigin(url, client)
            for start in (0, 100, 1_000_000):
                into = bytearray(1_500_000)
                await origin.read("a", start, memoryview(into), lambda _count: None)
                assert into == BIG[start : start + 1_500_000]
            assert client.idle == 1
        with Client() as stranger, pytest.raises(Refused, match="certificate is not trusted"):
            await stranger.get(f"{url}/blobs/a", 10)
        with Client(trust=Trust(ca_file=tmp_path / "server.pem")) as client:
            body = Upload(10_000, partial(_parts, 2000))
            server.plan[:] = [Status(code=201)]
            async with client.request(Request("PUT", Url.parse(url), body=body)) as response:
                assert response.status == 201
    assert len(server.asked[-1].body) == 10_000


async def test_https_goes_through_a_tunnel_whose_password_the_server_never_sees(
    tmp_path: Path,
) -> None:
    server = FaultyServer({"/a": b"through"})
    async with AsyncExitStack() as stack:
        port = await _tls(server, tmp_path, stack)
        # The certificate is for the address, which a proxy is asked for like any other name; only
        # loopback is not, so that the test has the proxy stand in for a host of that address.
        proxy = Proxy({"203.0.113.7:443": port}, password="me:it")
        way = await stack.enter_async_context(proxy.listening())
        self_signed(tmp_path, "far", "203.0.113.7")
        with (
            Client(
                proxies=Proxies.of({"https_proxy": way.replace("//", "//me:it@")}),
                trust=Trust(ca_file=tmp_path / "server.pem"),
            ) as client,
            pytest.raises(Refused, match="certificate"),
        ):
            await client.get("https://203.0.113.7/a", 10)
        assert proxy.heads[0].startswith("CONNECT 203.0.113.7:443 HTTP/1.1")
        with (
            Client(proxies=Proxies.of({"https_proxy": way})) as client,
            pytest.raises(Refused, match="the proxy answered 407"),
        ):
            await client.get("https://203.0.113.7/a", 10)
    assert server.asked == []


async def test_a_server_that_speaks_no_tls_is_unreachable(nursery: trio.Nursery) -> None:
    listeners: list[trio.SocketListener] = await nursery.start(
        partial(trio.serve_tcp, _early, 0, host="127.0.0.1")
    )
    port = listeners[0].socket.getsockname()[1]
    with Client() as client, pytest.raises(Unreachable, match="https://127"):
        await client.get(f"https://127.0.0.1:{port}/", 10)


async def test_a_handshake_that_stalls_costs_the_connect_deadline(nursery: trio.Nursery) -> None:
    listeners = await nursery.start(partial(trio.serve_tcp, _silent, 0, host="127.0.0.1"))
    port = listeners[0].socket.getsockname()[1]
    with (
        Client(deadlines=Deadlines(connect=0.05)) as client,
        pytest.raises(Unreachable, match=r"no connection in 0\.05 s"),
    ):
        await client.get(f"https://127.0.0.1:{port}/", 10)
    nursery.cancel_scope.cancel()


async def _silent(stream: trio.SocketStream) -> None:
    async with stream:
        await trio.sleep_forever()
