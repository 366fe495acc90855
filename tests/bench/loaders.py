"""Loaders, unmodified, as programs of their own: what they take to load a model, and what they saw.

    python -m tests.bench.loaders KIND PATH...

Prints a line of JSON: seconds to the first tensor and to the last one, and a digest of all, which
is taken afterwards.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blake3
import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

ROWS, ROW = 12_000, 16 << 10
"""Random rows of an array, and their bytes: they touch nearly every chunk."""

STEP = 1 << 20

Loaded = Iterator[tuple[str, object]]
"""Names and arrays, as they are there."""


def in_order(paths: Sequence[Path]) -> Loaded:
    """Load tensor by tensor, in the order that the file has."""
    for path in paths:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                yield name, file.get_tensor(name)


def whole(paths: Sequence[Path]) -> Loaded:
    """Load all tensors with one call."""
    for path in paths:
        yield from load_file(path).items()


def threads(paths: Sequence[Path], count: int = 8, *, shuffled: bool = False) -> Loaded:
    """Load with several threads, each with tensors all over the file."""
    for path in paths:
        with safe_open(path, framework="np") as file:
            names = list(file.keys())
        if shuffled:
            random.Random(5).shuffle(names)
        parts = [names[at::count] for at in range(count)]
        with ThreadPoolExecutor(count) as pool:
            for loaded in pool.map(lambda part, path=path: _part(path, part), parts):
                yield from loaded


def _part(path: Path, names: Sequence[str]) -> list[tuple[str, object]]:
    with safe_open(path, framework="np") as file:
        return [(name, file.get_tensor(name)) for name in names]


def shuffled(paths: Sequence[Path]) -> Loaded:
    """Load with 16 threads in no order."""
    return threads(paths, 16, shuffled=True)


def read(paths: Sequence[Path]) -> Loaded:
    """Read the file into memory."""
    for path in paths:
        data = bytearray(path.stat().st_size)
        with path.open("rb", buffering=0) as file, memoryview(data) as view:
            at = 0
            while count := file.readinto(view[at : at + STEP]):
                at += count
                if at == count:
                    yield "first", data[:count]
        yield path.name, data


def rows(paths: Sequence[Path]) -> Loaded:
    """Copy random rows of a mapped array."""
    for path in paths:
        count = path.stat().st_size // ROW
        array = np.memmap(path, dtype=np.uint8, mode="r", shape=(count, ROW))
        draw = random.Random(7)
        for number in range(ROWS):
            yield str(number), np.array(array[draw.randrange(count)])


def gguf(paths: Sequence[Path]) -> Loaded:
    """Load with the reader of the gguf package."""
    from gguf import GGUFReader  # it need not be there for the others

    for path in paths:
        for tensor in GGUFReader(path).tensors:
            yield tensor.name, np.array(tensor.data)


def torch_mmap(paths: Sequence[Path]) -> Loaded:
    """Load what ``torch.save`` wrote, mapped, and use every tensor."""
    import torch  # it need not be there for the others

    for path in paths:
        state = torch.load(path, mmap=True, weights_only=True)
        for name, tensor in state.items():
            yield name, tensor.clone().view(torch.uint8).numpy()


KINDS: dict[str, Callable[[Sequence[Path]], Loaded]] = {
    "in order": in_order,
    "load_file": whole,
    "8 threads": threads,
    "16 threads shuffled": shuffled,
    "read": read,
    "random rows": rows,
    "gguf": gguf,
    "torch.load(mmap)": torch_mmap,
}


def main() -> None:
    """Load as the command line asks."""
    kind, *names = sys.argv[1:]
    paths = [Path(name) for name in names]
    start = time.perf_counter()
    first = 0.0
    loaded = {}
    for name, tensor in KINDS[kind](paths):
        first = first or time.perf_counter() - start
        loaded[name] = tensor
    total = time.perf_counter() - start
    digest = blake3.blake3()
    for name in sorted(loaded):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(loaded[name]).view(np.uint8).data)
    print(json.dumps({"first": first, "total": total, "digest": digest.hexdigest()}))


if __name__ == "__main__":
    main()
