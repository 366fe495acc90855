from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from chunkstore import Digest, Malformed
from chunkstore.http import Url
from chunkstore.origins.url import State
from p2p.files.task import MOST_PIECES, MOST_SIZE, PIECE_SIZE, Digests, FileTask, Version, version

TASK = bytes(range(32))
SIG = frozenset({"sig"})


def task(url: str = "http://a/f?x=1&sig=2", **told: object) -> FileTask:
    return FileTask.of(Url.parse(url), **told)  # type: ignore[arg-type]


SAME = [
    (task(), task()),
    (task("http://a:80/f"), task("http://a/f")),
    (task("http://A/f"), task("http://a/f")),
    (task("http://a/f#part"), task("http://a/f")),
    (task(ignored=SIG), task("http://a/f?x=1&sig=9", ignored=SIG)),
    (task("http://a/f?sig=1", ignored=SIG), task("http://a/f", ignored=SIG)),
    (task("http://a/f?%73ig=1", ignored=SIG), task("http://a/f", ignored=SIG)),
    (task(headers=(("A", "1"), ("B", "2"))), task(headers=(("b", "2"), ("a", "1")))),
    (task(headers=(("A", "1"),), shared=True), task(headers=(("A", "2"),), shared=True)),
    (task("http://u:p@a/f"), task("http://a/f", headers=(("Authorization", "Basic dTpw"),))),
]

OTHER = [
    (task(), task("http://a/f?x=2&sig=2")),
    (task(), task("https://a/f?x=1&sig=2")),
    (task(), task(tag="blue")),
    (task(), task(headers=(("Authorization", "Bearer a"),))),
    (task(headers=(("A", "1"),)), task(headers=(("A", "2"),))),
    (task("http://u:p@a/f"), task("http://a/f")),
    (task(headers=(("A", "12"), ("B", "3"))), task(headers=(("A", "1"), ("B", "23")))),
    (task("http://a/f", tag="x"), task("http://a/fx")),
    (task("http://a/f?sig=1", ignored=SIG), task("http://a/f")),
    (task(headers=(("A", "1"),), shared=True), task()),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_requests_for_the_same_file_are_one_task(one: FileTask, other: FileTask) -> None:
    assert one.id == other.id


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_requests_that_may_mean_another_file_are_not(one: FileTask, other: FileTask) -> None:
    assert one.id != other.id


def test_what_an_origin_has_makes_versions_that_never_meet() -> None:
    states = [State(7, '"a"'), State(8, '"a"'), State(7, '"b"')]
    found = {version(TASK, state, "n").blob_id for state in states}
    assert len(found | {Version(bytes(32), 7, '"a"').blob_id}) == 4


IN_ORDER = [
    (State(7, '"a"', ranged=False), True),
    (State(None, '"a"'), True),
    (State(7, ""), True),
    (State(7, '"a"'), False),
    (State(7, 'W/"a"'), False),
]


@pytest.mark.parametrize(("state", "in_order"), IN_ORDER)
def test_a_file_whose_parts_cannot_be_told_apart_is_read_in_order(
    state: State, in_order: bool
) -> None:
    assert version(TASK, state, "n").in_order is in_order


def test_readings_without_a_validator_are_all_different() -> None:
    assert version(TASK, State(7), "a").blob_id != version(TASK, State(7), "b").blob_id
    tagged = State(7, '"t"', ranged=False)
    assert version(TASK, tagged, "a").blob_id == version(TASK, tagged, "b").blob_id


@given(st.integers(0, 50 * PIECE_SIZE))
def test_pieces_cover_a_file_without_gap(length: int) -> None:
    found = Version(TASK, length, '"a"')
    digest = Digest.of(b"")
    at = 0
    for piece in range(found.count):
        chunk = found.chunk(piece, digest)
        assert (chunk.index, chunk.offset) == (piece, at)
        assert 0 < chunk.size <= PIECE_SIZE
        at = chunk.stop
    assert at == length


def test_a_file_of_more_than_16_tib_is_refused() -> None:
    Version(TASK, MOST_SIZE, "").blob()
    with pytest.raises(Malformed, match="16 TiB"):
        Version(TASK, MOST_SIZE + 1, "")


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.lists(st.integers(0, 9), max_size=20)), max_size=20)
)
def test_the_first_digest_that_is_told_stays(told: list[tuple[int, list[int]]]) -> None:
    digests, model = Digests(), dict[int, bytes]()
    for first, values in told:
        raws = [bytes([value]) * 32 for value in values]
        fresh = digests.add(first, raws)
        assert fresh == [
            piece for piece, raw in enumerate(raws, first) if any(raw) and piece not in model
        ]
        for piece, raw in enumerate(raws, first):
            if any(raw):
                model.setdefault(piece, raw)
    assert digests.known == len(model)
    assert {
        first + at: raw for first, run in digests.runs(7) for at, raw in enumerate(run)
    } == model
    assert all(len(run) <= 7 for _, run in digests.runs(7))


def test_a_digest_far_away_costs_a_page() -> None:
    digests = Digests()
    assert digests.add(MOST_PIECES - 1, [b"x" * 32]) == [MOST_PIECES - 1]
    assert list(digests.runs(10)) == [(MOST_PIECES - 1, [b"x" * 32])]
    digests.forget([MOST_PIECES - 1])
    assert digests.known == 0
