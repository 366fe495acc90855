"""Which pieces are asked for packed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chunkstore.chunk import Codec
from fixtures.blobs import make_blob
from p2p.packing import PAYS, pays

CHUNK = make_blob([8192]).chunks[0]


@pytest.mark.parametrize(
    ("codec", "rate", "asked"),
    [
        (Codec.LZ4, 12e6, True),
        (Codec.ZSTD, 12e6, True),
        (Codec.NONE, 12e6, False),
        (Codec.LZ4, PAYS, False),
        (Codec.LZ4, 0.0, False),
    ],
)
def test_what_shrinks_is_packed_on_slow_links(codec: Codec, rate: float, asked: bool) -> None:
    assert pays(replace(CHUNK, codec=codec), rate) is asked
