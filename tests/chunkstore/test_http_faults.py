"""Every way in which a server can answer badly, in virtual time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from chunkstore import ChunkstoreError, Corrupt, Missing, Refused, Unreachable
from chunkstore.http.ranges import SKIPPED
from chunkstore.retrying import Retrying
from fixtures.faulty import (
    Cut,
    Drip,
    Fault,
    Flipped,
    Proper,
    Raw,
    Resized,
    Shifted,
    Stall,
    Status,
    Unsized,
    UntilClosed,
    Whole,
    redirect,
)
from fixtures.faultysite import GOOD, PATIENCE, SIZE, START, Site


@pytest.fixture
async def site(nursery: trio.Nursery) -> AsyncIterator[Site]:
    found = Site(nursery)
    with found.client:
        yield found


RIGHT_IN_THE_END: list[tuple[str, list[Fault]]] = [
    ("a whole file for a range", [Whole()]),
    ("a whole file in chunks", [Unsized()]),
    ("small chunks", [Unsized(chunk=17), Unsized(chunk=SIZE * 2)]),
    ("a body that ends with the connection", [UntilClosed()]),
    ("a redirect", [redirect("/blobs/a")]),
    ("a redirect after a redirect", [redirect("/x", 302), redirect("//store/blobs/a", 301)]),
    ("a slow server that makes progress", [Drip(size=20_000, every=PATIENCE - 1)]),
    ("no entity tag", [Proper(tag="")]),
    ("a weak entity tag", [Proper(tag='W/"x"')]),
]


@pytest.mark.parametrize(("name", "plan"), RIGHT_IN_THE_END)
async def test_reads_end_right_in_spite_of(
    autojump_clock: trio.testing.MockClock, site: Site, name: str, plan: list[Fault]
) -> None:
    assert await site.read(*plan) == GOOD, name
    assert site.arrived[-1] == SIZE


WRONG: list[tuple[Fault, type[ChunkstoreError], str]] = [
    (Shifted(by=1), Corrupt, "sent [50001, 150001), not [50000, 150000)"),
    (Shifted(by=-50_000), Corrupt, "sent [0, 100000)"),
    (Resized(by=-1), Corrupt, "a range of 100000 bytes in 99999"),
    (Resized(by=1), Corrupt, "a range of 100000 bytes in 100001"),
    (Unsized(extra=b"more"), Corrupt, "more bytes than were announced"),
    (Unsized(is_ended=False), Unreachable, "bad chunks"),
    (UntilClosed(dropped=1), Unreachable, "cut off"),
    (Cut(after=0), Unreachable, "cut off 100000 bytes before its end"),
    (Cut(after=99_999), Unreachable, "cut off 1 bytes before its end"),
    (Raw(b""), Unreachable, "hung up"),
    (Raw(b"HTTP/1.1 206 Par"), Unreachable, "http://store/blobs/a"),
    (Raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), Unreachable, "illegal status line"),
    (Raw(b"HTTP/1.1 206 X\r\nContent-Length: -5\r\n\r\n"), Unreachable, "Content-Length"),
    (Raw(b"HTTP/1.1 206 X\r\nA: " + b"a" * 100_000), Unreachable, "too long"),
    (Raw(b"HTTP/1.1 206 X\r\nContent-Length: 3\r\n\r\nabc"), Corrupt, "does not say which"),
    (Raw(b"HTTP/1.1 206 X\r\nContent-Range: bytes 9-2/3\r\n\r\nabc"), Corrupt, "sent [9, 3)"),
    (
        Raw(b"HTTP/1.1 206 X\r\nContent-Type: multipart/byteranges; boundary=x\r\n\r\n--x"),
        Corrupt,
        "does not say which",
    ),
    (Raw(b"HTTP/1.1 200 X\r\nContent-Encoding: gzip\r\n\r\nabc"), Corrupt, "encoded"),
    (Raw(b"HTTP/1.1 200 X\r\nContent-Length: 7\r\n\r\nshorter"), Corrupt, "ends at 7"),
    (Raw(b"HTTP/1.1 200 X\r\n\r\nshorter"), Corrupt, "ended before"),
    (Raw(b"HTTP/1.1 204 X\r\n\r\n"), Unreachable, "204"),
    (Status(code=404), Missing, "404"),
    (Status(code=410), Missing, "410"),
    (Status(code=401), Refused, "401"),
    (Status(code=403), Refused, "403"),
    (Status(code=400), Refused, "400"),
    (Status(code=500), Unreachable, "500"),
    (Status(code=304), Unreachable, "304"),
    (redirect("ftp://store/blobs/a"), Unreachable, "leads"),
    (redirect("http://[::1/"), Unreachable, "leads"),
]


@pytest.mark.parametrize(("fault", "error", "words"), WRONG)
async def test_a_wrong_answer_is_one_plain_error_that_names_the_url(
    autojump_clock: trio.testing.MockClock,
    site: Site,
    fault: Fault,
    error: type[ChunkstoreError],
    words: str,
) -> None:
    with pytest.raises(ChunkstoreError, match=re.escape(words)) as caught:
        await site.read(fault)
    assert isinstance(caught.value, error)
    assert isinstance(caught.value, Refused) == (error is Refused)
    assert "http://store/blobs/a" in str(caught.value)


@pytest.mark.parametrize("row", WRONG)
async def test_after_a_wrong_answer_the_next_read_is_right(
    site: Site, row: tuple[Fault, type[ChunkstoreError], str]
) -> None:
    with pytest.raises(row[1]):
        await site.read(row[0])
    assert await site.read() == GOOD


async def test_what_arrived_before_the_cut_is_in_place(site: Site) -> None:
    with pytest.raises(Unreachable):
        await site.read(Cut(after=60_000))
    assert site.arrived[-1] == 60_000
    assert site.into[:60_000] == GOOD[:60_000]


@pytest.mark.parametrize("after", [None, 0, 1, SIZE - 1])
async def test_a_server_that_stalls_costs_exactly_the_patience(
    autojump_clock: trio.testing.MockClock, site: Site, after: int | None
) -> None:
    began = trio.current_time()
    with pytest.raises(Unreachable, match="no progress in 30 s"):
        await site.read(Stall(after=after))
    assert trio.current_time() - began == PATIENCE
    assert site.client.idle == 0


async def test_a_server_that_only_drips_is_a_stalled_one(
    autojump_clock: trio.testing.MockClock, site: Site
) -> None:
    began = trio.current_time()
    with pytest.raises(Unreachable, match="no progress"):
        await site.read(Drip(size=1, every=1))
    assert trio.current_time() - began == PATIENCE


async def test_a_slow_reader_is_not_the_servers_fault(
    autojump_clock: trio.testing.MockClock, site: Site
) -> None:
    site.server.plan[:] = [Drip(size=50_000, every=20)]
    from_now = trio.current_time()
    async with site.client.request(site.origin._request("a")) as response:
        part = bytearray(25_000)
        for _part in range(8):
            assert await response.receive_into(memoryview(part))
            await trio.sleep(PATIENCE * 2)
    assert trio.current_time() - from_now > PATIENCE * 8


async def test_a_host_that_never_connects_costs_the_connect_deadline(
    autojump_clock: trio.testing.MockClock, site: Site
) -> None:
    site.net.silent.add("store")
    began = trio.current_time()
    with pytest.raises(Unreachable, match="no connection in 10 s"):
        await site.read()
    assert trio.current_time() - began == 10


async def test_a_redirect_to_a_dead_host_names_the_dead_host(site: Site) -> None:
    with pytest.raises(Unreachable, match=r"http://dead/blobs/a: nobody there$"):
        await site.read(redirect("http://dead/blobs/a?signature=secret"))
    assert await site.read() == GOOD


async def test_redirects_in_a_circle_end(site: Site) -> None:
    site.server.after = redirect("/blobs/a")
    with pytest.raises(Unreachable, match="more than 10 redirects"):
        await site.read()
    assert len(site.server.asked) == 11


RETRY_AFTER: list[tuple[tuple[tuple[str, str], ...], float | None]] = [
    ((("Retry-After", "7"),), 7),
    ((("Retry-After", "0"),), 0),
    ((("Retry-After", "99999999999999"),), 3600),
    ((("Retry-After", "-1"),), None),
    ((("Retry-After", "soon"),), None),
    ((), None),
    (
        (
            ("Date", "Tue, 01 Jul 2025 10:00:00 GMT"),
            ("Retry-After", "Tue, 01 Jul 2025 10:00:20 GMT"),
        ),
        20,
    ),
    (
        (
            ("Date", "Tue, 01 Jul 2025 10:00:00 GMT"),
            ("Retry-After", "Tue, 01 Jul 2025 09:00:00 GMT"),
        ),
        0,
    ),
    ((("Retry-After", "Tue, 01 Jul 2025 10:00:20 GMT"),), None),
]


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(("headers", "seconds"), RETRY_AFTER)
async def test_a_storm_tells_when_to_come_back(
    site: Site, code: int, headers: tuple[tuple[str, str], ...], seconds: float | None
) -> None:
    with pytest.raises(Unreachable, match=str(code)) as caught:
        await site.read(Status(code=code, headers=headers))
    assert caught.value.retry_after == seconds


async def test_an_error_repeats_the_servers_words_but_not_its_control_characters(
    site: Site,
) -> None:
    text = Status(code=500, headers=(("Content-Type", "text/plain"),), body=b"no\x1b[31m disk\n")
    with pytest.raises(Unreachable, match=r"answered 500: no \[31m disk$"):
        await site.read(text)
    said = b'{"errors":[{"code":"DENIED","message":"not yours"}]}'
    kind = (("Content-Type", "application/json"),)
    with pytest.raises(Refused, match=r"answered 403: DENIED not yours$"):
        await site.read(Status(code=403, headers=kind, body=said))


async def test_an_error_with_a_short_body_keeps_the_connection(site: Site) -> None:
    with pytest.raises(Unreachable):
        await site.read(Status(code=503, body=b"x" * 1000))
    await site.read()
    assert len(site.net.dialled) == 1


async def test_flipped_bits_pass_the_origin_which_knows_no_digests(site: Site) -> None:
    assert await site.read(Flipped(at=5)) != GOOD


@pytest.mark.logs("blob differs from before")
async def test_a_blob_that_was_replaced_is_noticed_once_and_then_read_as_it_is(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    await site.read()
    with pytest.raises(Corrupt, match=r'blobs/a: replaced by another file, "two" was "one"'):
        await site.read(Proper(tag='"two"'))
    assert "blob differs" in caplog.text
    site.server.after = Proper(tag='"two"')
    assert await site.read() == GOOD
    assert site.server.asked[-1].headers.get("if-range") is None
    assert await site.read() == GOOD
    assert site.server.asked[-1].headers["if-range"] == '"two"'


@pytest.mark.logs("blob differs from before")
async def test_servers_that_never_agree_on_a_tag_are_not_asked_to_for_ever(site: Site) -> None:
    answers = []
    for number in range(10):
        try:
            answers.append(await site.read(Proper(tag=f'"{number}"')))
        except Corrupt:
            answers.append(b"")
    assert answers[-4:] == [GOOD] * 4


async def test_a_server_without_ranges_is_refused_where_it_would_waste_too_much(
    site: Site,
) -> None:
    into = memoryview(bytearray(1))
    whole = Raw(b"HTTP/1.1 200 X\r\nContent-Length: 1000000000\r\n\r\n")
    site.server.plan[:] = [whole]
    with pytest.raises(Unreachable, match="cannot send ranges"):
        await site.origin.read("a", SKIPPED + 1, into, site.arrived.append)


PASSING = [row[0] for row in WRONG if row[1] is Unreachable]


@pytest.mark.parametrize(
    "fault", [*PASSING, Stall(), Stall(after=70_000), Drip(size=1, every=1), Cut(after=70_000)]
)
async def test_asked_again_a_fault_that_passes_costs_time_and_no_bytes(
    autojump_clock: trio.testing.MockClock, site: Site, fault: Fault
) -> None:
    site.server.plan[:] = [fault, Status(code=429, headers=(("Retry-After", "3"),)), fault]
    again = Retrying(site.origin, deadline=10 * PATIENCE, patience=2 * PATIENCE)
    await again.read("a", START, memoryview(site.into), site.arrived.append)
    assert site.into == GOOD
    assert site.arrived == sorted(site.arrived)


async def test_asked_again_a_storm_that_does_not_pass_ends_at_the_deadline(
    autojump_clock: trio.testing.MockClock, site: Site
) -> None:
    site.server.after = Status(code=503, headers=(("Retry-After", "2"),))
    with pytest.raises(Unreachable, match="503"):
        await Retrying(site.origin, deadline=PATIENCE).read(
            "a", START, memoryview(site.into), site.arrived.append
        )
    assert trio.current_time() <= PATIENCE
    assert len(site.server.asked) == PATIENCE / 2 + 1
