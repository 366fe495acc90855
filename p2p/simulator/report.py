"""What a simulation showed."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one run; times are virtual seconds, from each host's own arrival where said."""

    hosts: int
    living: int
    """Of them, at the end."""
    finished: int
    bound: float
    first: float
    median: float
    p90: float
    p99: float
    last: float
    """From their own arrival."""
    ended: float
    """When the last had all, from the beginning."""
    origin: float
    """Bytes read from the origin per byte of the file."""
    source: float
    """Bytes that seeds and the origin sent to hosts, per byte."""
    wasted: float
    """Bytes that came twice or were wrong, per byte that was needed."""
    crossed: dict[str, float]
    """By site, bytes that came in over its link, per byte of the file."""
    uplinks: float
    """Share of all uplinks that was used until the end."""
    told: int
    """Messages to the scheduler."""
    said: int
    """Messages of the scheduler."""
    aside: list[tuple[str, str]]
    """Who was set aside, and why."""
    events: int
    """Of the simulation."""

    @property
    def told_per_second(self) -> float:
        """Messages to the scheduler per virtual second."""
        return self.told / self.ended if self.ended else 0.0

    def json(self) -> str:
        """Return it for a program."""
        return msgspec.json.encode(self).decode()

    def text(self) -> str:
        """Return it for people."""
        rows = [
            ("hosts", f"{self.finished} of {self.hosts} finished"),
            ("bound", f"{self.bound:.3f} s"),
            *(
                (name, f"{value:.3f} s   {self.bound / value:.1%} of the bound" if value else "-")
                for name, value in (
                    ("first", self.first),
                    ("median", self.median),
                    ("p90", self.p90),
                    ("p99", self.p99),
                    ("last", self.last),
                )
            ),
            ("ended", f"{self.ended:.3f} s"),
            ("origin", f"{self.origin:.4f} bytes per byte"),
            ("source", f"{self.source:.4f} bytes per byte"),
            ("wasted", f"{self.wasted:.4f} bytes per byte needed"),
            *(
                ("crossed", f"{share:.4f} bytes per byte into {site}")
                for site, share in self.crossed.items()
            ),
            ("uplinks", f"{self.uplinks:.1%} used"),
            ("scheduler", f"{self.told} in, {self.said} out, {self.told_per_second:.0f} in per s"),
            ("set aside", ", ".join(f"{host} ({why})" for host, why in self.aside) or "nobody"),
        ]
        return "\n".join(f"{name:<10} {value}" for name, value in rows)
