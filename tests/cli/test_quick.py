from __future__ import annotations

from pathlib import Path

import click
import pytest
import trio

from chunkstore import Missing
from cli.commands.pull import command
from cli.quick import _OPTIONS, ADDRESS, parsed, pulled
from fusefs.containers.claims import control_of
from fusefs.containers.pullservice import PullRequest, Say, serve_pulls

PLAIN = {
    "reference": "registry.example/app:1",
    "namespace": "default",
    "platform": "",
    "user": "",
    "secret": "",
    "snapshotter": "naiad",
    "address": ADDRESS,
}

ROWS: list[tuple[str, dict[str, str]]] = [
    ("pull registry.example/app:1", {}),
    ("pull -n k8s.io registry.example/app:1", {"namespace": "k8s.io"}),
    ("pull registry.example/app:1 --namespace=moby", {"namespace": "moby"}),
    ("pull --platform linux/arm64 registry.example/app:1", {"platform": "linux/arm64"}),
    ("pull -u me:a:b registry.example/app:1", {"user": "me", "secret": "a:b"}),
    ("pull --snapshotter nydus registry.example/app:1", {"snapshotter": "nydus"}),
    ("pull --address /run/s registry.example/app:1", {"address": "/run/s"}),
]


@pytest.mark.parametrize(("words", "changed"), ROWS)
def test_what_is_plain_is_understood_without_click(words: str, changed: dict[str, str]) -> None:
    assert parsed(words.split(), {}) == PLAIN | changed


@pytest.mark.parametrize(
    "words",
    [
        "",
        "status",
        "pull",
        "pull --help",
        "pull -h",
        "pull a b",
        "pull -nk8s.io a",
        "pull --unknown a",
        "pull -- a",
        "pull a --platform",
        "pull -u somebody a",
        "--log-level debug pull a",
    ],
)
def test_everything_else_is_left_to_click(words: str) -> None:
    assert parsed(words.split(), {}) is None


def test_the_environment_is_heeded() -> None:
    words = ["pull", "registry.example/app:1"]
    assert parsed(words, {"CONTAINERD_NAMESPACE": "k8s.io"}) == PLAIN | {"namespace": "k8s.io"}
    assert parsed(words, {"NAIAD_LOG_LEVEL": "debug"}) is None


def test_click_declares_the_same_options_with_the_same_defaults() -> None:
    context = click.Context(command)
    options = [one for one in command.params if isinstance(one, click.Option)]
    assert {opt: one.name for one in options for opt in one.opts} == _OPTIONS
    defaults = {one.name: str(one.get_default(context)) for one in options}
    assert defaults == {name: PLAIN[name] for name in defaults}


async def _deny(request: PullRequest, say: Say) -> str:
    raise Missing("no such\nimage")


async def _repeat(request: PullRequest, say: Say) -> str:
    await trio.to_thread.run_sync(say, "layer 1 of 1: nothing to fetch")
    return f"{request.reference} {request.namespace}"


async def test_what_the_snapshotter_says_is_printed(
    tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    address = tmp_path / "s"
    await nursery.start(serve_pulls, control_of(address), _repeat)
    words = ["pull", "--address", str(address), "-n", "moby", "a/b:1"]
    assert await trio.to_thread.run_sync(pulled, words, {})
    said = capsys.readouterr()
    assert said.out.startswith("a/b:1 moby  0.")
    assert said.err == "layer 1 of 1: nothing to fetch\n"


async def test_a_refusal_is_one_line_and_a_failure(
    tmp_path: Path, nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    address = tmp_path / "s"
    await nursery.start(serve_pulls, control_of(address), _deny)
    with pytest.raises(SystemExit) as ended:
        await trio.to_thread.run_sync(pulled, ["pull", "--address", str(address), "a/b:1"], {})
    assert ended.value.code == 1
    assert capsys.readouterr().err == "naiad: no such image\n"


def test_where_nobody_listens_click_is_to_say_so(tmp_path: Path) -> None:
    assert not pulled(["pull", "--address", str(tmp_path / "s"), "a/b:1"], {})
