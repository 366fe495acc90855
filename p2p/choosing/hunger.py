"""Whether a child has enough to ask for, and when to say that it has not."""

from __future__ import annotations

from dataclasses import dataclass

from .choice import Patience


@dataclass(slots=True)
class Hunger:
    """The time with less to ask for than might be, since it was last judged."""

    patience: Patience
    due: float = float("inf")
    """When to judge."""
    since: float = float("inf")
    """Since when there has been too little."""
    _judged: float = 0.0
    _starved: float = 0.0
    _wait: float = 0.0

    def starve(self, now: float) -> None:
        """Note that there is room and nothing to ask for."""
        if self.since <= now:
            return
        self.since = now
        if self.due == float("inf"):
            self._wait = self.patience.need_first
            self.due = now + self._wait
            self._judged, self._starved = now, 0.0

    def feed(self, now: float) -> None:
        """Note that every request that may be open is open."""
        if self.since <= now:
            self._starved += now - max(self.since, self._judged)
            self.since = float("inf")

    def hurry(self, now: float) -> None:
        """Judge at once: something failed."""
        self.due = min(self.due, now)

    @property
    def wait(self) -> float:
        """Return the seconds since the last judgement but one, at least."""
        return self._wait

    def judge(self, now: float) -> bool:
        """Return whether it went badly; if so it is judged again, after longer each time."""
        if self.since <= now:
            self._starved += now - max(self.since, self._judged)
        badly = self._starved > self.patience.starving * (now - self._judged)
        self._judged, self._starved = now, 0.0
        if badly:
            self._wait = min(self.patience.need_most, 1.5 * max(self._wait, 0.1))
            self.due = now + self._wait
        else:
            self._wait = self.patience.need_first
            self.due = float("inf") if self.since > now else now + self._wait
        return badly
