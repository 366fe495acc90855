"""What benchmarks read: trees and files made anew, the same bytes every time."""

from __future__ import annotations

import random
from pathlib import Path

WORDS = ("chunk", "blob", "origin", "peer", "mount", "digest", "lease", "range", "cache", "node")
MIB = 1 << 20


def source_tree(root: Path, files: int = 65_000, folders: int = 1_300) -> int:
    """Make *files* small files (1 KiB to 24 KiB, half text) in *folders*; return their bytes."""
    rng = random.Random(65)
    total = 0
    for number in range(folders):
        folder = root / f"d{number % 26:02d}" / f"package-{number:04d}"
        folder.mkdir(parents=True)
        for name in range(number, files, folders):
            size = int(1024 * 24 ** rng.random())
            data = text(rng, size) if name % 2 else rng.randbytes(size)
            (folder / f"module_{name}.py").write_bytes(data)
            total += len(data)
    return total


def text(rng: random.Random, size: int) -> bytes:
    """Return *size* bytes that compress about as well as source code does."""
    words = " ".join(rng.choices(WORDS, k=size // 12 + 1)) + f" {rng.random()}\n"
    return (words.encode() * (size // len(words) + 1))[:size]


def large_file(path: Path, size: int, seed: int = 3) -> None:
    """Write *size* random bytes to *path*."""
    rng = random.Random(seed)
    with path.open("wb") as out:
        for start in range(0, size, MIB):
            out.write(rng.randbytes(min(MIB, size - start)))


def text_file(path: Path, size: int, seed: int = 3) -> None:
    """Write *size* bytes of text to *path*, no two MiB alike, that shrink to two fifths."""
    rng = random.Random(seed)
    words = " ".join(f"{word}{rng.random():.3f}" for word in rng.choices(WORDS, k=800_000)).encode()
    with path.open("wb") as out:
        for start in range(0, size, MIB):
            place = rng.randrange(len(words) - MIB)
            part = f"{seed} {start}\n".encode() + words[place : place + MIB]
            out.write(part[: min(MIB, size - start)])
