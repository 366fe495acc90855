from __future__ import annotations

import pytest
from click.testing import CliRunner

from cli.main import main
from cli.options import parse_duration, parse_size

SIZES = [
    ("0", 0),
    ("512", 512),
    ("4k", 4096),
    ("1MiB", 1 << 20),
    ("50GiB", 50 << 30),
    ("50G", 50 << 30),
    ("1.5 GiB", 3 << 29),
    ("50GB", 50_000_000_000),
    ("2tib", 2 << 40),
    ("100mbit", 12_500_000),
    ("100mbit/s", 12_500_000),
]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_a_size_is_read_in_binary_and_decimal_units(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 parsec", "1e9", "1_000", "0x10", "٣"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_size(text)


DURATIONS = [("30", 30.0), ("30s", 30.0), ("500ms", 0.5), ("2m", 120.0), ("1.5h", 5400.0)]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_a_duration_is_read_in_common_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 day", "inf", "nan"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_duration(text)


@pytest.mark.parametrize(
    "words",
    [
        ["mount", "image", ""],
        ["mount", "", "/mnt"],
        ["umount", ""],
        ["build", "source", ""],
        ["build", "", "target"],
        ["unpack", "image", ""],
        ["unpack", "", "out"],
    ],
)
def test_an_empty_word_is_misuse_and_not_the_working_directory(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "it is empty" in done.output
