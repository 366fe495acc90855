from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.commands.fetch import output_file
from fixtures.command import Naiad
from fixtures.rangeserver import RangeServer

FILE = random.Random(3).randbytes(24 << 20)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "file").write_bytes(FILE)
    with RangeServer(tmp_path / "srv") as running:
        yield running


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[RangeServer]:
    """Serve the file slowly: what a slow reader was sent would wait in the kernel's buffers."""
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv" / "file").write_bytes(FILE)
    with RangeServer(tmp_path / "srv", rate=12e6) as running:
        yield running


def test_a_file_is_fetched_and_told_of(naiad: Naiad, server: RangeServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    digest = f"sha256:{hashlib.sha256(FILE).hexdigest()}"
    url = f"{server.url}/file?secret=1"
    told = naiad.json("fetch", url, "-o", out, "--digest", digest, "--json")
    assert isinstance(told, dict)
    assert out.read_bytes() == FILE
    assert told["bytes"] == {"cache": 0, "peer": 0, "origin": len(FILE)}
    assert (told["size"], told["url"]) == (len(FILE), f"{server.url}/file")
    again = naiad.json("fetch", url, "-o", out, "--json")
    assert isinstance(again, dict)
    assert again["bytes"] == {"cache": len(FILE), "peer": 0, "origin": 0}


def test_signed_urls_of_one_file_are_one(naiad: Naiad, server: RangeServer) -> None:
    for signature in ("abc", "def"):
        url = f"{server.url}/file?sig={signature}&date={signature}"
        naiad.run("fetch", url, "-o", "/dev/null", "--ignore-query", "sig,date")
    assert server.statistics.sent < len(FILE) + 100


def test_a_fetch_that_is_killed_goes_on_where_it_was(
    naiad: Naiad, slow: RangeServer, tmp_path: Path
) -> None:
    words = "fetch", f"{slow.url}/file", "-o", str(tmp_path / "out")
    command = [sys.executable, "-m", "cli", *words]
    running = subprocess.Popen(command, env=naiad.environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while slow.statistics.sent < 12 << 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out").exists()
    told = naiad.json(*words, "--json")
    assert isinstance(told, dict)
    assert (tmp_path / "out").read_bytes() == FILE
    assert told["bytes"]["cache"] >= 1 << 20
    assert told["bytes"]["cache"] + told["bytes"]["origin"] == len(FILE)
    left = {each.name for each in tmp_path.iterdir()}
    assert left == {"srv", "out", "cache"}


def test_standard_output_takes_the_file(naiad: Naiad, server: RangeServer) -> None:
    command = [sys.executable, "-m", "cli", "fetch", f"{server.url}/file", "-o", "-"]
    done = subprocess.run(command, env=naiad.environment, capture_output=True, check=True)
    assert done.stdout == FILE


WITHOUT_NAMES = [
    ("ftp://user:s3cret@a/b", "ftp: what is fetched is http(s)"),
    ("http://127.0.0.1:1/", "the url ends in no name: give -o FILE"),
    ("http://127.0.0.1:1", "the url ends in no name: give -o FILE"),
]


@pytest.mark.parametrize(("url", "said"), WITHOUT_NAMES)
def test_a_url_that_cannot_be_fetched_is_misuse(naiad: Naiad, url: str, said: str) -> None:
    done = naiad.run("fetch", url, ok=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "s3cret" not in done.stderr


NAMES = [
    ("https://a.example/x/weights%20a.bin?sig=1", "weights a.bin"),
    (f"a.example/team/app@sha256:{'ab' * 32}", "app-abababababab"),
]


@pytest.mark.parametrize(("url", "name"), NAMES)
def test_a_file_without_a_name_is_called_as_its_url_ends(url: str, name: str) -> None:
    assert output_file(url, None) == Path(name)


MISUSE = [
    (["-o", "/"], "name a file, not a directory"),
    (["--header", "no header s3cret"], "not a header such as"),
    (["--header", "Range: bytes=0-1"], "Range is set by naiad itself"),
    (["--digest", "md5:1"], "is no digest such as"),
    (["--rate-limit", "fast"], "is no size such as"),
]


@pytest.mark.parametrize(("words", "said"), MISUSE)
def test_misuse_is_told(naiad: Naiad, words: list[str], said: str) -> None:
    done = naiad.run("fetch", "http://127.0.0.1:1/f", *words, ok=False)
    assert done.returncode == 2
    assert said in done.stderr
    assert "s3cret" not in done.stderr


def test_failures_are_one_line(naiad: Naiad, server: RangeServer, tmp_path: Path) -> None:
    for url, said in ((f"{server.url}/none", "not found"), ("a/b@sha256:1", "malformed")):
        done = naiad.run("fetch", url, "-o", tmp_path / "out", ok=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert said in done.stderr
    done = naiad.run("fetch", f"{server.url}/file", "-o", tmp_path / "no" / "out", ok=False)
    assert "No such file or directory" in done.stderr


def test_the_cache_removes_a_file_with_its_digests(
    naiad: Naiad, server: RangeServer, tmp_path: Path
) -> None:
    naiad.run("fetch", f"{server.url}/file", "-o", tmp_path / "out")
    naiad.run("cache", "verify")
    naiad.run("cache", "gc")
    assert not list((naiad.cache / "blobs").iterdir())
