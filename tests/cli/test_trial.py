"""``--prefetch-from``: what a command reads over the built image is listed, in its order."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.mounting import until
from fixtures.ocilayout import Layout
from fixtures.reading import walk
from fixtures.roots import shell_root
from rafs import Bootstrap

pytestmark = pytest.mark.kernel


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a root file system with a few files to read."""
    shell_root(tmp_path / "root", "cat")
    (tmp_path / "root" / "etc").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "root" / "etc" / name).write_text(name * 5000)
    return tmp_path / "root"


def listed(image: Path) -> list[bytes]:
    """Return the paths that *image* lists."""
    with closing(Bootstrap.open(image / "image.boot")) as bootstrap:
        names = {nid: path for path, nid in walk(bootstrap)}
        return [names[nid] for nid in bootstrap.prefetch]


def test_what_a_command_reads_in_the_image_is_listed(
    naiad: Naiad, root: Path, tmp_path: Path
) -> None:
    command = "sh -c 'cat /etc/c; cat /etc/a >/etc/new; cat /etc/new'"
    said = naiad.run("build", "--json", "--prefetch-from", command, root, tmp_path / "image")
    found = listed(tmp_path / "image")
    assert found[0] == b"usr/bin/sh"
    assert [path for path in found if path.startswith(b"etc/")] == [b"etc/c", b"etc/a"]
    assert "ccccc" in said.stderr
    assert said.stdout.startswith("{")
    assert not (root / "etc" / "new").exists()
    assert [path.name for path in (tmp_path / "image").glob(".*")] == []


def test_what_lies_in_blobs_of_others_is_there_to_be_read(
    naiad: Naiad, root: Path, tmp_path: Path
) -> None:
    naiad.run("build", root, tmp_path / "base")
    (root / "etc" / "d").write_text("d" * 5000)
    words = ("--chunk-dict", tmp_path / "base", "--prefetch-from", "cat /etc/d /etc/b")
    naiad.run("build", *words, root, tmp_path / "image")
    found = [path for path in listed(tmp_path / "image") if path.startswith(b"etc/")]
    assert found == [b"etc/d", b"etc/b"]
    remote = ("--chunk-dict", "oci:/nowhere", "--prefetch-from", "cat /etc/d")
    done = naiad.run("build", *remote, root, tmp_path / "other", ok=False)
    assert (done.returncode, "oci:/nowhere is no folder" in done.stderr) == (2, True)


def test_the_command_cannot_see_this_machine(naiad: Naiad, root: Path, tmp_path: Path) -> None:
    command = f"""sh -c 'echo $$; echo /proc/[0-9]*; echo {tmp_path}/*; cat /proc/net/dev'"""
    said = naiad.run("build", "--prefetch-from", command, root, tmp_path / "image").stderr
    lines = said.splitlines()
    assert lines[:3] == ["1", "/proc/1", f"{tmp_path}/*"]
    assert [line.split(":")[0].strip() for line in lines if ":" in line] == ["lo"]


def test_a_program_of_this_machine_runs_in_the_images_root(
    naiad: Naiad, root: Path, tmp_path: Path
) -> None:
    command = f"{sys.executable} -c \"open('etc/b').read(1); open('etc/a').read(1)\""
    naiad.run("build", "--prefetch-from", command, root, tmp_path / "image")
    assert listed(tmp_path / "image") == [b"etc/b", b"etc/a"]


def test_a_container_image_runs_as_its_config_says(
    naiad: Naiad, root: Path, tmp_path: Path
) -> None:
    settings = {"Env": ["WHICH=/etc/b"], "WorkingDir": "/etc"}
    config = {"architecture": "amd64", "os": "linux", "config": settings}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(root, ".")
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.manifest([archive.getvalue()], config), "app")
    command = "sh -c 'cat $WHICH; read x <c'"
    naiad.run("build", "--prefetch-from", command, f"oci:{tmp_path}/layout", tmp_path / "image")
    found = listed(tmp_path / "image")
    assert [path for path in found if path.startswith(b"etc/")] == [b"etc/b", b"etc/c"]


def test_a_command_that_does_not_end_is_ended(naiad: Naiad, root: Path, tmp_path: Path) -> None:
    command = "sh -c 'while :; do :; done'"
    options = ("--prefetch-period", "500ms", "--prefetch-from", command)
    said = naiad.run("build", *options, root, tmp_path / "image")
    assert "ended after 0.5 s" in said.stderr
    assert listed(tmp_path / "image")[0] == b"usr/bin/sh"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("no-such-program", "no-such-program: No such file or directory"),
        ("/etc/a", "it could not be started"),
        ("sh -c 'exit 127'", "it could not be started"),
    ],
)
def test_a_command_that_cannot_start_makes_no_image(
    naiad: Naiad, root: Path, tmp_path: Path, command: str, why: str
) -> None:
    done = naiad.run("build", "--prefetch-from", command, root, tmp_path / "image", ok=False)
    assert done.returncode == 1
    assert why in done.stderr
    assert not (tmp_path / "image").exists()


def test_a_command_that_fails_counts_with_a_word(naiad: Naiad, root: Path, tmp_path: Path) -> None:
    command = "sh -c 'read x </etc/c; exit 3'"
    said = naiad.run("build", "--prefetch-from", command, root, tmp_path / "image")
    assert "it failed with 3" in said.stderr
    assert listed(tmp_path / "image")[-1] == b"etc/c"


@pytest.mark.parametrize("command", ["", "'unbalanced"])
def test_a_command_that_is_none_is_misuse(
    naiad: Naiad, root: Path, tmp_path: Path, command: str
) -> None:
    done = naiad.run("build", "--prefetch-from", command, root, tmp_path / "image", ok=False)
    assert done.returncode == 2


def test_a_killed_build_takes_command_and_mount_with_it(
    naiad: Naiad, root: Path, tmp_path: Path
) -> None:
    image = tmp_path / "image"
    command = "sh -c 'cat /etc/b >/dev/null; while :; do :; done'"
    words = ["-m", "cli", "build", "--prefetch-from", command, str(root), str(image)]
    building = subprocess.Popen([sys.executable, *words], env=naiad.environment)
    until(lambda: any(b"etc/b" in trace.read_bytes() for trace in image.glob(".*/tried/trace")))
    building.send_signal(signal.SIGKILL)
    building.wait()
    until(lambda: str(image) not in Path("/proc/self/mountinfo").read_text())
    until(lambda: not _commands_of(str(image)))
    naiad.run("build", root, image)
    assert [path.name for path in image.glob(".*")] == []


def _commands_of(path: str) -> list[str]:
    """Return the processes that have *path* in their command line."""
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.encode() in line.read_bytes():
                found.append(line.parent.name)
        except OSError:
            continue
    return found


def test_a_mount_writes_what_is_read_first(naiad: Naiad, root: Path, tmp_path: Path) -> None:
    naiad.run("build", root, tmp_path / "image")
    mount = naiad.mount(tmp_path / "image", "--trace", str(tmp_path / "trace"))
    for name in ("c", "a", "c", "b"):
        (mount / "etc" / name).read_text()
    assert (tmp_path / "trace").read_text() == "/etc/c\n/etc/a\n/etc/b\n"
