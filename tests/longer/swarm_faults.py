"""Faults among ten real hosts that fetch one image at once, each against an undisturbed run.

::

    python -m tests.longer.swarm_faults                      all of them, ten minutes (root)
    python -m tests.longer.swarm_faults stall flips drips    these
    python -m tests.longer.swarm_faults --list

Ten hosts in network namespaces at 100 Mbit/s, a seed, an origin, 100 MiB in chunks of 256 KiB; a
fault strikes when three tenths are there. A cut of ten seconds is measured on 300 MiB: it takes
longer than 100 MiB do. The fault's time is that of the last host that was not killed or stopped;
those that come back finish as well. Every file of every host that lives is compared in the end.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cli.options import parse_size
from fixtures.site import Plan, Running, Site, digest_of
from fusefs.errors import FusefsError
from fusefs.mounting.mount import status, warm

HOSTS = 10
SMALL, LARGE = 100 << 20, 300 << 20
STRIKE = 0.3
"""Share of the whole that hosts have on average when a fault strikes."""
_FILE = 10 << 20
_PATIENCE = 120.0


@dataclass(slots=True)
class Scene:
    """A site, and who has what there."""

    site: Site
    size: int
    start: float = 0.0
    done: dict[int, float] = field(default_factory=dict)
    """When each host had everything, seconds from the start."""
    faulty: Running | None = None
    daemons: dict[int, int] = field(default_factory=dict)
    trail: list[float] = field(default_factory=list)
    """What hosts had on average after each second, as a share of the whole."""

    @property
    def now(self) -> float:
        """Seconds since all began."""
        return time.monotonic() - self.start

    def begin(self, numbers: Iterable[int]) -> None:
        """Have hosts fetch everything, without a process per host."""
        for number in numbers:
            warm(self.site.mountpoints[number], [], self.site.state_folder(number))

    def share(self) -> float:
        """Return the share of everything that hosts have on average."""
        had = sum(min(self.size, self.site.cached(number)) for number in range(HOSTS))
        return had / self.size / HOSTS

    def wait(self, numbers: Iterable[int], until: Callable[[], bool] = lambda: False) -> None:
        """Look until *numbers* have everything or *until* says so."""
        while not until():
            for number in range(HOSTS):
                if number not in self.done and self.site.cached(number) >= self.size:
                    self.done[number] = self.now
            if self.now >= len(self.trail):
                self.trail.append(self.share())
            if all(number in self.done for number in numbers):
                return
            if self.now > _PATIENCE:
                raise SystemExit(f"only {sorted(self.done)} are done after {self.now:.0f} s")
            time.sleep(0.02)

    def processes(self, number: int) -> list[int]:
        """Return a mount's supervisor and daemon."""
        facts = status(self.site.mountpoints[number], self.site.state_folder(number))
        return [int(str(facts[name])) for name in ("supervisor", "daemon")]


Act = Callable[[Scene], None]


def _nothing(_: Scene) -> None:
    """Leave all as it is."""


def _kill(scene: Scene) -> None:
    for number in (0, 1):
        for pid in scene.processes(number):
            os.kill(pid, signal.SIGKILL)


def _kill_daemons(scene: Scene) -> None:
    for number in (0, 1):
        _, scene.daemons[number] = scene.processes(number)
        os.kill(scene.daemons[number], signal.SIGKILL)


def _warm_again(scene: Scene) -> None:
    """Have those whose daemon is a new one go on."""
    for number, before in scene.daemons.items():
        ends = time.monotonic() + 20
        while True:
            try:
                if scene.processes(number)[1] != before:
                    break
            except FusefsError:
                pass
            if time.monotonic() > ends:
                raise SystemExit(f"the daemon of host {number} is not replaced")
            time.sleep(0.05)
    scene.begin(scene.daemons)


def _stop(scene: Scene) -> None:
    _, scene.daemons[0] = scene.processes(0)
    os.kill(scene.daemons[0], signal.SIGSTOP)


def _go_on(scene: Scene) -> None:
    os.kill(scene.daemons[0], signal.SIGCONT)


def _mend(scene: Scene) -> None:
    assert scene.faulty is not None
    scene.faulty.signal(signal.SIGUSR1)


def _kill_scheduler(scene: Scene) -> None:
    scene.site.scheduler.signal(signal.SIGKILL)
    scene.site.scheduler.process.wait()


def _start_scheduler(scene: Scene) -> None:
    scene.site.scheduler = scene.site.start_scheduler()


def _kill_seed(scene: Scene) -> None:
    assert scene.site.seed is not None
    scene.site.seed.signal(signal.SIGKILL)


def _kill_origin(scene: Scene) -> None:
    """Kill it once the swarm, its seed left out, holds everything, while hosts are looked at."""

    def watch() -> None:
        task = scene.site.swarm_state()["tasks"][0]
        while task["held"] != task["pieces"]:
            task = scene.site.swarm_state()["tasks"][0]
        scene.site.origin.signal(signal.SIGKILL)
        print(f"   all is there after {scene.now:.1f} s: the origin is killed")

    threading.Thread(target=watch, daemon=True).start()


def _cut_origin(scene: Scene) -> None:
    scene.site.origin_host.cut()


def _mend_origin(scene: Scene) -> None:
    scene.site.origin_host.cut(off=False)


def _part(scene: Scene, *, off: bool) -> None:
    for host in scene.site.hosts[: HOSTS // 2]:
        host.part(off=off)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and how it ends."""

    what: str
    strike: Act = _nothing
    heal: Act | None = None
    after: float | None = None
    """Seconds after which it is healed; None: when the others are done."""
    spared: tuple[int, ...] = ()
    """Hosts that need not finish for the fault's time."""
    never: tuple[int, ...] = ()
    """Hosts that do not finish at all."""
    faulty: str = ""
    """A peer besides that has everything, and what is wrong with it."""
    size: int = SMALL
    scheduled: bool = True
    """There is a scheduler in the end."""


FAULTS = {
    "kill": Fault("two peers killed, mounts and all", _kill, spared=(0, 1), never=(0, 1)),
    "restart": Fault("two peers' daemons killed", _kill_daemons, _warm_again, 0.0),
    "stall": Fault("a parent stopped (SIGSTOP)", _stop, _go_on, spared=(0,)),
    "flips": Fault("a parent with flipped bits", heal=_mend, faulty="flips"),
    "drips": Fault("a parent at 64 KiB/s", heal=_mend, faulty="drips"),
    "boasts": Fault("a parent that has nothing it tells", heal=_mend, faulty="boasts"),
    "scheduler": Fault("the scheduler killed", _kill_scheduler, scheduled=False),
    "rescheduled": Fault(
        "the scheduler killed, another 2 s later", _kill_scheduler, _start_scheduler, 2.0
    ),
    "seed": Fault("the seed killed", _kill_seed),
    "gone": Fault("the origin killed when the swarm has it all", _kill_origin),
    "origin": Fault("the origin cut for 10 s", _cut_origin, _mend_origin, 10.0, size=LARGE),
    "partition": Fault(
        "half of the hosts apart for 10 s",
        partial(_part, off=True),
        partial(_part, off=False),
        10.0,
        size=LARGE,
    ),
}


class Stage:
    """The images, and what undisturbed runs took."""

    def __init__(self, folder: Path, asked: argparse.Namespace) -> None:
        self._folder = folder
        self._asked = asked
        self._images: dict[int, tuple[Path, str]] = {}
        self._undisturbed: dict[int, float] = {}
        for size, _, seconds in (known.partition("=") for known in asked.undisturbed):
            self._undisturbed[parse_size(size)] = float(seconds)
        self._runs = 0
        self.trail: list[float] = []
        """Of the last run."""

    def compare(self, name: str) -> None:
        """Run one fault, after an undisturbed run of its size, and print both."""
        fault = FAULTS[name]
        if fault.size not in self._undisturbed:
            took = self._undisturbed[fault.size] = self._run(
                "undisturbed", Fault("nothing", size=fault.size)
            )
            print(f"undisturbed, {fault.size >> 20} MiB: {took:.1f} s", flush=True)
        took = self._run(name, fault)
        ratio = took / self._undisturbed[fault.size]
        mark = "" if ratio <= 1.5 else "   TOO LONG"
        print(f"{fault.what}: {took:.1f} s, {ratio:.2f}x{mark}", flush=True)
        if ratio > 1.2:
            print("   % after each second:", *(f"{100 * share:.0f}" for share in self.trail))

    def _run(self, name: str, fault: Fault) -> float:
        image, expected = self._image(fault.size)
        self._runs += 1
        plan = Plan(HOSTS + bool(fault.faulty))
        with Site(plan, image, self._folder / f"run{self._runs}") as site:
            scene = Scene(site, fault.size)
            site.log_level = self._asked.log_level
            if fault.faulty:
                scene.faulty = site.start_faulty(HOSTS, fault.faulty, self._cache(site, image))
            for number in range(HOSTS):
                site.mount(number, "--prefetch", "none", "--driver", "fuse")
            try:
                took = self._play(scene, fault)
                if fault.scheduled and fault.what != "nothing":
                    _tell(scene, wait=not self._asked.no_wait)
                alive = [number for number in range(HOSTS) if number not in fault.never]
                if not site.read_all(alive).wait().right(expected):
                    raise SystemExit(f"{name}: wrong bytes")
            finally:
                self._keep(site, name)
                self.trail = scene.trail
            shutil.rmtree(self._folder / "held", ignore_errors=True)
        shutil.rmtree(site.folder, ignore_errors=True)
        return took

    def _play(self, scene: Scene, fault: Fault) -> float:
        everybody = set(range(HOSTS))
        scene.start = time.monotonic()
        scene.begin(range(HOSTS))
        scene.wait(everybody, lambda: scene.share() >= STRIKE)
        fault.strike(scene)
        struck = scene.now
        after = fault.after
        if fault.heal is not None and after is not None:
            scene.wait(everybody - {*fault.never}, lambda: scene.now >= struck + after)
            fault.heal(scene)
        scene.wait(everybody - {*fault.spared})
        took = max(scene.done[number] for number in everybody - {*fault.spared})
        if fault.heal is not None and after is None:
            fault.heal(scene)
        scene.wait(everybody - {*fault.never})
        return took

    def _image(self, size: int) -> tuple[Path, str]:
        if size not in self._images:
            tree, image = self._folder / f"tree{size}", self._folder / f"image{size}"
            tree.mkdir()
            for number in range(size // _FILE):
                data = random.Random(number).randbytes(_FILE)
                (tree / f"file{number:04}").write_bytes(data)
            words = ["build", str(tree), str(image), "--chunk-size", "256KiB", "--codec", "none"]
            command = [sys.executable, "-m", "cli", *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            self._images[size] = image, digest_of(tree)
        return self._images[size]

    def _cache(self, site: Site, image: Path) -> Path:
        """Return a cache that has all of the image."""
        held, mountpoint = self._folder / "held", self._folder / "mount"
        mountpoint.mkdir(exist_ok=True)
        host, state = site.scheduler_host, ("--state", self._folder / "state")
        site.naiad(host, "mount", "--cache", held, *state, "--driver", "fuse", image, mountpoint)
        site.naiad(host, "warm", "--wait", *state, mountpoint)
        site.naiad(host, "umount", *state, mountpoint)
        return held

    def _keep(self, site: Site, name: str) -> None:
        kept = self._asked.keep_logs
        if kept is not None:
            for log in [*site.folder.glob("state*/*/log"), *site.folder.glob("*.log")]:
                place = log.parts[-3] if log.name == "log" else log.stem
                shutil.copy(log, kept / f"{name}-{place}.log")


def _tell(scene: Scene, *, wait: bool) -> None:
    """Print who is set aside, and when they are back."""
    state = scene.site.swarm_state()
    for aside in state["aside"]:
        who = _who(scene, aside)
        seconds = float(str(aside["seconds"]))
        print(f"   set aside: {who}, {aside['reason']}, {seconds:.0f} s more")
    if state["aside"] and wait:
        time.sleep(max(float(str(aside["seconds"])) for aside in state["aside"]) + 0.5)
        left = [_who(scene, aside) for aside in scene.site.swarm_state()["aside"]]
        print(f"   then: {', '.join(left) or 'all are back in'}")
    elif not state["aside"]:
        print("   nobody is set aside")


def _who(scene: Scene, aside: dict[str, object]) -> str:
    address = str(aside["address"]).rpartition(":")[0]
    for number, host in enumerate(scene.site.hosts):
        if host.address == address:
            return f"host {number}" if number < HOSTS else "the faulty peer"
    return "the seed" if address == scene.site.seed_host.address else "who is gone"


def main() -> None:
    """Run faults and print what they cost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--keep-logs", type=Path)
    parser.add_argument("--no-wait", action="store_true", help="until who is set aside is back")
    parser.add_argument(
        "--undisturbed",
        action="append",
        default=[],
        metavar="SIZE=SECONDS",
        help="what is known already: 100MiB=9.7",
    )
    parser.add_argument("--log-level", default="info", help="of the mounts")
    asked = parser.parse_args()
    unknown = set(asked.faults) - set(FAULTS)
    if unknown or asked.list:
        for name, fault in FAULTS.items():
            print(f"{name:12} {fault.what}")
        raise SystemExit(2 if unknown else 0)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # all is ended then, as by Ctrl-C
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        stage = Stage(Path(folder), asked)
        for name in asked.faults or FAULTS:
            stage.compare(name)


if __name__ == "__main__":
    main()
