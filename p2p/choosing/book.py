"""A child's open requests, by number, by host and by piece."""

from __future__ import annotations

from collections.abc import Iterator

from .choice import READER
from .link import Link, Request


class Book:
    """Which pieces are being got, from whom."""

    def __init__(self) -> None:
        self.open: dict[int, Request] = {}
        self.by_piece: dict[int, list[Request]] = {}
        self.reading: dict[int, None] = {}
        """Pieces that are being read from the origin."""
        self.asked = 0
        """Pieces with an open request, or being read."""
        self.alarm = float("inf")
        """No request is late or stalls before: it may be too early, never too late."""
        self._number = 0

    def add(self, link: Link, piece: int, priority: int, sent: float) -> Request:
        """Open a request; the caller sets its deadlines with `watch`."""
        self._number += 1
        request = Request(self._number, link, piece, priority, sent)
        self.open[request.number] = link.open[request.number] = request
        others = self.by_piece.get(piece)
        if others is None:
            self.by_piece[piece] = [request]
        else:
            others.append(request)
        self.asked |= 1 << piece
        return request

    def watch(self, request: Request, late: float, stalled: float) -> None:
        """Set when a request is late and when it will not be answered any more."""
        request.late, request.stalled = late, stalled
        if stalled < self.alarm:
            self.alarm = stalled
        if request.priority == READER and late < self.alarm:
            self.alarm = late

    def hurry(self, now: float) -> None:
        """Set the alarm for whatever is late next, because everything has been asked for."""
        for request in self.open.values():
            if not request.doubled and now < request.late < self.alarm:
                self.alarm = request.late

    def read(self, piece: int) -> None:
        """Note that a piece is being read from the origin."""
        self.reading[piece] = None
        self.asked |= 1 << piece

    def close(self, number: int) -> Request | None:
        """Take a request out; None: it was not open."""
        request = self.open.pop(number, None)
        if request is None:
            return None
        del request.link.open[number]
        others = self.by_piece[request.piece]
        if len(others) > 1:
            others.remove(request)
        else:
            del self.by_piece[request.piece]
            self.release(request.piece)
        return request

    def release(self, piece: int) -> None:
        """Let a piece be asked for again, unless it is being got."""
        if piece not in self.by_piece and piece not in self.reading:
            self.asked &= ~(1 << piece)

    def of(self, piece: int) -> list[Request]:
        """Return the open requests of a piece."""
        return list(self.by_piece.get(piece, ()))

    def due(self, now: float) -> Iterator[Request]:
        """Yield what may be late or stalled, and set the alarm anew when done."""
        if now < self.alarm:
            return
        self.alarm = float("inf")
        yield from list(self.open.values())
        for request in self.open.values():
            self.alarm = min(self.alarm, request.stalled)
            if request.priority == READER and now < request.late < self.alarm:
                self.alarm = request.late
