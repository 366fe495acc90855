"""``naiad completion``: what a shell needs to complete naiad's words."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      eval "$(naiad completion bash)"
      naiad completion fish > ~/.config/fish/completions/naiad.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click completes all three"
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "naiad", "_NAIAD_COMPLETE").source())
