"""The pure rules of the supervisor and its surroundings, as tables."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fusefs.control import Command, Reply, Request, decode_request, encode
from fusefs.errors import MountFailed
from fusefs.mounting.child import describe, is_outside
from fusefs.mounting.kernel import resends
from fusefs.mounting.mountinfo import parse, topmost
from fusefs.mounting.options import Options
from fusefs.mounting.restarts import Death, Restarts
from fusefs.mounting.vitals import Vitals


def _death(at: float, *, killed: bool = False, progress: bool = False) -> Death:
    return Death(at, killed, progress, "was killed")


def test_crashes_are_followed_later_and_later_and_the_fifth_is_the_last() -> None:
    restarts = Restarts()
    delays = [restarts.died(_death(at)) for at in range(5)]
    assert delays == [0.05, 0.1, 0.2, 0.4, None]
    assert restarts.total == 5


def test_crashes_far_apart_never_end_a_mount() -> None:
    restarts = Restarts()
    assert {restarts.died(_death(8.0 * number)) for number in range(50)} <= {0.05, 0.1, 0.2, 0.4}


def test_kills_after_progress_are_followed_at_once_for_ever() -> None:
    restarts = Restarts()
    assert {restarts.died(_death(0.1 * n, killed=True, progress=True)) for n in range(99)} == {0.0}


@pytest.mark.parametrize(
    ("killed", "progress"),
    [(True, False), (False, True)],
    ids=["killed before any progress", "crashed beside others' progress"],
)
def test_deaths_that_a_request_may_have_caused_count(killed: bool, progress: bool) -> None:
    restarts = Restarts()
    deaths = [_death(at, killed=killed, progress=progress) for at in range(5)]
    assert [restarts.died(death) for death in deaths][-1] is None


@pytest.mark.parametrize(
    ("code", "outside", "words"),
    [
        (0, False, "ended with code 0"),
        (1, False, "ended with code 1"),
        (-9, True, "was killed by SIGKILL"),
        (-15, True, "was killed by SIGTERM"),
        (-11, False, "was killed by SIGSEGV"),
        (-7, False, "was killed by SIGBUS"),
    ],
)
def test_exit_codes_tell_crashes_from_kills(code: int, outside: bool, words: str) -> None:
    assert is_outside(code) is outside
    assert describe(code) == words


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        ("6.9.0", True),
        ("6.18.44-fc", True),
        ("7.0", True),
        ("6.8.12-generic", False),
        ("5.15.0", False),
        ("strange", False),
    ],
)
def test_kernel_release_says_whether_requests_come_again(release: str, expected: bool) -> None:
    assert resends(release) is expected


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ((), 1 | 2 | 4),
        (("suid,dev",), 1),
        (("noexec", "nodev"), 1 | 2 | 4 | 8),
        (("suid", "nosuid"), 1 | 2 | 4),
        (("ro,defaults,noatime",), 1 | 2 | 4),
    ],
)
def test_options_become_mount_flags(words: tuple[str, ...], flags: int) -> None:
    assert Options.parse(words).flags == flags


@pytest.mark.parametrize("word", ["rw", "uid=3", "max_read=4096", "allow_root"])
def test_options_that_cannot_be_kept_are_refused(word: str) -> None:
    with pytest.raises(MountFailed, match="is not one of"):
        Options.parse([word])


_TABLE = rb"""25 1 254:0 / / rw,relatime - ext4 /dev/vda rw
97 25 0:51 / /mnt/a\040b ro,nosuid shared:5 - fuse.naiad http://host/a\040b ro,user_id=0
98 97 0:52 / /mnt/a\040b ro - tmpfs none rw
"""


def test_mountinfo_names_come_unescaped_and_the_last_lies_on_top() -> None:
    first, second, third = parse(_TABLE)
    assert second.path == third.path == Path("/mnt/a b")
    assert (second.kind, second.source, second.device) == ("fuse.naiad", "http://host/a b", (0, 51))
    assert topmost(Path("/mnt/a b"), _TABLE) == third
    assert topmost(Path("/"), _TABLE) == first
    assert topmost(Path("/mnt"), _TABLE) is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"command":"dance"}',
        b'{"command":1}',
        b"[]",
        b'{"command":"\xfa"}',
        b'{"command":"warm","argument":' + b"[" * 100_000,
    ],
)
def test_callers_that_make_no_sense_are_told_so(line: bytes) -> None:
    answer = decode_request(line)
    assert isinstance(answer, Reply)
    assert answer.error


def test_request_and_reply_are_a_line_each() -> None:
    line = encode(Request(Command.STATUS))
    assert line == b'{"command":"status","argument":null}\n'
    assert decode_request(line) == Request(Command.STATUS)
    assert msgspec.json.decode(encode(Reply({"size": 1}))) == {"status": {"size": 1}}


def test_legacy_outlives_the_daemon_that_left_it() -> None:
    vitals = Vitals()
    assert vitals.legacy == b""
    vitals.legacy = b"sha256:abc"
    vitals.begin(9.0)
    assert vitals.legacy == b"sha256:abc"
    with pytest.raises(ValueError, match="bytes"):
        vitals.legacy = bytes(5000)


def test_vitals_begin_anew_with_each_daemon() -> None:
    vitals = Vitals()
    vitals.words[0] += 3
    vitals.live(7.5)
    assert (vitals.answered, vitals.beat) == (3, 7.5)
    vitals.begin(9.0)
    assert (vitals.answered, vitals.beat) == (0, 9.0)
