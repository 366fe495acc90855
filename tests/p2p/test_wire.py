from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.wiresamples import BARE, BODIES, REQUESTS, frames
from p2p import wire
from p2p.errors import Nonsense
from p2p.messages import Hello
from p2p.wire import HEADER_SIZE, LIMITS, Header, Kind, Request

GOLDEN = Path(__file__).parents[2] / "fixtures" / "golden" / "p2p" / "1.json"

GOLDEN_FRAMES = {name: bytes.fromhex(text) for name, text in json.loads(GOLDEN.read_text()).items()}


def split(frame: bytes) -> tuple[Header, bytes]:
    return Header.decode(frame[:HEADER_SIZE]), frame[HEADER_SIZE:]


def test_frames_of_version_1_are_as_they_were() -> None:
    assert frames() == GOLDEN_FRAMES


@pytest.mark.parametrize("name", BODIES)
def test_a_message_of_version_1_means_what_it_meant(name: str) -> None:
    header, body = split(GOLDEN_FRAMES[name])
    assert (wire.decode(header, body), header.request) == (BODIES[name], 5)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_of_version_1_means_what_it_meant(name: str) -> None:
    header, body = split(GOLDEN_FRAMES[name])
    assert (wire.decode(header, body), header.request) == (REQUESTS[name], 6)


@pytest.mark.parametrize("kind", BARE)
def test_a_frame_without_a_body_has_none(kind: Kind) -> None:
    header, body = split(GOLDEN_FRAMES[kind.name.lower()])
    assert (header.kind, header.request, wire.decode(header, body)) == (kind, 7, None)


def test_every_kind_of_frame_has_a_sample() -> None:
    assert {split(frame)[0].kind for frame in frames().values()} == set(Kind)


def test_every_kind_of_frame_has_a_limit() -> None:
    assert set(LIMITS) == set(Kind)


@pytest.mark.parametrize("kind", Kind)
def test_a_body_beyond_its_limit_is_refused_by_its_header(kind: Kind) -> None:
    size = LIMITS[kind] + 1
    data = size.to_bytes(4, "little") + bytes([kind, 0, 0, 0]) + bytes(8)
    with pytest.raises(Nonsense, match=f"{kind.name} of {size} bytes"):
        Header.decode(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bytes(4) + bytes([99, 0, 0, 0]) + bytes(8), "unknown type 99"),
        (bytes(4) + bytes([Kind.PING, 1, 0, 0]) + bytes(8), "flags 1"),
        (bytes(4) + bytes([Kind.PIECE, 2, 0, 0]) + bytes(8), "flags 2"),
        (bytes(4) + bytes([Kind.PING, 0, 1, 0]) + bytes(8), "reserved 1"),
    ],
)
def test_a_header_that_cannot_be_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(Nonsense, match=said):
        Header.decode(data)


@given(st.sampled_from(sorted(set(Kind) - {Kind.PIECE, Kind.STATE})), st.binary(max_size=200))
def test_any_body_decodes_or_is_nonsense(kind: Kind, body: bytes) -> None:
    try:
        wire.decode(Header(len(body), kind, 0, 1), body)
    except Nonsense:
        return


@given(st.sampled_from(sorted(GOLDEN_FRAMES)), st.data())
def test_a_damaged_frame_decodes_or_is_nonsense(name: str, data: st.DataObject) -> None:
    frame = bytearray(GOLDEN_FRAMES[name])
    place = data.draw(st.integers(0, len(frame) - 1))
    frame[place] ^= data.draw(st.integers(1, 255))
    try:
        header, body = split(bytes(frame))
        if header.kind not in (Kind.PIECE, Kind.STATE):
            wire.decode(header, body)
    except Nonsense:
        return


@given(st.binary(min_size=96, max_size=96))
def test_any_request_decodes_to_what_encodes_again_or_is_nonsense(body: bytes) -> None:
    try:
        request = Request.decode(body)
    except Nonsense:
        return
    assert Request.decode(request.encode(1)[HEADER_SIZE:]) == request


@pytest.mark.parametrize(
    ("oldest", "newest", "common"), [(1, 1, 1), (1, 9, 1), (2, 9, None), (0, 0, None)]
)
def test_the_newest_common_version_is_spoken(oldest: int, newest: int, common: int | None) -> None:
    hello = Hello(oldest, newest, bytes(16), "peer")
    if common is None:
        with pytest.raises(Nonsense, match="it speaks versions"):
            wire.common_version(hello)
    else:
        assert wire.common_version(hello) == common


def test_fields_of_a_later_version_are_skipped() -> None:
    header, body = split(GOLDEN_FRAMES["unfollow"])
    longer = bytes([body[0] + 1]) + body[1:] + b"\xc0"
    assert wire.decode(header, longer) == BODIES["unfollow"]
