"""What is found sound in bulk is what a look at each inode finds nothing wrong with."""

from __future__ import annotations

import itertools
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chunkstore import Algorithm
from fixtures.foreign import in_digest_order
from fixtures.gallery import gallery
from fixtures.sketch import Sketch
from rafs import BadImage, Bootstrap
from rafs.check import searched
from rafs.tree import Node
from rafs.v6 import V6
from rafs.v6_bulk import is_sound


def _folders() -> Sketch:
    """Return plain files in a few folders, one with two names."""
    sketch = Sketch()
    for folder in range(3):
        node = Node(stat.S_IFDIR | 0o755)
        node.children = {
            b"file-%d" % number: sketch.file(b"%d of %d" % (number, folder) * 50)
            for number in range(8)
        }
        sketch.root.children[b"folder-%d" % folder] = node
        sketch.root.children[b"one-%d" % folder] = node.children[b"file-3"]
    return sketch


_GALLERY, _FOLDERS = gallery(), _folders()
_IMAGES = [
    _FOLDERS.bootstrap(prefetch=[_FOLDERS.root, _FOLDERS.root.children[b"one-1"]]),
    _GALLERY.bootstrap(prefetch=[_GALLERY.root]),
    gallery(Algorithm.SHA256).bootstrap(),
    in_digest_order(_FOLDERS.bootstrap()),
    Sketch().bootstrap(),
]


@pytest.mark.parametrize("image", _IMAGES)
def test_good_images_are_sound_in_bulk(image: bytes) -> None:
    assert is_sound(V6(image))


@settings(max_examples=1500, deadline=None)
@given(
    st.sampled_from(_IMAGES[:2]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 7)), min_size=1, max_size=2),
)
def test_flipped_bits_that_are_sound_in_bulk_are_sound(
    good: bytes, flips: list[tuple[int, int]]
) -> None:
    places = _telling(good)
    data = bytearray(good)
    for place, bit in flips:
        data[places[place % len(places)]] ^= 1 << bit
    try:
        image = V6(data)
    except BadImage:
        return
    if is_sound(image):
        assert list(itertools.islice(searched(Bootstrap(image)), 1)) == []


def _telling(data: bytes) -> list[int]:
    """Return the places of *data* that are not far from one that is not zero."""
    step = 64
    blocks = [at for at in range(0, len(data), step) if any(data[at : at + step])]
    return [at + more for at in blocks for more in range(min(step, len(data) - at))]
