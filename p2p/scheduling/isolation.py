"""Which hosts are set aside: evidence from their children, weighed.

Corrupt: a child that received wrong bytes has asked the parent to verify its own copy. Where that
one found and dropped a bad copy nothing is held against it. The parent is set aside when it served
wrong bytes to a second child as well, so one liar cannot ban it; from the child that complained it
is taken at once. A host whose accusations nobody shares is no longer listened to. Slow: timeouts
that two children report within a minute. Hollow: what two children were not given, and what was not
withdrawn when they had waited for that. Sentence is passed a moment later: where many children
accuse many parents of being slow in that time a network broke, and none of them is set aside; and
who finds all its parents hollow asks for what is not in the blob.

Probation doubles with each time that a host is set aside, and is forgotten after an hour of good
conduct.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROBATION_FIRST, PROBATION_MOST = 30.0, 3600.0
"""Seconds."""
FORGIVEN_AFTER = 3600.0
EVIDENCE_LASTS = 60.0
TIMEOUTS_PER_CHILD = 3
"""Fewer from one child are no evidence: a child's own link may have been down."""
CHILDREN = 2
"""So many have to agree."""
RECORDS = 4096
"""Hosts whose record is kept."""
TRIAL = 1.0
"""Seconds from the second child's report to the sentence."""
BREAKAGE = 3.0
"""Seconds within which many report many when a network breaks."""
BREAKAGE_LEAST, BREAKAGE_SHARE = 4, 0.1
"""Parents accused, and children that accuse, and their share of all hosts: more is a breakage."""
UNSHARED_MOST = 3
"""Parents that a child may accuse alone, or find hollow, before it is not listened to."""


@dataclass(slots=True)
class Sentence:
    """That a host is set aside."""

    until: float
    reason: str
    times: int


@dataclass(slots=True)
class _Evidence:
    corrupt: dict[bytes, float] = field(default_factory=dict)
    """When each child last reported it."""
    hollow: dict[bytes, float] = field(default_factory=dict)
    """The same of claims with nothing behind them."""
    late: dict[bytes, tuple[float, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Isolation:
    """All the evidence and the sentences that are running."""

    aside: dict[bytes, Sentence] = field(default_factory=dict)
    _evidence: dict[bytes, _Evidence] = field(default_factory=dict)
    _record: dict[bytes, tuple[int, float]] = field(default_factory=dict)
    """How often a host was set aside, and until when the last time."""
    _accused: dict[bytes, set[bytes]] = field(default_factory=dict)
    """By child, the parents that it alone accuses of corruption. Children go by their witness."""
    _doubts: dict[bytes, dict[bytes, float]] = field(default_factory=dict)
    """By child, the parents that it found hollow, and when."""
    _trials: dict[bytes, float] = field(default_factory=dict)
    """Who is to be judged as slow or hollow, and when."""
    _late: dict[bytes, float] = field(default_factory=dict)
    """When each parent was last accused of it."""
    _waited: dict[bytes, float] = field(default_factory=dict)
    """When each child last accused somebody of it."""

    def corrupt(self, parent: bytes, child: bytes, now: float) -> Sentence | None:
        """Weigh that a parent served wrong bytes to a child."""
        evidence = self._evidence.setdefault(parent, _Evidence())
        evidence.corrupt[child] = now
        believed = [each for each in evidence.corrupt if not self._liar(each)]
        if len(believed) >= CHILDREN:
            for each in evidence.corrupt:
                self._accused.get(each, set()).discard(parent)
            return self._set_aside(parent, "corrupt", now)
        self._accused.setdefault(child, set()).add(parent)
        while len(self._accused) > RECORDS:
            del self._accused[next(iter(self._accused))]
        return None

    def hollow(self, parent: bytes, child: bytes, now: float) -> None:
        """Weigh that a parent claims what it did not give a child; `judged` says what of it."""
        self._evidence.setdefault(parent, _Evidence()).hollow[child] = now
        found = self._doubts.setdefault(child, {})
        found[parent] = now
        for old in [each for each, when in found.items() if now - when > EVIDENCE_LASTS]:
            del found[old]
        while len(self._doubts) > RECORDS:
            del self._doubts[next(iter(self._doubts))]
        self._try(parent, self._hollow(parent, now), now)

    def late(self, parent: bytes, child: bytes, timeouts: int, now: float) -> None:
        """Weigh that a parent let requests of a child time out; `judged` says what comes of it."""
        evidence = self._evidence.setdefault(parent, _Evidence())
        since, count = evidence.late.get(child, (now, 0))
        if now - since > EVIDENCE_LASTS:
            since, count = now, 0
        evidence.late[child] = since, count + timeouts
        self._late[parent] = self._waited[child] = now
        self._try(parent, self._slow(parent, now), now)

    def judged(self, hosts: int, now: float) -> list[tuple[bytes, Sentence]]:
        """Pass the sentences that are due, among so many *hosts*."""
        ready = [parent for parent, when in self._trials.items() if when <= now]
        if not ready:
            return []
        broken = self._broken(hosts, now)
        passed = []
        for parent in ready:
            del self._trials[parent]
            sentence = None
            if not broken and self._slow(parent, now):
                sentence = self._set_aside(parent, "slow", now)
            elif self._hollow(parent, now):
                sentence = self._set_aside(parent, "hollow", now)
            elif parent in self._evidence:
                self._evidence[parent].late.clear()
            if sentence is not None:
                passed.append((parent, sentence))
        return passed

    def served(self, parent: bytes, child: bytes) -> None:
        """Note that a child got good pieces and nothing else: the parent is not slow to it."""
        evidence = self._evidence.get(parent)
        if evidence is not None:
            evidence.late.pop(child, None)

    def ended(self, now: float) -> list[bytes]:
        """Return the hosts whose probation is over, and let them back in."""
        free = [host for host, sentence in self.aside.items() if sentence.until <= now]
        for host in free:
            del self.aside[host]
        return free

    def due(self) -> float:
        """Return when the next probation is over, or the next sentence due."""
        over = min((each.until for each in self.aside.values()), default=float("inf"))
        return min(over, min(self._trials.values(), default=over))

    def forget(self, host: bytes, witness: bytes) -> None:
        """Drop what is known of a host that is gone; its record, and its name's, stay."""
        if witness == host:
            self._accused.pop(host, None)
        self._evidence.pop(host, None)
        for known in (self._trials, self._late, self._waited):
            known.pop(host, None)

    def _try(self, parent: bytes, grounds: bool, now: float) -> None:
        if grounds and parent not in self.aside:
            self._trials.setdefault(parent, now + TRIAL)

    def _hollow(self, parent: bytes, now: float) -> bool:
        """Whether enough children find a parent hollow, and not all others as well."""
        evidence = self._evidence.get(parent)
        agree = [
            now - when <= EVIDENCE_LASTS and len(self._doubts.get(child, ())) < UNSHARED_MOST
            for child, when in (evidence.hollow.items() if evidence else ())
        ]
        return sum(agree) >= CHILDREN

    def _slow(self, parent: bytes, now: float) -> bool:
        """Whether enough children find a parent slow."""
        evidence = self._evidence.get(parent)
        agree = [
            number >= TIMEOUTS_PER_CHILD and now - begun <= EVIDENCE_LASTS
            for begun, number in (evidence.late.values() if evidence else ())
        ]
        return sum(agree) >= CHILDREN

    def _broken(self, hosts: int, now: float) -> bool:
        """Whether so many accuse so many at once that the network is what failed."""
        most = max(BREAKAGE_LEAST, BREAKAGE_SHARE * hosts)
        for known in (self._late, self._waited):
            for old in [each for each, when in known.items() if now - when > BREAKAGE]:
                del known[old]
        return min(len(self._late), len(self._waited)) >= most

    def _liar(self, child: bytes) -> bool:
        return len(self._accused.get(child, ())) >= UNSHARED_MOST

    def _set_aside(self, host: bytes, reason: str, now: float) -> Sentence | None:
        if host in self.aside:
            return None
        times, last = self._record.get(host, (0, 0.0))
        times = 0 if now - last > FORGIVEN_AFTER else times
        until = now + min(PROBATION_MOST, PROBATION_FIRST * 2**times)
        self._record[host] = times + 1, until
        while len(self._record) > RECORDS:
            del self._record[next(iter(self._record))]
        self._evidence.pop(host, None)
        sentence = self.aside[host] = Sentence(until, reason, times + 1)
        return sentence
