from __future__ import annotations

import importlib
from pathlib import Path

import click
import pytest
from click.core import ParameterSource

SERVICES = ("scheduler", "seed", "peer", "snapshotter")


def command_of(service: str) -> click.Command:
    command = importlib.import_module(f"cli.commands.{service}").command
    assert isinstance(command, click.Command)
    return command


def words_of(command: click.Command) -> list[tuple[str, click.Option]]:
    return [
        (word, one)
        for one in command.params
        if isinstance(one, click.Option)
        for word in one.opts
        if word.startswith("--") and word != "--config"
    ]


def example(option: click.Option, file: Path) -> str:
    if option.is_flag:
        return "true"
    if isinstance(option.type, click.Choice):
        return f'"{option.type.choices[0]}"'
    if isinstance(option.type, click.Path):
        return f'"{file if option.type.dir_okay is False else file.parent}"'
    if isinstance(option.type, click.IntRange):
        return str(option.type.max)
    texts = {"ADDRESS": "10.0.0.1:7000", "DURATION": "7s", "PATTERN": "https://a.example/*"}
    return f'"{texts.get(option.type.name, "7")}"'


def read(command: click.Command, file: Path, settings: str) -> click.Context:
    file.write_text(settings)
    return command.make_context("naiad", ["--config", str(file)])


OPTIONS = [(service, word) for service in SERVICES for word, _ in words_of(command_of(service))]


@pytest.mark.parametrize(("service", "word"), OPTIONS)
def test_every_option_of_a_service_can_be_set_by_its_own_word(
    tmp_path: Path, service: str, word: str
) -> None:
    command, file = command_of(service), tmp_path / "settings.toml"
    option = dict(words_of(command))[word]
    ctx = read(command, file, f"{word.removeprefix('--')} = {example(option, file)}\n")
    assert option.name is not None
    assert ctx.get_parameter_source(option.name) is ParameterSource.DEFAULT_MAP
    assert ctx.params[option.name] not in (None, (), False)


SCHEDULERS = [
    'scheduler = "10.0.0.1:7000"',
    'scheduler = ["10.0.0.1:7000"]',
    '[scheduler]\naddress = "10.0.0.1:7000"',
    '[scheduler]\naddress = ["10.0.0.1:7000"]',
]


@pytest.mark.parametrize("settings", SCHEDULERS)
def test_what_may_be_given_several_times_is_one_value_or_a_list(
    tmp_path: Path, settings: str
) -> None:
    ctx = read(command_of("seed"), tmp_path / "seed.toml", settings)
    assert ctx.params["schedulers"] == ("10.0.0.1:7000",)


def test_a_table_says_what_its_keys_begin_with(tmp_path: Path) -> None:
    settings = "[upload]\nslots = 3\n[cache]\nlimit = '1GiB'\n"
    ctx = read(command_of("peer"), tmp_path / "peer.toml", settings)
    assert (ctx.params["slots"], ctx.params["cache_limit"]) == (3, 1 << 30)


WRONG = [
    ('slots = 3\nscheduler = "10.0.0.1:7000"', "there is no setting 'slots'"),
    ("upload-slots = 0", "upload-slots"),
    ('idc = ["a", "b"]', "idc takes one value, not a list"),
    ('config = "other.toml"', "there is no setting 'config'"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG)
def test_a_setting_that_cannot_be_is_named(tmp_path: Path, settings: str, said: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        read(command_of("peer"), tmp_path / "peer.toml", settings)
    assert said in caught.value.format_message()
