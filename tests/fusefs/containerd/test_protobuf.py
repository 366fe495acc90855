from __future__ import annotations

import string
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.containerd.messages import (
    Commit,
    Descriptor,
    FieldMask,
    Image,
    Kind,
    Listed,
    Mount,
    Mounts,
    Prepare,
    PutImage,
    SnapshotInfo,
    Timestamp,
    UpdateSnapshot,
    Usage,
    WriteAction,
    WriteContent,
)
from fusefs.containerd.protobuf import BadMessage, Message, decode, encode

_TEXT = st.text(max_size=40)
_LABELS = st.dictionaries(_TEXT, _TEXT, max_size=5)
_NUMBERS = st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1)

_INFOS = st.builds(
    SnapshotInfo,
    _TEXT,
    _TEXT,
    st.sampled_from(Kind),
    st.none() | st.builds(Timestamp, _NUMBERS, _NUMBERS),
    st.none() | st.builds(Timestamp, _NUMBERS, _NUMBERS),
    _LABELS,
)
_MOUNTS = st.builds(Mount, _TEXT, _TEXT, _TEXT, st.lists(_TEXT, max_size=4).map(tuple))
_MESSAGES = st.one_of(
    _INFOS,
    st.builds(Prepare, _TEXT, _TEXT, _TEXT, _LABELS),
    st.builds(Commit, _TEXT, _TEXT, _TEXT, _LABELS, _TEXT),
    st.builds(Mounts, st.lists(_MOUNTS, max_size=3).map(tuple)),
    st.builds(Listed, st.lists(_INFOS, max_size=3).map(tuple)),
    st.builds(Usage, _NUMBERS, _NUMBERS),
    st.builds(
        WriteContent,
        st.sampled_from(WriteAction),
        _TEXT,
        _NUMBERS,
        _TEXT,
        _NUMBERS,
        st.binary(max_size=300),
        _LABELS,
    ),
    st.builds(PutImage, st.builds(Image, _TEXT, _LABELS, st.builds(Descriptor, _TEXT, _TEXT))),
)


@given(_MESSAGES)
def test_what_is_written_is_read(message: Message) -> None:
    assert decode(type(message), encode(message)) == message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Usage(150, 0), "089601"),
        (Usage(-1, 2), "08ffffffffffffffffff011002"),
        (FieldMask(("a", "bc")), "0a01610a026263"),
        (Mounts((Mount("bind", "/s", options=("ro",)),)), "0a0e0a0462696e6412022f732202726f"),
        (Prepare(key="k", labels={"a": "b"}), "12016b22060a01611201" + "62"),
        (UpdateSnapshot(info=SnapshotInfo(kind=Kind.ACTIVE)), "12021802"),
        (SnapshotInfo(created_at=Timestamp()), "2200"),
        (SnapshotInfo(), ""),
    ],
)
def test_bytes_are_those_of_other_implementations(message: Message, expected: str) -> None:
    assert encode(message).hex() == expected


def test_unknown_fields_of_every_wire_type_are_passed_over() -> None:
    unknown = bytes.fromhex("7801" + "79" + "00" * 8 + "7a03616263" + "7d" + "00" * 4)
    assert decode(Usage, unknown + encode(Usage(7, 8)) + unknown) == Usage(7, 8)


@pytest.mark.parametrize(
    "data",
    ["08", "0aff", "0a05616263", "08ffffffffffffffffffffff01", "0b", "0a0161", "2a01" + "ff"],
)
def test_what_cannot_be_read_is_refused(data: str) -> None:
    kinds: Mapping[str, type[Message]] = {"0a0161": Usage, "2a01ff": Commit}
    with pytest.raises(BadMessage):
        decode(kinds.get(data, Usage), bytes.fromhex(data))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for kind in (Prepare, SnapshotInfo, WriteContent, Mounts):
        try:
            decode(kind, data)
        except BadMessage:
            continue


@given(st.text(alphabet=string.printable))
def test_times_are_kept_to_the_nanosecond(text: str) -> None:
    moment = 1_790_000_000_123_456_789 + len(text)
    assert Timestamp.of(moment).nanoseconds == moment
