"""A model loaded by 16 threads in no order from a mapped file while its sources are in trouble.

    python -m tests.longer.model_faults [--mb 500] [--rate 1gbit] [--only WHAT] [FOLDER]

Prints for each trouble the seconds of the load, those of the tensor that waited longest, and
whether all of it was right; ends with an error where it was not. Where all sources are dead for
good, it prints after how long the loader got its signal, how soon another one was gone that was
killed in the middle of a fault, and what states the kernel had its threads in.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from fixtures.command import Naiad, naiad
from fixtures.loading import Load, Origin, fill, has_begun, make_model, serving
from fixtures.services import service
from tests.bench.side_by_side import drop_caches

LIAR = ("fixtures.lyingpeer",)
PAUSE = 20.0
DEADLINE = 10.0
"""Of a read, where sources are dead for good."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A model, its server, and folders for the mounts."""

    command: Naiad
    folder: Path
    origin: Origin
    size: int
    truth: str

    @contextmanager
    def loading(self, *options: str, source: str = "origin") -> Iterator[Path]:
        """Load from a mount with an empty cache; in the body a tenth has come from *source*."""
        drop_caches()
        mount = self.command.mount(self.origin.url, "--prefetch", "none", *options)
        with closing(Load(mount)) as load:
            has_begun(self.command, mount, source, self.size // 10)
            yield mount
            found = load.result(300)
            right = found.digest == self.truth
            said = f"all tensors after {found.total:.1f} s, the longest wait {found.longest:.2f} s"
            print(f"    {said}, {'bit-exact' if right else 'WRONG'}")
            if not right:
                sys.exit(1)
            told = self.command.status(mount)["sources"]
            assert isinstance(told, dict)
            mb = {name: tally["bytes"] // 10**6 for name, tally in told.items()}
            print(f"    MB from peers {mb['peer']}, from the origin {mb['origin']}")
        self.command.umount(mount)

    def fresh(self, name: str) -> tuple[str, str]:
        """Return the option for an empty cache."""
        return "--cache", str(self.folder / f"cache-{name}")


def nothing(scene: Scene) -> None:
    """Be no trouble."""
    with scene.loading(*scene.fresh("nothing")):
        pass


def silent_peer(scene: Scene) -> None:
    """Have the only peer stand still for ever, its connections open."""
    command, giver = scene.command, scene.folder / "cache-giver"
    with service(command, "scheduler", "--listen", "127.0.0.1:0") as scheduler:
        words = ("--scheduler", scheduler.address)
        fill(command, scene.origin.url, giver, scene.size)
        with (
            service(command, "peer", *words, "--cache", giver) as peer,
            scene.loading(*words, *scene.fresh("silent"), source="peer"),
        ):
            peer.stop()


def lying_peer(scene: Scene) -> None:
    """Have the only peer flip a bit of every chunk."""
    command, giver = scene.command, scene.folder / "cache-giver"
    with (
        service(command, "scheduler", "--listen", "127.0.0.1:0") as scheduler,
        service(command, giver, scheduler.address, name="liar", program=LIAR) as liar,
    ):
        with scene.loading("--scheduler", scheduler.address, *scene.fresh("lied")):
            pass
        lies = liar.log.read_text().count("complaint piece=")
        print(f"    chunks that were lies: {lies}")


def silent_origin(scene: Scene) -> None:
    """Have the origin stop for 20 s."""
    with scene.loading(*scene.fresh("pause")):
        scene.origin.stop()
        time.sleep(PAUSE)
        scene.origin.go_on()


def killed_daemon(scene: Scene) -> None:
    """Kill the daemon."""
    with scene.loading(*scene.fresh("killed")) as mount:
        daemon = scene.command.status(mount)["daemon"]
        assert isinstance(daemon, int)
        os.kill(daemon, signal.SIGKILL)


def dead_origin(scene: Scene) -> None:
    """Have the origin stop for good."""
    options = ("--read-deadline", f"{DEADLINE:.0f}s", *scene.fresh("dead"))
    drop_caches()
    mount = scene.command.mount(scene.origin.url, "--prefetch", "none", *options)
    with closing(Load(mount)) as load, closing(Load(mount)) as victim:
        has_begun(scene.command, mount, size=scene.size // 10)
        scene.origin.stop()
        stopped = time.monotonic()
        time.sleep(2)
        states = victim.states()
        victim.process.kill()
        killed = time.monotonic()
        victim.process.wait(30)
        print(f"    killed in the middle of faults (states {states}): gone after ", end="")
        print(f"{time.monotonic() - killed:.2f} s")
        code = load.process.wait(3 * DEADLINE)
        print(f"    the other: signal {-code} after {time.monotonic() - stopped:.1f} s", end="")
        print(f", with a deadline of {DEADLINE:.0f} s")
        if code != -signal.SIGBUS:
            sys.exit(1)
    print(f"    status says: {scene.command.status(mount)['last_error']}")
    scene.origin.go_on()


def ended(scene: Scene) -> None:
    """Terminate the loader, and unmount, while the origin stands still."""
    mount = scene.command.mount(scene.origin.url, "--prefetch", "none", *scene.fresh("ended"))
    with closing(Load(mount)) as load:
        has_begun(scene.command, mount, size=scene.size // 10)
        scene.origin.stop()
        time.sleep(1)
        states, start = load.states(), time.monotonic()
        load.process.terminate()
        load.process.wait(30)
        print(f"    SIGTERM in the middle of faults (states {states}): gone after ", end="")
        print(f"{time.monotonic() - start:.2f} s")
        start = time.monotonic()
        scene.command.run("umount", mount)
        print(f"    unmounted after {time.monotonic() - start:.2f} s")
    scene.origin.go_on()


TROUBLES: dict[str, Callable[[Scene], None]] = {
    "no trouble": nothing,
    "the peer falls silent for ever": silent_peer,
    "the peer lies": lying_peer,
    "the origin stops for 20 s": silent_origin,
    "the daemon is killed": killed_daemon,
    "all sources are dead for good": dead_origin,
    "the loader is ended, and the mount": ended,
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("/tmp"))
@click.option("--mb", default=500)
@click.option("--rate", default="1gbit", help="Of the origin.")
@click.option("--only", default="", help="Troubles whose name has this in it.")
def main(folder: Path, mb: int, rate: str, only: str) -> None:
    """Go through all troubles."""
    make_temporary = partial(tempfile.TemporaryDirectory, prefix="naiad-faults-", dir=folder)
    with make_temporary() as name, naiad(Path(name)) as command:
        place = Path(name)
        make_model(place, mb * 10**6)
        truth = Load(place / "tree").result(300).digest
        with serving(place / "image", "--rate", rate) as origin:
            scene = Scene(
                command, place, origin, (place / "tree/model.safetensors").stat().st_size, truth
            )
            for what, trouble in TROUBLES.items():
                if only in what:
                    print(what, flush=True)
                    trouble(scene)


if __name__ == "__main__":
    main()
