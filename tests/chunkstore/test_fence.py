"""Where a client may go that reads for others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from chunkstore import Malformed, Refused
from chunkstore.http import Client, Fence, Proxies, Url, UrlPattern
from fixtures.faulty import FaultyServer, redirect
from fixtures.proxy import Proxy

PATTERNS = [
    ("https://a.example/*", "https://a.example/x/y", True),
    ("https://a.example", "https://a.example/x", True),
    ("https://a.example:443/x/*", "https://a.example/x/y", True),
    ("https://A.example/*", "https://a.example:443/x", True),
    ("https://a.example/*", "http://a.example/x", False),
    ("*://a.example/*", "http://a.example/x", True),
    ("https://a.example/*", "https://a.example:8443/x", False),
    ("https://a.example:*/*", "https://a.example:8443/x", True),
    ("https://*.example/*", "https://a.b.example/x", True),
    ("https://*.example/*", "https://evil.test/.example/x", False),
    ("https://*.example/*", "https://evil.test:80.example/x", False),
    ("https://a.example/*", "https://a.example.evil.test/x", False),
    ("https://a.example/v2/team/*", "https://a.example/v2/other/x", False),
    ("https://a.example/v2/team/*", "https://a.example/v2/team/../other/x", False),
    ("https://a.example/v2/team/*", "https://a.example/v2/team/%2e%2e/other/x", False),
    ("https://[::1]:8000/*", "https://[::1]:8000/x", True),
]


@pytest.mark.parametrize(("pattern", "url", "fits"), PATTERNS)
def test_a_pattern_means_hosts_and_paths_apart(pattern: str, url: str, fits: bool) -> None:
    try:
        parsed = Url.parse(url)
    except Malformed:
        assert not fits
    else:
        assert UrlPattern.parse(pattern).fits(parsed) is fits


@pytest.mark.parametrize("text", ["", "a.example", "ftp://a/*", "https://", "https://u:p@a/*"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        UrlPattern.parse(text)


FORBIDDEN = [
    "127.0.0.1",
    "127.8.9.10",
    "[::1]",
    "0.0.0.0",
    "[::]",
    "169.254.169.254",
    "[fe80::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "100.100.100.200",
    "168.63.129.16",
    "[fd00:ec2::254]",
    "224.0.0.1",
]


@pytest.mark.parametrize("host", FORBIDDEN)
async def test_this_machine_and_its_link_are_not_read_for_others(host: str) -> None:
    fence, url = Fence(), Url.parse(f"http://{host}/latest/meta-data")
    with pytest.raises(Refused):
        fence.check(url)
    with pytest.raises(Refused), Client(dial=fence) as client:
        await client.get(url, 10)


@pytest.mark.parametrize(
    "host", ["10.0.0.5", "192.168.1.7", "[fd12::5]", "93.184.216.34", "a.example"]
)
def test_registries_of_private_networks_are(host: str) -> None:
    Fence().check(Url.parse(f"http://{host}/v2/"))


async def test_a_swarm_that_nobody_else_reaches_reads_this_machine() -> None:
    server = FaultyServer({"/a": b"a"})
    async with server.listening() as url:
        with Client(dial=Fence(local=True)) as client:
            assert await client.get(f"{url}/a", 10) == b"a"
        with pytest.raises(Refused):
            Fence(local=True).check(Url.parse("http://169.254.169.254/"))


async def test_a_name_is_looked_up_before_it_is_asked() -> None:
    asked: list[str] = []

    async def look_up(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["93.184.216.34", "127.0.0.1"]

    with pytest.raises(Refused), Client(dial=Fence(look_up=look_up)) as client:
        await client.get("http://innocent.example/x", 10)
    assert asked == ["innocent.example"]


async def test_a_name_that_means_something_else_a_moment_later_gets_no_byte() -> None:
    async def look_up(host: str, port: int) -> Sequence[str]:
        return ["93.184.216.34"]

    server = FaultyServer({"/a": b"a"})
    async with server.listening() as url:
        port = Url.parse(url).port
        with pytest.raises(Refused), Client(dial=Fence(look_up=look_up)) as client:
            await client.get(f"http://localhost:{port}/a", 10)
    assert server.asked == []


async def test_a_redirect_leads_to_no_other_place() -> None:
    here, there = FaultyServer({}), FaultyServer({"/b": b"secret"})
    async with here.listening() as url, there.listening() as other:
        here.plan[:] = [redirect(other.replace("127.0.0.1", "localhost") + "/b")]
        fence = Fence([UrlPattern.parse(f"{url}/*")])
        with pytest.raises(Refused), Client(dial=fence) as client:
            await client.get(f"{url}/a", 10)
    assert (len(here.asked), there.asked) == (1, [])


async def test_a_host_that_is_named_in_full_is_asked_wherever_it_lives() -> None:
    server = FaultyServer({"/a": b"a"})
    async with server.listening() as url:
        fence = Fence([UrlPattern.parse(f"{url}/*")])
        fence.check(Url.parse(f"{url}/a"))
        with Client(dial=fence) as client:
            assert await client.get(f"{url}/a", 10) == b"a"
        with pytest.raises(Refused, match="not among the origins"):
            fence.check(Url.parse("http://other.example/a"))
        with pytest.raises(Refused):
            Fence([UrlPattern.parse("http://*/*")]).check(Url.parse(f"{url}/a"))


async def test_the_proxy_of_the_system_may_be_on_this_machine() -> None:
    server = FaultyServer({"/a": b"a"})
    async with server.listening() as url:
        proxy = Proxy({"origin.example": Url.parse(url).port})
        async with proxy.listening() as at:
            proxies = Proxies(http=Url.parse(at))
            with Client(proxies=proxies, dial=Fence(proxies=proxies)) as client:
                assert await client.get("http://origin.example/a", 10) == b"a"
