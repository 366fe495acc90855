"""Gallery: many images in one FUSE session, which outlives the snapshotter that shows them.

The session is a mount like any other, with a supervisor and a daemon of its own
(`fusefs.mounting.mount`); it is told over its control socket which images to show. Where the kernel
can, it shows the blobs as files and EROFS is mounted over them; else the image's own tree is what
is used. Where there can be no session at all, images are unpacked whole.

Tasks: a start of the session, and a mount or unmount of one image, exclude each other.
"""

from __future__ import annotations

import logging
import shutil
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import trio

from chunkstore.origins.credentials import Credential
from fusefs.control import Command, ask
from fusefs.errors import Busy, Declined, FusefsError, KernelRefuses, MountFailed, NoAnswer
from fusefs.mounting.erofs import mount_erofs
from fusefs.mounting.kernel import unmount
from fusefs.mounting.mount import unmount as end_session
from fusefs.mounting.mountinfo import resolved, topmost
from fusefs.mounting.options import Options
from fusefs.mounting.shown import Shown
from fusefs.mounting.state import StateRoot

from .layers import measure
from .lazyimages import LazyImage
from .snapshots import Usage

logger = logging.getLogger(__name__)

_WATCH = 2.0
"""Seconds between looks at whether the daemon is still the same."""

_PATIENCE = 50.0
"""Seconds for an image to be shown: its metadata may have to come again."""


Unpack = Callable[[LazyImage, Credential | None, Path], Awaitable[None]]
"""Writes all files of an image to a new directory, verified."""


class Showing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the session's daemon is asked to show."""

    name: str
    image: LazyImage
    driver: str = ""
    """``fuse`` where the kernel has refused EROFS; empty: as the session is set up."""
    user: str = ""
    secret: str = ""
    is_identity: bool = False

    def __repr__(self) -> str:
        return f"Showing({self.name})"

    @property
    def credential(self) -> Credential | None:
        """Who to be to the registry."""
        return Credential(self.user, self.secret, self.is_identity) if self.secret else None

    @property
    def public(self) -> Showing:
        """What of it may be written down."""
        return Showing(self.name, self.image)


class Gallery:
    """Mounts images below *root*: the session at ``session``, EROFS in ``images``."""

    def __init__(
        self,
        root: Path,
        state: Path | None,
        launch: Callable[[Path], Awaitable[None]],
        unpack: Unpack,
    ) -> None:
        """*launch* starts a session at a mountpoint and returns when it answers."""
        self._unpack = unpack
        self._mountpoint = root / "session"
        self._images = root / "images"
        self._whole = root / "whole"
        for folder in (self._mountpoint, self._images, self._whole):
            if topmost(folder) is None:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._mountpoint = resolved(self._mountpoint)
        self._state = state
        self._launch = launch
        self.is_lazy = True
        """There was a session when one was needed last."""
        self._starting = trio.Lock()
        self._changing: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        self._shown: dict[str, Showing] = {}
        """What has been asked to be shown, with its credential, for a session that comes anew."""
        self._trees: dict[str, Path] = {}

    async def mount(self, image: LazyImage, credential: Credential | None) -> None:
        """Have *image* shown; raises MountFailed."""
        name = image.name
        async with self._changing[name]:
            showing = Showing(name, image)
            if credential is not None:
                user, secret, kind = credential.user, credential.secret, credential.is_identity
                showing = Showing(name, image, user=user, secret=secret, is_identity=kind)
            elif name in self._shown:
                showing = self._shown[name]
            self._trees[name] = await self._lazily(showing) or await self._wholly(showing)

    async def _lazily(self, showing: Showing) -> Path | None:
        """Have an image shown; None where there can be no session, or all of it is here."""
        if await trio.to_thread.run_sync((self._whole / showing.name).is_dir):
            return None
        try:
            await self._ready()
        except MountFailed as exc:
            logger.warning("images cannot be loaded lazily: %s", exc)
            return None
        tree = await self._show(showing)
        self._shown[showing.name] = showing
        return tree

    async def _wholly(self, showing: Showing) -> Path:
        """Unpack an image, all of it."""
        tree = self._whole / showing.name
        if not await trio.to_thread.run_sync(tree.is_dir):
            logger.warning("an image is unpacked whole image=%s", showing.image.reference)
            new = self._whole / f"new-{showing.name}"
            await trio.to_thread.run_sync(partial(shutil.rmtree, new, ignore_errors=True))
            await self._unpack(showing.image, showing.credential, new)
            await trio.to_thread.run_sync(new.rename, tree)
        return tree

    async def watch(self) -> None:
        """Tell a daemon that has taken a dead one's place who to be to registries, for ever.

        Credentials are written down nowhere, so it cannot know. A session that was killed with its
        supervisor comes anew, for the containers that will be started.
        """
        last: object = None
        while True:
            await trio.sleep(_WATCH)
            private = [one for one in self._shown.values() if one.secret]
            try:
                daemon = (await self._asked(Command.STATUS, None, 5.0)).get("daemon")
                for showing in private if last not in (None, daemon) else ():
                    await self._ask(Command.SHOW, showing)
                last = daemon
            except FusefsError as exc:
                logger.info("the session does not answer: %s", exc)
                await self._revive()

    async def _revive(self) -> None:
        """Have a session again, if images are to be shown."""
        if self._shown and not await trio.to_thread.run_sync(self._is_alive):
            logger.warning("the session was killed: it comes anew, for new containers")
            try:
                await self._ready()
            except FusefsError as exc:
                logger.error("no images can be shown: %s", exc)

    async def start(self, names: Collection[str]) -> None:
        """Have a session in which no images are shown but those of *names*: a crash may leave some.

        What hinders it is told, and tried again with the next image.
        """
        try:
            await self._ready()
            await self._retain(names)
        except FusefsError as exc:
            logger.error("no images can be shown: %s", exc)

    async def _retain(self, names: Collection[str]) -> None:
        for tree in await trio.to_thread.run_sync(lambda: list(self._whole.iterdir())):
            if tree.name not in names:
                await trio.to_thread.run_sync(partial(shutil.rmtree, tree, ignore_errors=True))
        found = (await self._asked(Command.STATUS, None, 5.0)).get("images")
        for name in set(found if isinstance(found, Mapping) else ()) - set(names):
            await trio.to_thread.run_sync(self._take_down, self._images / name)
            await self._asked(Command.HIDE, Showing(name, LazyImage("", "", "")), _PATIENCE)

    async def close(self) -> None:
        """End the session, if it shows nothing any more; containers go on else."""
        if not self._shown and await trio.to_thread.run_sync(self._is_alive):
            await trio.to_thread.run_sync(partial(end_session, self._mountpoint, state=self._state))

    async def unmount(self, image: LazyImage) -> None:
        """Have *image* shown no more."""
        name = image.name
        async with self._changing[name]:
            self._trees.pop(name, None)
            self._shown.pop(name, None)
            gone = partial(shutil.rmtree, self._whole / name, ignore_errors=True)
            await trio.to_thread.run_sync(gone)
            await trio.to_thread.run_sync(self._take_down, self._images / name)
            if await trio.to_thread.run_sync(self._is_alive):
                await self._ask(Command.HIDE, Showing(name, image))
        if not self._changing[name].statistics().tasks_waiting:
            self._changing.pop(name, None)

    def shows(self, image: LazyImage) -> bool:
        """Say whether *image* is mounted."""
        return image.name in self._trees

    def tree(self, image: LazyImage) -> Path:
        """Return where *image* is; raises MountFailed."""
        tree = self._trees.get(image.name)
        if tree is None:
            raise MountFailed(f"{image.reference} is not mounted")
        return tree

    async def usage(self, image: LazyImage) -> Usage:
        """Return the bytes of *image* that are here; none where nobody answers."""
        tree = self._whole / image.name
        if await trio.to_thread.run_sync(tree.is_dir):
            return await trio.to_thread.run_sync(measure, tree)
        try:
            facts = await self._asked(Command.STATUS, None, 5.0)
        except FusefsError:
            return Usage()
        images = facts.get("images")
        found = images.get(image.name) if isinstance(images, Mapping) else None
        ready = found.get("ready_bytes") if isinstance(found, Mapping) else 0
        return Usage(ready if isinstance(ready, int) else 0, 0)

    async def _ready(self) -> None:
        """Have a session; one that comes anew shows what the one before did."""
        async with self._starting:
            if await trio.to_thread.run_sync(self._is_alive):
                return
            self.is_lazy = False
            await trio.to_thread.run_sync(self._clear)
            await self._launch(self._mountpoint)
            self.is_lazy = True
            for name, showing in list(self._shown.items()):
                if name in self._shown:  # it may have been let go of meanwhile
                    self._trees[name] = await self._show(showing)

    async def _show(self, showing: Showing) -> Path:
        """Have an image shown and return where; by FUSE where the kernel refuses EROFS."""
        shown = msgspec.convert(await self._ask(Command.SHOW, showing), Shown)
        if shown.driver == "fuse":
            return self._mountpoint / showing.name
        place, files = self._images / showing.name, self._mountpoint / showing.name
        devices = [files / device for device in shown.devices]
        work = partial(_mount, Path(shown.bootstrap), devices, place)
        try:
            with trio.fail_after(_PATIENCE):
                await trio.to_thread.run_sync(work, abandon_on_cancel=True)
        except KernelRefuses as exc:
            logger.warning("EROFS is refused, FUSE shows it image=%s: %s", showing.name, exc)
            await self._ask(Command.HIDE, showing)
            await self._ask(Command.SHOW, msgspec.structs.replace(showing, driver="fuse"))
            return files
        except trio.TooSlowError as exc:
            raise MountFailed(f"{showing.image.reference}: EROFS does not come up") from exc
        return place

    def _clear(self) -> None:
        """Take down what a session left that is no more."""
        for place in self._images.iterdir():
            self._take_down(place)

    def _take_down(self, place: Path) -> None:
        """Unmount EROFS at *place*, out of sight if something still uses it."""
        if topmost(place) is not None:
            try:
                unmount(place)
            except Busy:
                unmount(place, lazy=True)
        with suppress(FileNotFoundError):
            place.rmdir()

    def _is_alive(self) -> bool:
        folder = StateRoot(self._state).folder(self._mountpoint)
        return folder.alive and topmost(self._mountpoint) is not None

    async def _ask(self, command: Command, showing: Showing) -> Mapping[str, object]:
        try:
            return await self._asked(command, showing, _PATIENCE)
        except (NoAnswer, Declined) as exc:
            raise MountFailed(f"{showing.image.reference}: {exc}") from exc

    async def _asked(
        self, command: Command, showing: Showing | None, patience: float
    ) -> Mapping[str, object]:
        folder = StateRoot(self._state).folder(self._mountpoint)
        argument = msgspec.Raw(msgspec.json.encode(showing))
        work = partial(ask, folder, command, patience, argument)
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)


_ALLOWED = Options(suid=True, dev=True)
"""Containers get what containerd asks for."""


def _mount(bootstrap: Path, devices: Sequence[Path], place: Path) -> None:
    """Mount EROFS at *place*, unless it is there from a snapshotter before this one."""
    if topmost(place) is None:
        place.mkdir(mode=0o700, exist_ok=True)
        mount_erofs(bootstrap, devices, place, _ALLOWED)
