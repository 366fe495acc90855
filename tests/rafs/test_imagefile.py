"""What vouches for a bootstrap, where it is nonsense."""

from __future__ import annotations

import pytest

from rafs.errors import BadImage, BadSource
from rafs.imagefile import ImageFile
from rafs.sources.documents import decode_index

NONSENSE = [
    b"",
    b"\xfa",
    b"null",
    b"{",
    b'{"version": "\xfa"}',
    b'{"bootstrap": {"digest": "sh\xfa"}}',
    b'{"a": ' + b"[" * 100_000,
]


@pytest.mark.parametrize("data", NONSENSE)
def test_a_description_that_cannot_be_read_is_a_bad_image(data: bytes) -> None:
    with pytest.raises(BadImage, match=r"image\.json"):
        ImageFile.decode(data)


@pytest.mark.parametrize("data", NONSENSE)
def test_an_index_that_cannot_be_read_is_a_bad_source(data: bytes) -> None:
    with pytest.raises(BadSource):
        decode_index(data, "the index")
