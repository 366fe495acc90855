"""Downloads from registries that cut and throttle, and pushes to them, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from chunkstore import Algorithm, Corrupt, Digest, Refused, Unreachable
from chunkstore.origins.download import Download
from chunkstore.origins.push import Push
from fixtures.faulty import Cut, Fault, FaultyServer, Raw, Stall, Status, Whole, redirect
from fixtures.guarded import Guard
from fixtures.registrynet import BLOB, DIGEST, TARGET, Net, proofs
from fixtures.uploads import Uploads


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
