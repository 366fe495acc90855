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
    known = {one.name for one in ctx.command.params if isinstance(one, click.Option)}
    try:
        settings = dict(_settings(tomllib.loads(path.read_text()), ""))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise click.UsageError(f"{path}: {exc}") from exc
    for name in settings:
        if name not in known - {param.name}:
            raise click.UsageError(f"{path}: there is no setting {name.replace('_', '-')!r}")
    ctx.default_map = {**(ctx.default_map or {}), **settings}


def _settings(table: dict[str, object], prefix: str) -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        name = key.replace("-", "_")
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}_")
        elif name == "address" and prefix:
            yield prefix.rstrip("_"), _words(value)
        else:
            yield prefix + name, _words(value)


def _words(value: object) -> object:
    """Return *value* as the command line would give it."""
    if isinstance(value, list):
        return [str(one) for one in value]
    return value if isinstance(value, bool | str) else str(value)
