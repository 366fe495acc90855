"""Layers: laid from the top down, they give what extracting them from the bottom up gives."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fixtures.ocilayout import Layout, layer_of
from fixtures.snapshots import Snapshot, of_directory, of_image
from rafs import BadSource
from rafs.builder import BuildResult, build
from rafs.sources.oci import OciSource
from rafs.targets import DirectoryTarget

FILE, DIRECTORY, SYMLINK, LINK, WHITEOUT, OPAQUE = range(6)
_numbers = count()


@dataclass(frozen=True, slots=True)
class Word:
    """One member of a layer."""

    kind: int
    path: str
    target: str = ""
    mode: int = 0o644

    def member(self) -> tuple[tarfile.TarInfo, bytes]:
        """Return it as tar has it."""
        head, _, name = self.path.rpartition("/")
        folder = f"{head}/" if head else ""
        if self.kind == WHITEOUT:
            return tarfile.TarInfo(f"{folder}.wh.{name}"), b""
        if self.kind == OPAQUE:
            return tarfile.TarInfo(f"{self.path}/.wh..wh..opq"), b""
        info = tarfile.TarInfo(self.path)
        info.type = _TYPES[self.kind]
        info.mode = self.mode
        info.linkname = self.target
        return info, self.data

    @property
    def data(self) -> bytes:
        """A file's content: its own, so that every file of a test differs."""
        return f"{self.path} {self.mode}".encode() if self.kind == FILE else b""


_TYPES = {
    FILE: tarfile.REGTYPE,
    DIRECTORY: tarfile.DIRTYPE,
    SYMLINK: tarfile.SYMTYPE,
    LINK: tarfile.LNKTYPE,
}


def file(path: str, mode: int = 0o644) -> Word:
    return Word(FILE, path, mode=mode)


def directory(path: str, mode: int = 0o755) -> Word:
    return Word(DIRECTORY, path, mode=mode)


def link(path: str, target: str) -> Word:
    return Word(LINK, path, target)


def without(path: str) -> Word:
    return Word(WHITEOUT, path)


def opaque(path: str) -> Word:
    return Word(OPAQUE, path)


class Extracted:
    """Layers extracted one over the other, with nothing clever, as the specification says."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(mode=0o755)

    def apply(self, words: Sequence[Word]) -> list[Word]:
        """Apply a layer: first what it hides, then what it has; return what made sense."""
        for word in words:
            if word.kind in (WHITEOUT, OPAQUE):
                self._hide(word)
        return [word for word in words if word.kind in (WHITEOUT, OPAQUE) or self._put(word)]

    def _hide(self, word: Word) -> None:
        path = self.root / word.path
        if word.kind == WHITEOUT:
            self._folder(path.parent)
            remove(path)
        else:
            self._folder(path)
            for child in path.iterdir():
                remove(child)

    def _put(self, word: Word) -> bool:
        path = self.root / word.path
        if word.kind == LINK:
            target = self.root / word.target
            if not self._reaches(target) or path == target or path in target.parents:
                return False
            if target in path.parents:
                return False
        self._folder(path.parent)
        if word.kind == DIRECTORY:
            self._folder(path)
            path.chmod(word.mode)
            return True
        remove(path)
        if word.kind == FILE:
            path.write_bytes(word.data)
            path.chmod(word.mode)
        elif word.kind == SYMLINK:
            path.symlink_to(word.target)
        else:
            os.link(self.root / word.target, path, follow_symlinks=False)
        return True

    def _reaches(self, target: Path) -> bool:
        parents = list(target.parents)[: len(target.relative_to(self.root).parts) - 1]
        return (
            not any(parent.is_symlink() or not parent.is_dir() for parent in parents)
            and os.path.lexists(target)
            and (target.is_symlink() or not target.is_dir())
        )

    def _folder(self, path: Path) -> None:
        parts = path.relative_to(self.root).parts
        for depth in range(1, len(parts) + 1):
            folder = self.root.joinpath(*parts[:depth])
            if folder.is_symlink() or not folder.is_dir():
                remove(folder)
                folder.mkdir(mode=0o755)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def image_of(folder: Path, *layers: Sequence[Word]) -> tuple[Snapshot, BuildResult]:
    """Build an image of *layers*, from the bottom one up."""
    place = folder / f"layers-{next(_numbers)}"
    layout = Layout(place / "layout")
    tars = [layer_of([word.member() for word in layer]) for layer in layers]
    layout.tag(layout.manifest(tars), None)
    result = build(OciSource.layout(place / "layout", None), DirectoryTarget(place / "image"))
    seen = of_image(place / "image")
    shutil.rmtree(place)
    return timeless(seen), result


def extracted(folder: Path, *layers: Sequence[Word]) -> Snapshot:
    place = folder / f"extracted-{next(_numbers)}"
    model = Extracted(place)
    for layer in layers:
        assert model.apply(layer) == list(layer)
    seen = timeless(of_directory(place))
    shutil.rmtree(place)
    return seen


def timeless(seen: Snapshot) -> Snapshot:
    return {path: replace(what, mtime_ns=0) for path, what in seen.items()}


CASES: dict[str, list[list[Word]]] = {
    "a whiteout hides a file": [[file("d/a"), file("d/b")], [without("d/a")]],
    "a whiteout hides a directory": [[file("d/a"), file("b")], [without("d")]],
    "a whiteout does not hide its own layer": [[file("a")], [file("a", 0o600), without("a")]],
    "an opaque directory hides what is below": [[file("d/a")], [file("d/b"), opaque("d")]],
    "opaque keeps the directory's attributes": [
        [directory("d", 0o700), file("d/a")],
        [opaque("d")],
    ],
    "opaque over what is not opaque": [
        [file("d/x"), file("d/e/y")],
        [file("d/e/z")],
        [opaque("d/e"), file("d/e/new")],
    ],
    "a directory that was deleted and made again is new": [
        [directory("d", 0o700), file("d/a")],
        [without("d"), file("d/b")],
    ],
    "a file over a directory": [[file("d/a"), file("d/e/f")], [file("d")]],
    "a directory over a file": [[file("d")], [file("d/a")]],
    "directory, file, directory": [[file("d/a")], [file("d")], [file("d/b")]],
    "file, directory, file": [[file("d")], [file("d/a")], [file("d", 0o600)]],
    "deleted, then there again": [[file("a")], [without("a")], [file("a", 0o600)]],
    "deleted, then above it nothing": [[file("d/a")], [without("d/a")], [file("d/b")]],
    "a symlink replaces a directory": [[file("d/a")], [Word(SYMLINK, "d", "elsewhere")]],
    "a directory replaces a symlink": [[Word(SYMLINK, "d", "e"), file("e/x")], [file("d/a")]],
    "attributes of a directory come from the top": [
        [directory("d", 0o700), file("d/a")],
        [directory("d", 0o711)],
        [file("d/b")],
    ],
    "a hard link outlives its target": [[file("a"), link("b", "a")], [without("a")]],
    "a hard link outlives a new target": [[file("a"), link("b", "a")], [file("a", 0o600)]],
    "a hard link outlives its folder": [[file("d/a"), link("b", "d/a")], [opaque("d")]],
    "a target outlives its hard link": [[file("a"), link("b", "a")], [without("b")]],
    "three names, one left": [
        [file("a"), link("b", "a"), link("c", "b")],
        [without("a"), without("b")],
    ],
    "a hard link across layers": [[file("a")], [link("b", "a")]],
    "a hard link across layers outlives its target": [
        [file("a")],
        [link("b", "a")],
        [without("a")],
    ],
    "a hard link to what the same layer replaces": [
        [file("a")],
        [link("b", "a"), file("a", 0o600)],
    ],
    "a hard link over two layers": [[file("a")], [file("x")], [link("b", "a"), link("c", "b")]],
    "a hard link to a hard link below": [[file("a")], [link("b", "a")], [link("c", "b")]],
    "a hard link to one whose names are gone": [
        [file("a")],
        [link("b", "a")],
        [link("c", "b")],
        [without("a"), without("b")],
    ],
    "a hard link to a symlink across layers": [[Word(SYMLINK, "s", "t")], [link("u", "s")]],
    "a layer of nothing": [[file("a")], []],
    "whiteouts of what never was": [[file("a")], [without("b"), without("d/e"), opaque("f")]],
}


@pytest.mark.parametrize("name", CASES)
def test_known_cases(tmp_path: Path, name: str) -> None:
    seen, _ = image_of(tmp_path, *CASES[name])
    assert seen == extracted(tmp_path, *CASES[name])


_names = st.sampled_from("abc")
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)
_words = st.builds(
    Word,
    st.sampled_from([FILE, FILE, FILE, DIRECTORY, SYMLINK, LINK, LINK, WHITEOUT, WHITEOUT, OPAQUE]),
    _paths,
    _paths,
    st.sampled_from([0o600, 0o644, 0o755]),
)
_layers = st.lists(st.lists(_words, max_size=6), min_size=1, max_size=4)


@given(layers=_layers)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_layers_give_what_extracting_them_gives(
    tmp_path: Path, layers: list[list[Word]]
) -> None:
    place = tmp_path / f"model-{next(_numbers)}"
    model = Extracted(place)
    sensible = [model.apply(layer) for layer in layers]
    assume(any(sensible))
    expected = timeless(of_directory(place))
    shutil.rmtree(place)
    seen, _ = image_of(tmp_path, *sensible)
    assert seen == expected


def test_data_that_does_not_show_is_not_stored(tmp_path: Path) -> None:
    layers = [
        [file("gone"), file("old"), file("d/inner"), file("kept"), link("name", "gone")],
        [file("old", 0o600), without("d"), without("gone")],
    ]
    seen, result = image_of(tmp_path, *layers)
    files = {what.same_as: len(what.data) for what in seen.values()}
    assert result.size == sum(files.values())
    assert result.chunks == 3
    assert seen[b"name"].data == file("gone").data


@pytest.mark.parametrize(
    "layers",
    [
        [[file("a")], [link("b", "c")]],
        [[file("a")], [without("a")], [link("b", "a")]],
        [[file("a")], [link("b", "a"), without("a")]],
        [[file("d/a")], [link("b", "d")]],
        [[link("b", "b")]],
        [[file("a")], [without("..")]],
    ],
)
def test_links_and_whiteouts_of_nothing_are_refused(
    tmp_path: Path, layers: list[list[Word]]
) -> None:
    with pytest.raises(BadSource):
        image_of(tmp_path, *layers)


def test_a_link_to_nothing_that_does_not_show_is_no_matter(tmp_path: Path) -> None:
    seen, _ = image_of(tmp_path, [file("a")], [link("b", "c")], [without("b")])
    assert sorted(seen) == [b"", b"a"]


def test_aufs_bookkeeping_is_no_file(tmp_path: Path) -> None:
    seen, _ = image_of(tmp_path, [file("a"), file(".wh..wh.plnk"), file("d/.wh..wh.aufs")])
    assert sorted(seen) == [b"", b"a"]
