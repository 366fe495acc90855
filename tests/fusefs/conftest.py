from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.mounting import Mount, mount
from fixtures.small import small


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Return the folder of a small image."""
    folder = tmp_path / "image"
    folder.mkdir()
    small().save(folder)
    return folder


@pytest.fixture
def mounted(tmp_path: Path, image: Path) -> Iterator[Mount]:
    """Mount the small image."""
    with mount(tmp_path, image) as made:
        yield made
