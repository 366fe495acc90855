"""Plan: the layers of an image, by the digests that prove them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from chunkstore import Corrupt, Digest
from chunkstore.origins.manifest import Descriptor
from chunkstore.origins.reference import Reference


@dataclass(frozen=True, slots=True)
class Plan:
    """What an image is made of, as its manifest and config say, each read by its digest."""

    reference: Reference
    manifest: Digest
    layers: Sequence[Descriptor]
    diff_ids: Sequence[str]
    chains: Mapping[str, int] = field(init=False)
    """Index of a layer by its chain id."""

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.diff_ids):
            raise Corrupt(
                f"{self.reference}: {len(self.layers)} layers, and the config has "
                f"{len(self.diff_ids)} diff ids"
            )
        found = {chain: number for number, chain in enumerate(chain_ids(self.diff_ids))}
        object.__setattr__(self, "chains", found)

    def chain(self, index: int) -> str:
        """Return the chain id of the layers up to *index*."""
        return next(chain for chain, number in self.chains.items() if number == index)


def chain_ids(diff_ids: Sequence[str]) -> list[str]:
    """Return the chain id of each layer (OCI image-spec, "Layer ChainID")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        if chains:
            text = f"{chains[-1]} {diff_id}"
            chains.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}")
        else:
            chains.append(diff_id)
    return chains
