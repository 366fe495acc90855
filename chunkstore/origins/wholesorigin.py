"""WholesOrigin: blobs that are nothing but whole files of another origin."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence

from chunkstore.errors import Missing
from chunkstore.source import Arrived, Origin
from chunkstore.whole import Whole


class WholesOrigin:
    """Reads each blob's files from an origin, which knows them by name."""

    def __init__(
        self,
        origin: Origin,
        wholes: Mapping[str, Sequence[Whole]],
        name: Callable[[Whole], str] = lambda whole: whole.name,
    ) -> None:
        """Take each blob's files in the order of their places; *name* gives what *origin* says."""
        self._origin = origin
        self._name = name
        self._wholes = wholes
        self._starts = {
            blob_id: [whole.stored_offset for whole in of] for blob_id, of in wholes.items()
        }

    async def read(self, blob_id: str, start: int, into: memoryview, arrived: Arrived) -> None:
        """Fill *into*, all of it of one file, calling *arrived* as bytes come."""
        number = bisect_right(self._starts.get(blob_id, []), start) - 1
        if number < 0:
            raise Missing(f"blob {blob_id}: nothing at byte {start}")
        whole = self._wholes[blob_id][number]
        at = start - whole.stored_offset
        if at + len(into) > whole.size:
            raise Missing(f"{whole.name}: nothing at byte {at + len(into)}, it has {whole.size}")
        await self._origin.read(self._name(whole), at, into, arrived)

    def __repr__(self) -> str:
        return f"WholesOrigin({self._origin!r})"
