"""``--config FILE.toml``: what the options of a service are where the command line says nothing.

A key is an option's name; a table only says what its keys begin with: ``limit`` in ``[cache]`` is
``--cache-limit``, and ``address`` in ``[scheduler]`` is ``--scheduler`` itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import click


def config_option(command: Callable[..., object]) -> Callable[..., object]:
    """Add ``--config``, of which *command* itself hears nothing."""
    return click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        envvar="NAIAD_CONFIG",
        is_eager=True,
        expose_value=False,
        callback=_read,
        help="Settings in TOML, by the names of these options.",
    )(command)


def _read(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    known = {
        _key(word): one
        for one in ctx.command.params
        if isinstance(one, click.Option) and one is not param
        for word in one.opts
        if word.startswith("--")
    }
    try:
        settings = dict(_settings(tomllib.loads(path.read_text()), ""))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise click.UsageError(f"{path}: {exc}") from exc
    named = {}
    for key, value in settings.items():
        if key not in known:
            raise click.UsageError(f"{path}: there is no setting {key!r}")
        if isinstance(value, list) and not known[key].multiple:
            raise click.UsageError(f"{path}: {key} takes one value, not a list")
        named[known[key].name] = _several(value) if known[key].multiple else value
    ctx.default_map = {**(ctx.default_map or {}), **named}


def _key(word: str) -> str:
    return word.removeprefix("--").replace("_", "-")


def _several(value: object) -> object:
    return value if isinstance(value, list) else [value]


def _settings(table: dict[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        name = _key(key)
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}-")
        elif name == "address" and prefix:
            yield prefix.removesuffix("-"), _words(value)
        else:
            yield prefix + name, _words(value)


def _words(value: object) -> object:
    """Return *value* as the command line would give it."""
    if isinstance(value, list):
        return [str(one) for one in value]
    return value if isinstance(value, bool | str) else str(value)
