from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from chunkstore import CacheUnusable, Corrupt, Malformed, Missing, Refused, Unreachable
from cli.boundary import Boundary
from cli.main import COMMANDS, main
from fixtures.command import Naiad
from fusefs.errors import Declined, NoAnswer
from rafs import BadImage, BadSource, NoEntry, Unsupported


@pytest.fixture(autouse=True)
def log_stays_with_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.main.to_stderr", lambda level: None)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_each_command_with_its_own_first_sentence(name: str) -> None:
    command = importlib.import_module(f"cli.commands.{name}").command
    assert command.get_short_help_str(limit=100) == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0
    assert "Examples:" in done.output


@pytest.mark.parametrize("words", [("cache",), ("pki",)])
def test_a_group_tells_of_its_commands_in_whole_sentences(words: tuple[str, ...]) -> None:
    table = CliRunner().invoke(main, [*words, "--help"]).output.partition("Commands:")[2]
    assert table.strip()
    assert "..." not in table


GROUPED = [("cache", "ls"), ("cache", "gc"), ("cache", "verify"), ("pki", "init"), ("pki", "issue")]


@pytest.mark.parametrize("words", GROUPED)
def test_commands_of_groups_have_examples(words: tuple[str, ...]) -> None:
    assert "Examples:" in CliRunner().invoke(main, [*words, "--help"]).output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    command = importlib.import_module(f"cli.commands.{name}").command
    commands = command.commands.values() if isinstance(command, click.Group) else [command]
    options = [one for each in commands for one in each.params if isinstance(one, click.Option)]
    assert [one.opts for one in options if not one.help] == []


def test_help_imports_no_command(naiad: Naiad) -> None:
    done = naiad.run("--help")
    assert all(name in done.stdout for name in COMMANDS)


def test_an_unknown_command_is_misuse_in_few_words() -> None:
    done = CliRunner().invoke(main, ["frobnicate"])
    assert done.exit_code == 2
    assert "No such command 'frobnicate'" in done.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert "_NAIAD_COMPLETE" in done.output


ERRORS = [
    (Missing("blob abc"), "not found: blob abc", 1),
    (Refused("http://x: 403"), "refused: http://x: 403", 1),
    (Unreachable("http://x: no answer"), "cannot be reached: http://x: no answer", 1),
    (Corrupt("chunk 3"), "damaged: chunk 3", 1),
    (Malformed("a digest of 3 bytes"), "malformed: a digest of 3 bytes", 1),
    (CacheUnusable("/cache: mode 0755"), "cache cannot be used: /cache: mode 0755", 1),
    (BadImage("inode at byte 12:\nbad"), "bad image: inode at byte 12: bad", 1),
    (Unsupported("zran"), "not supported: zran", 1),
    (BadSource("x: changed"), "cannot build from this: x: changed", 1),
    (NoEntry("/etc/x"), "no such file in the image: /etc/x", 1),
    (NoAnswer("no daemon"), "no answer: no daemon", 1),
    (Declined("/x: not in the image"), "naiad: /x: not in the image", 1),
    (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory", 1),
    (OSError(28, "No space left on device"), "No space left on device", 1),
    (ExceptionGroup("", [ExceptionGroup("", [Missing("blob")])]), "not found: blob", 1),
    (click.UsageError("both"), "both", 2),
]


@pytest.mark.parametrize(("error", "said", "code"), ERRORS)
def test_an_expected_error_is_one_line_and_an_exit_code(
    error: Exception, said: str, code: int
) -> None:
    done = CliRunner().invoke(_failing(error), ["command"])
    assert done.exit_code == code
    assert done.output.splitlines()[-1].endswith(said)
    assert "Traceback" not in done.output


@pytest.mark.logs("bug in naiad")
def test_a_bug_is_logged_once_and_told_in_one_line() -> None:
    done = CliRunner().invoke(_failing(KeyError("x")), ["command"])
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == "naiad: internal error: KeyError: 'x'"


def _failing(error: Exception) -> click.Group:
    @click.command()
    def command() -> None:
        raise error

    return Boundary(name="naiad", commands={"command": command})


def test_a_missing_image_is_one_line(naiad: Naiad, tmp_path: Path) -> None:
    done = naiad.run("inspect", tmp_path / "nothing", ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nothing" in done.stderr


def test_ctrl_c_among_the_first_imports_is_no_traceback() -> None:
    code = """if True:
        import sys
        import cli.entry
        class Interrupting:
            def find_spec(self, name, *_):
                if name == "click":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupting())
        cli.entry.main()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_help_that_cannot_be_written_is_one_line(naiad: Naiad) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "--help"],
            env=naiad.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "naiad: No space left on device\n")
