"""The ``naiad`` command: a table of commands, each loaded by name when it is chosen."""

from __future__ import annotations

import importlib

import click

from .boundary import Boundary
from .logs import LEVELS, to_stderr

COMMANDS = {
    "build": "Build an image from a directory, tar or container image.",
    "cache": "List, trim and verify this node's blob cache.",
    "check": "Look for faults in an image's metadata and data.",
    "completion": "Print the completion script of a shell.",
    "convert": "Convert an image in a registry to one that is loaded lazily, under another name.",
    "fetch": "Fetch a file; what is here already is not fetched again.",
    "inspect": "Tell what is in an image.",
    "mount": "Mount an image; its data arrives as it is read.",
    "peer": "Serve this node's cache to the swarm, without a mount.",
    "pki": "Make an authority and certificates for the hosts of a swarm.",
    "pull": "Pull an image into containerd; what can be loaded lazily is not fetched.",
    "scheduler": "Say which hosts of a swarm take what from whom.",
    "seed": "Get from origins what a swarm wants, once, and serve it.",
    "simulate": "Run a swarm in virtual time and tell how near it came to the bound.",
    "snapshotter": "Serve containerd's snapshots, and mount images instead of unpacking them.",
    "status": "Tell how the mounts of this node are doing.",
    "umount": "Unmount an image.",
    "unpack": "Write an image's files to a directory or a tar.",
    "warm": "Fetch a mounted image's files before they are read.",
}
"""Command name to the line that ``naiad --help`` shows, so that help imports no command."""


class LazyCommands(Boundary):
    """A group that imports ``cli.commands.NAME`` when NAME is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order that help shows them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of *cmd_name*; its ``command`` is what runs."""
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"cli.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        version = importlib.import_module("importlib.metadata").version
        click.echo(f"naiad {version('naiad')}")
        ctx.exit()


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version and exit.",
)
@click.option(
    "--log-level",
    type=click.Choice(LEVELS, case_sensitive=False),
    default="warning",
    show_default=True,
    envvar="NAIAD_LOG_LEVEL",
    help="What the log on stderr tells.",
)
def main(log_level: str) -> None:
    """Run programs from images and read models before their data has arrived.

    \b
    naiad build /usr/lib/python3 ./image       make an image
    naiad mount ./image /mnt                   mount it; also http://…, oci:DIR, HOST/REPO:TAG
    naiad status                               what has been fetched so far
    naiad umount /mnt
    """
    to_stderr(log_level)
