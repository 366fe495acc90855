"""What a check lets pass, erofs-utils must let pass, too: the kernel is handed nothing else."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.foreign import in_digest_order
from fixtures.gallery import gallery
from fixtures.hostile import mutated
from rafs import BadImage, Bootstrap
from rafs.check import findings

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="there is no fsck.erofs"),
]

_WANTED = 150
"""Changed images that a check lets pass; about half of all do, for most bytes are attributes."""


def test_what_has_no_findings_is_sound_to_fsck(tmp_path: Path) -> None:
    sketch, chance = gallery(), random.Random(3)
    devices = []
    for number, blob in enumerate(sketch.blobs):
        device = tmp_path / f"device{number}"
        device.write_bytes(blob.decoded)
        devices.append(f"--device={device}")
    good = sketch.bootstrap()
    image = tmp_path / "image.boot"
    for data in (good, in_digest_order(good), *itertools.islice(_passed(good, chance), _WANTED)):
        image.write_bytes(data)
        done = subprocess.run(
            ["fsck.erofs", *devices, image], capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _passed(good: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield changed images in which a check finds nothing, without end."""
    while True:
        data = mutated(good, chance)
        if _is_clean(data):
            yield data


def _is_clean(data: bytes) -> bool:
    try:
        return next(findings(Bootstrap.decode(data)), None) is None
    except BadImage:
        return False
