"""What a start is known to read by looking at files alone."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.elfs import elf
from fixtures.memorytree import MemoryTree
from fixtures.ocilayout import Layout, layer_of
from rafs import Bootstrap
from rafs.builder import BuildOptions, build
from rafs.elf import needs
from rafs.sources.documents import Platform
from rafs.sources.oci import OciSource
from rafs.targets import DirectoryTarget

LOADER = elf()
FILES = {
    "usr/bin/app": elf("/lib64/ld.so", ["libown.so", "libc.so", "libgone.so"], "$ORIGIN/../own"),
    "usr/own/libown.so": elf(libraries=["libdeep.so"]),
    "usr/lib/libown.so": b"another's",
    "usr/lib/arch/libdeep.so": elf(libraries=["libc.so"]),
    "usr/lib/libc.so": elf(),
    "usr/lib/loader": LOADER,
    "usr/bin/script": b"#!/usr/bin/env -S app --quick\nwords\n",
    "usr/bin/env": elf("/lib64/ld.so", ["libc.so"]),
    "usr/bin/shell": b"#!/usr/bin/shell\n",
    "usr/bin/static": elf(),
    "bin/sh": elf(),
    "bin/tini": elf(),
    "entry": b'#!/bin/sh\nset -e\nif true; then\n  exec gosu app "$@"\nfi\n',
    "ending": b'#!/bin/sh\nexec static "$1"\n',
    "usr/bin/text": b"no program",
    "etc/ld.so.conf": b"# folders\ninclude /etc/ld.so.conf.d/*.conf\n",
    "etc/ld.so.conf.d/arch.conf": b"/usr/lib/arch\n",
    "etc/ld.so.conf.d/not.this": b"/usr/bin\n",
    "etc/ld.so.cache": b"a cache",
}
LINKS = {"lib64": "usr/lib", "lib": "usr/lib", "usr/lib/ld.so": "loader"}


APP = [
    "usr/bin/app",
    "usr/lib/loader",
    "etc/ld.so.cache",
    "usr/own/libown.so",
    "usr/lib/libc.so",
    "usr/lib/arch/libdeep.so",
]
SHELL = ["bin/sh", "etc/ld.so.cache"]
APP_BEHIND = [name for name in APP if name not in SHELL]
ENV = ["usr/bin/env", "usr/lib/loader", "etc/ld.so.cache", "usr/lib/libc.so", "usr/bin/text"]


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ({"Entrypoint": ["/usr/bin/app"]}, APP),
        ({"Entrypoint": None, "Cmd": ["app", "-x"]}, APP),
        ({"Cmd": ["bin/app"], "WorkingDir": "/usr"}, APP),
        ({"Cmd": ["app"], "Env": ["PATH=/nowhere:/usr/bin"]}, APP),
        ({"Cmd": ["app"], "Env": ["PATH=/nowhere"]}, []),
        (
            {"Cmd": ["script"]},
            [
                *("usr/bin/script", "usr/bin/env", "usr/lib/loader", "etc/ld.so.cache"),
                *("usr/lib/libc.so", "usr/bin/app", "usr/own/libown.so"),
                "usr/lib/arch/libdeep.so",
            ],
        ),
        ({"Cmd": ["shell"]}, ["usr/bin/shell"]),
        ({"Entrypoint": ["/entry"], "Cmd": ["app"]}, ["entry", *SHELL, *APP_BEHIND]),
        ({"Entrypoint": ["/ending"], "Cmd": ["app"]}, ["ending", *SHELL]),
        ({"Cmd": ["/bin/sh", "-c", "A=1 exec app --quick && text"]}, [*SHELL, *APP_BEHIND]),
        ({"Cmd": ["/bin/sh", "-ec", "'app"]}, SHELL),
        ({"Cmd": ["/bin/sh", "-c"]}, SHELL),
        ({"Cmd": ["/bin/sh"]}, SHELL),
        ({"Cmd": ["/bin/sh", "gone", "app"]}, SHELL),
        (
            {"Entrypoint": ["tini", "-s", "--"], "Cmd": ["app"]},
            ["bin/tini", *SHELL[1:], *APP_BEHIND],
        ),
        ({"Entrypoint": ["env", "A=1"], "Cmd": ["text"]}, ENV),
        ({"Cmd": ["\ud800"], "Env": ["PATH=\ud800:/usr/bin"]}, []),
        ({"Cmd": ["text"]}, ["usr/bin/text"]),
        ({"Cmd": ["static"]}, ["usr/bin/static", "etc/ld.so.cache"]),
        ({"Cmd": ["/usr/bin"]}, []),
        ({"Cmd": [""]}, []),
        ({"Cmd": "app"}, []),
        ({}, []),
    ],
)
def test_a_start_is_its_program_its_loader_and_all_libraries(
    inner: dict[str, object], expected: list[str]
) -> None:
    assert MemoryTree(FILES, LINKS).start(**inner) == expected


def test_a_large_library_is_followed_but_not_listed() -> None:
    tree = MemoryTree(FILES, LINKS)
    own = tree.root.children[b"usr"].children[b"own"].children[b"libown.so"]
    own.size = 1 << 30
    assert tree.start(Cmd=["app"]) == [name for name in APP if name != "usr/own/libown.so"]


@given(st.binary(max_size=300), st.integers(0, 400), st.binary(max_size=8))
def test_any_bytes_are_looked_at_in_peace(tail: bytes, at: int, damage: bytes) -> None:
    whole = elf("/lib64/ld.so", ["liba.so", "libb.so"], "/opt")
    for data in (whole[:16] + tail, whole[:at] + damage + whole[at + len(damage) :]):
        needs(lambda start, size, data=data: data[start : start + size])  # type: ignore[misc]


def test_an_image_lists_what_its_program_needs_and_has_it_in_front(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    entries: list[tuple[tarfile.TarInfo, bytes]] = [(tarfile.TarInfo("a-data"), b"x" * 9000)]
    for name, data in FILES.items():
        entries.append((tarfile.TarInfo(name), data))
    for name, target in LINKS.items():
        link = tarfile.TarInfo(name)
        link.type, link.linkname = tarfile.SYMTYPE, target
        entries.append((link, b""))
    config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["app"]}}
    layout.tag(layout.manifest([layer_of(entries)], config=config), None)
    source = OciSource.layout(layout.folder, None, Platform.parse("linux/amd64"))
    build(source, DirectoryTarget(tmp_path / "image"), BuildOptions(chunk_size=4096))
    image = Bootstrap.open(tmp_path / "image/image.boot")
    indexes = []
    for nid in image.prefetch:
        for place in image.file_chunks(nid):
            assert place is not None
            indexes.append(place[1].index)
    assert len(image.prefetch) == len(APP)
    assert sorted(set(indexes)) == list(range(len(set(indexes)))), "they lie in front"
    image.close()
