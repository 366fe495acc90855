"""Urls, proxies, challenges and references: the pure parts of the client and the origins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkstore import Malformed
from chunkstore.http import Proxies, Url
from chunkstore.http.answers import content_range
from chunkstore.origins.challenge import Challenge, challenges
from chunkstore.origins.reference import Reference

URLS = [
    ("http://store", "http", "store", 80, "/", "http://store/"),
    ("HTTPS://Store:443/a/", "https", "store", 443, "/a/", "https://store/a/"),
    ("http://[::1]:8080/x", "http", "::1", 8080, "/x", "http://[::1]:8080/x"),
    ("http://h/a b?c=d e#f", "http", "h", 80, "/a%20b?c=d%20e", "http://h/a%20b"),
    ("http://h/a%20b", "http", "h", 80, "/a%20b", "http://h/a%20b"),
    ("http://h?sig=secret", "http", "h", 80, "/?sig=secret", "http://h/"),
    ("http://u:p%40@h/", "http", "h", 80, "/", "http://h/"),
    ("http://bücher/", "http", "xn--bcher-kva", 80, "/", "http://xn--bcher-kva/"),
]


@pytest.mark.parametrize(("text", "scheme", "host", "port", "target", "shown"), URLS)
def test_a_url_is_read_and_shows_no_secret(
    text: str, scheme: str, host: str, port: int, target: str, shown: str
) -> None:
    url = Url.parse(text)
    assert (url.scheme, url.host, url.port, url.target) == (scheme, host, port, target)
    assert str(url) == shown
    assert "secret" not in repr(url)
    assert "p@" not in repr(url)


def test_a_password_in_a_url_is_unquoted() -> None:
    assert Url.parse("http://u:p%40@h/").userinfo == "u:p@"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "store",
        "ftp://h/",
        "http://",
        "http://h:x/",
        "http://[::1/",
        "http://h:99999/",
        "file:///etc/passwd",
        "http://" + "h" * 100 + "/",
        "http://h/" + "a" * 20_000,
    ],
)
def test_what_is_no_url_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Url.parse(text)


@given(st.text(max_size=60))
def test_no_path_breaks_out_of_its_line(path: str) -> None:
    target = Url.parse("http://h/").join(f"/{path.lstrip('/')}").target if _joins(path) else "/"
    assert not set(target) & set(" \r\n\t")
    assert target.isascii()


def _joins(path: str) -> bool:
    try:
        Url.parse("http://h/").join(f"/{path.lstrip('/')}")
    except Malformed:
        return False
    return True


def test_children_lie_before_the_query() -> None:
    base = Url.parse("http://h/image/?key=1")
    assert base.child("blobs/a b").target == "/image/blobs/a%20b?key=1"
    assert Url.parse("http://h").child("x").target == "/x"


PROXIED = {"http_proxy": "http://p:1", "HTTPS_PROXY": "q:2"}
EXCEPTIONS = "corp, .Inner.example,10.0.0.0/8,192.168.1.7,h.example:8080,[fd00::1]"

BEFORE: list[tuple[str, str, str | None]] = [
    ("http://store/", "", "p"),
    ("https://store/", "", "q"),
    ("http://127.0.0.1/", "", None),
    ("http://localhost:5000/", "", None),
    ("https://[::1]/", "", None),
    ("http://store/", "*", None),
    ("http://corp/", EXCEPTIONS, None),
    ("http://a.corp/", EXCEPTIONS, None),
    ("http://acorp/", EXCEPTIONS, "p"),
    ("http://x.inner.example/", EXCEPTIONS, None),
    ("http://10.200.3.4/", EXCEPTIONS, None),
    ("http://11.0.0.1/", EXCEPTIONS, "p"),
    ("http://192.168.1.7/", EXCEPTIONS, None),
    ("http://192.168.1.70/", EXCEPTIONS, "p"),
    ("http://h.example:8080/", EXCEPTIONS, None),
    ("http://h.example/", EXCEPTIONS, "p"),
    ("http://[fd00::1]/", EXCEPTIONS, None),
    ("http://[fd00::2]/", EXCEPTIONS, "p"),
]


@pytest.mark.parametrize(("url", "exceptions", "proxy"), BEFORE)
def test_a_proxy_stands_before(url: str, exceptions: str, proxy: str | None) -> None:
    proxies = Proxies.of({**PROXIED, "no_proxy": exceptions})
    found = proxies.before(Url.parse(url))
    assert (found.host if found else None) == proxy


def test_without_variables_there_is_no_proxy() -> None:
    assert Proxies.of({}).before(Url.parse("http://store")) is None
    assert Proxies.of({"all_proxy": "x"}).before(Url.parse("http://store")) == Url.parse("http://x")


def test_a_proxy_that_is_none_is_malformed_without_its_password() -> None:
    with pytest.raises(Malformed) as caught:
        Proxies.of({"http_proxy": "socks5://u:secret@h:1"})
    assert "secret" not in str(caught.value)


CONTENT_RANGES = [
    ("bytes 0-9/10", (0, 10, 10)),
    ("bytes 5-9/*", (5, 10, None)),
    ("Bytes 5-9/100 ", (5, 10, 100)),
    ("bytes */10", None),
    ("bytes 5-9", None),
    ("bytes -5-9/10", None),
    ("items 0-9/10", None),
    ("bytes 0-" + "9" * 40 + "/10", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), CONTENT_RANGES)
def test_content_ranges(text: str, expected: tuple[int, int, int | None] | None) -> None:
    assert content_range({"content-range": text}) == expected


CHALLENGES = [
    ('Basic realm="x"', [Challenge("basic", (("realm", "x"),))]),
    (
        'Bearer realm="http://t/?a=b,c",service="s \\"q\\"",scope="repository:a/b:pull,push"',
        [
            Challenge(
                "bearer",
                (
                    ("realm", "http://t/?a=b,c"),
                    ("service", 's "q"'),
                    ("scope", "repository:a/b:pull,push"),
                ),
            )
        ],
    ),
    (
        'Negotiate, BASIC Realm=x , Bearer realm = "y"',
        [
            Challenge("negotiate"),
            Challenge("basic", (("realm", "x"),)),
            Challenge("bearer", (("realm", "y"),)),
        ],
    ),
    ("", []),
    ('Bearer realm="unended', [Challenge("bearer")]),
]


@pytest.mark.parametrize(("text", "expected"), CHALLENGES)
def test_challenges(text: str, expected: list[Challenge]) -> None:
    assert list(challenges(text)) == expected


@given(st.text(max_size=200))
def test_no_challenge_is_an_exception(text: str) -> None:
    list(challenges(text))


DIGEST = "sha256:" + "ab" * 32

REFERENCES = [
    ("localhost:5000/a/b:v1", "localhost:5000", "a/b", "v1"),
    ("r.example/a", "r.example", "a", "latest"),
    (f"r.example/a:v1@{DIGEST}", "r.example", "a", DIGEST),
    (f"r.example/a_b/c--d.e@{DIGEST}", "r.example", "a_b/c--d.e", DIGEST),
    ("[::1]:5000/a:v", "[::1]:5000", "a", "v"),
    ("docker.io/python:3.12", "docker.io", "library/python", "3.12"),
]


@pytest.mark.parametrize(("text", "host", "repository", "name"), REFERENCES)
def test_references(text: str, host: str, repository: str, name: str) -> None:
    reference = Reference.parse(text)
    assert (reference.host, reference.repository, reference.name) == (host, repository, name)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "python:3.12",
        "a/b",
        "r.example/",
        "r.example/A",
        "r.example/a:",
        "r.example/a:b:c",
        "r.example/a@sha256:12",
        "r.example/a//b",
        "r.example/../b",
        "/a",
        "",
        "r.example/a?b",
        "-r.example:x/a",
        "r.example/a:" + "t" * 129,
        "r.example/" + "a" * 256,
    ],
)
def test_what_is_no_reference_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        Reference.parse(text)


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("localhost:443", False),
        ("127.0.0.1.example", False),
        ("10.0.0.1:5000", False),
    ],
)
def test_only_registries_of_this_machine_are_local(host: str, is_local: bool) -> None:
    assert Reference.parse(f"{host}/app").is_local == is_local
