"""``--metrics HOST:PORT``: figures for Prometheus, over HTTP in the service's own event loop.

What is told is read when it is asked for; nothing is counted twice. Loaded by name: a mount that
tells nobody needs no client of Prometheus.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import h11
import trio
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from p2p.net import Tcp
from p2p.scheduling.scheduler import Scheduler
from p2p.security import Security
from p2p.swarm import Swarm

logger = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds that a caller gets for its question, and for taking the answer."""

_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number at one moment; labels are values of one name."""

    name: str
    """With its unit; a counter's without ``_total``."""
    help: str
    value: float
    is_counter: bool = False
    label: tuple[str, str] | None = None


Figures = Callable[[], Iterator[Figure]]


class _Collector:
    """Figures as Prometheus' library wants them."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for figure in self._figures():
            family = families.get(figure.name)
            if family is None:
                kind = CounterMetricFamily if figure.is_counter else GaugeMetricFamily
                labels = [figure.label[0]] if figure.label else []
                family = families[figure.name] = kind(figure.name, figure.help, labels=labels)
            family.add_metric([figure.label[1]] if figure.label else [], figure.value)
        yield from families.values()


@asynccontextmanager
async def metrics(
    address: str, security: Security, swarm: Swarm | None, scheduler: Scheduler | None
) -> AsyncIterator[None]:
    """Answer at *address* while the context lasts."""

    def figures() -> Iterator[Figure]:
        if swarm is not None:
            yield from swarm_figures(swarm)
        if scheduler is not None:
            yield from scheduler_figures(scheduler)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    async with trio.open_nursery() as nursery:
        # Figures tell no secrets; TLS for them is the business of who scrapes over a network.
        plain = Tcp(Security(insecure=security.insecure or security.identity is not None))
        actual = await nursery.start(plain.listen, address, partial(_answer, registry))
        logger.info("metrics at http://%s/metrics", actual)
        yield
        nursery.cancel_scope.cancel()


async def _answer(registry: CollectorRegistry, stream: trio.abc.Stream) -> None:
    """Answer one question, and hang up."""
    talk = h11.Connection(h11.SERVER)
    async with stream:
        with trio.move_on_after(_PATIENCE):
            try:
                asked = await _asked(talk, stream)
                found = asked is not None and asked.target.partition(b"?")[0] == b"/metrics"
                body = generate_latest(registry) if found else b"there is /metrics\n"
                lines = [("Content-Type", _TYPE), ("Content-Length", str(len(body)))]
                head = h11.Response(
                    status_code=200 if found else 404, headers=[*lines, ("Connection", "close")]
                )
                for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                    await stream.send_all(talk.send(event) or b"")
            except (h11.ProtocolError, trio.BrokenResourceError) as exc:
                logger.debug("metrics not told reason=%s", exc)


async def _asked(talk: h11.Connection, stream: trio.abc.Stream) -> h11.Request | None:
    while True:
        event = talk.next_event()
        if event is h11.NEED_DATA:
            talk.receive_data(bytes(await stream.receive_some(1 << 14)))
        else:
            return event if isinstance(event, h11.Request) else None


def swarm_figures(swarm: Swarm) -> Iterator[Figure]:
    """Tell of a host: a mount, a peer or a seed."""
    tally, slots = swarm.server.tally, swarm.server.slots
    pieces = {"sent": tally.pieces, "absent": tally.absent, "busy": tally.busy}
    for result, count in (pieces | {"failed": tally.failed}).items():
        label = ("result", result)
        yield Figure("naiad_upload_pieces", "Requests of children.", count, True, label)
    yield Figure("naiad_upload_bytes", "Bytes of pieces sent to children.", tally.size, True)
    yield Figure("naiad_complaints", "Complaints of children.", tally.complaints, True)
    yield Figure("naiad_children", "Sessions of children now.", tally.children)
    yield Figure("naiad_upload_slots", "Uploads that may go on at once.", slots.count)
    yield Figure("naiad_uploads", "Uploads that go on now.", slots.used)
    yield Figure("naiad_parents", "Sessions with parents now.", swarm.parents.sessions)
    yield Figure("naiad_tasks", "Tasks this host takes part in.", swarm.tasks)
    yield Figure("naiad_schedulers", "Sessions with schedulers now.", len(swarm.control.up))
    for source, size in swarm.received.items():
        label = ("source", source)
        yield Figure("naiad_download_bytes", "Bytes of pieces, decoded.", size, True, label)


def scheduler_figures(scheduler: Scheduler) -> Iterator[Figure]:
    """Tell of a scheduler."""
    yield Figure("naiad_scheduler_hosts", "Hosts connected now.", len(scheduler.hosts))
    yield Figure("naiad_scheduler_tasks", "Tasks with a host.", len(scheduler.tasks))
    aside = len(scheduler.isolation.aside)
    yield Figure("naiad_scheduler_hosts_aside", "Hosts that are set aside.", aside)
    yield Figure("naiad_scheduler_events", "Messages taken.", scheduler.events, True)
    grants = sum(len(task.grants.open) for task in scheduler.tasks.values())
    yield Figure("naiad_scheduler_grants", "Grants that are open now.", grants)
