"""Side by side: contenders measured in turn, their medians printed as one row of a table.

The machine's speed drifts, so the contenders of a row take turns (A B A B …) and the row tells the
ratios of the medians to that of the last contender. Nothing here judges.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Measure = Callable[[], float]
"""Runs once, returns its figure in the row's unit."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    unit: str
    medians: dict[str, float]
    runs: dict[str, list[float]]

    def __str__(self) -> str:
        *_, beside = self.medians
        measure = self.medians[beside]
        told = []
        for name, value in self.medians.items():
            ratio = f" ({value / measure:.2f}x)" if name != beside and measure else ""
            told.append(f"{name} {value:.4g}{ratio}")
        return f"{self.what:58s} {'   '.join(told)} {self.unit}"


class Table:
    """Rows as they are measured, printed at once and written as JSON in the end."""

    def __init__(self, runs: int, out: Path | None, only: Sequence[str] = ()) -> None:
        """Measure each contender *runs* times; *only* rows in which one of these words is."""
        self.runs = runs
        self._out = out
        self._only = only
        self._seen: list[str] = []
        self._rows: list[Row] = []

    def wants(self, what: str) -> bool:
        """Say whether a row is to be measured."""
        self._seen.append(what)
        return not self._only or any(word in what for word in self._only)

    def row(self, what: str, unit: str, contenders: Mapping[str, Measure]) -> None:
        """Measure *contenders* in turn and add their row, if it is wanted; the first is ours."""
        if not self.wants(what):
            return
        runs: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(self.runs):
            for name, measure in contenders.items():
                runs[name].append(measure())
        row = Row(what, unit, {k: statistics.median(v) for k, v in runs.items()}, runs)
        self._rows.append(row)
        print(row, flush=True)

    def write(self) -> None:
        """Write the rows to the JSON file, if one was named; says it where none was wanted."""
        if self._only and not any(word in what for word in self._only for what in self._seen):
            sys.exit(f"no row has any of {list(self._only)}; there are: {', '.join(self._seen)}")
        if self._out is not None:
            self._out.write_text(json.dumps([asdict(row) for row in self._rows], indent=1))


def seconds(work: Callable[[], object]) -> float:
    """Return how long *work* took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def drop_caches() -> None:
    """Write dirty pages out and empty the page, dentry and inode caches (root only)."""
    subprocess.run(["sync"], check=True)
    Path("/proc/sys/vm/drop_caches").write_text("3")


def naiad(*arguments: str) -> str:
    """Run the command line, return its stdout; raises CalledProcessError, its stderr shown."""
    command = [str(Path(sys.executable).with_name("naiad")), *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def own_memory(pid: int) -> float:
    """Return the resident memory of *pid* that is not mapped from files, in MiB."""
    facts = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return int(facts["RssAnon"].split()[0]) / 1024
