"""Loaders, unmodified, as programs of their own: what they take to load a model, and what they saw.

    python -m tests.bench.loaders KIND PATH...

Prints a line of JSON: seconds to the first tensor and to the last one, the seconds of the tensor
that took longest, and a digest of all, which is taken afterwards.
"""

from __future__ import annotations

import importlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

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
    """Load tensor by tensor, in the order of `keys`: of names, as files are written, too."""
    for path in paths:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                yield name, _timed(partial(file.get_tensor, name))


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
        return [(name, _timed(partial(file.get_tensor, name))) for name in names]


_waits: list[float] = []
"""Seconds that each tensor took."""


def _timed(load: Callable[[], object]) -> object:
    start = time.perf_counter()
    found = load()
    _waits.append(time.perf_counter() - start)
    return found


def shuffled(paths: Sequence[Path]) -> Loaded:
    """Load with 16 threads in no order."""
    return threads(paths, 16, shuffled=True)


def read(paths: Sequence[Path]) -> Loaded:
    """Read the file into memory."""
    for path in paths:
        data = np.empty(path.stat().st_size, np.uint8)  # not cleared, which takes half a second
        with path.open("rb", buffering=0) as file, data.data as view:
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
        yield from _used(torch.load(path, mmap=True, weights_only=True))


def torch_whole(paths: Sequence[Path]) -> Loaded:
    """Load all of a safetensors file with one call into PyTorch, and use every tensor."""
    from safetensors.torch import load_file as load_tensors

    for path in paths:
        yield from _used(load_tensors(path))


def transformers(paths: Sequence[Path]) -> Loaded:
    """Load a model as programs do, from the folder that its files are in."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(paths[0].parent, local_files_only=True)
    yield from _used(model.state_dict())


def _used(state: Mapping[str, Any]) -> Loaded:
    """Yield copies of tensors; those of a mapped file are not read before they are used."""
    import torch

    for name, tensor in state.items():
        yield name, tensor.clone().contiguous().view(-1).view(torch.uint8).numpy()


KINDS: dict[str, Callable[[Sequence[Path]], Loaded]] = {
    "in order": in_order,
    "load_file": whole,
    "8 threads": threads,
    "16 threads shuffled": shuffled,
    "read": read,
    "random rows": rows,
    "gguf": gguf,
    "torch.load(mmap)": torch_mmap,
    "torch load_file": torch_whole,
    "transformers": transformers,
}

NEEDS = {
    "gguf": "gguf",
    "torch.load(mmap)": "torch",
    "torch load_file": "safetensors.torch",
    "transformers": "transformers.models.bert.modeling_bert",
}
"""What is imported before the clock starts."""


def main() -> None:
    """Load as the command line asks."""
    kind, *names = sys.argv[1:]
    paths = [Path(name) for name in names]
    if kind in NEEDS:
        importlib.import_module(NEEDS[kind])
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
    longest = max(_waits, default=total)
    told = {"first": first, "total": total, "longest": longest, "digest": digest.hexdigest()}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
