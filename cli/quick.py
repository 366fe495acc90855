"""``naiad pull`` as it is mostly typed, without click, which takes longer to load than a lazy pull.

What is not plain here, or goes wrong before there is an answer, is left to `cli.main`: it says so.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Mapping, Sequence

from fusefs.containers.pulls import Unheard, pull
from fusefs.errors import FusefsError

ADDRESS = "/run/naiad/snapshotter.sock"

_SILENCE = 600.0
"""Seconds: a large ordinary layer says nothing while it is fetched and unpacked."""

_OPTIONS = {
    "-n": "namespace",
    "--namespace": "namespace",
    "--platform": "platform",
    "-u": "user",
    "--user": "user",
    "--snapshotter": "snapshotter",
    "--address": "address",
}
"""Each takes a value, as `cli.commands.pull` declares it."""

_OTHERS = ("NAIAD_LOG_LEVEL", "_NAIAD_COMPLETE")
"""What else the environment may ask of the command line."""


def ask(address: str, asked: Mapping[str, str]) -> None:
    """Have the snapshotter at *address* pull what is *asked*, and print how it went."""
    started = time.monotonic()
    for reply in pull(address, asked, _SILENCE):
        if "said" in reply:
            sys.stderr.write(f"{reply['said']}\n")
        if "digest" in reply:
            sys.stdout.write(f"{reply['digest']}  {time.monotonic() - started:.2f} s\n")
            sys.stdout.flush()


def pulled(words: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Do what *words* say behind ``naiad``; False, and nothing is done, if not all is plain."""
    asked = parsed(words, environment)
    if asked is None:
        return False
    address = os.path.abspath(asked.pop("address"))  # noqa: PTH100  # pathlib takes 5 ms
    try:
        ask(address, asked)
    except Unheard:
        return False
    except FusefsError as exc:
        said = importlib.import_module("cli.errors").sentence(exc)
        sys.stderr.write(f"naiad: {said}\n")
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads: nothing is to be said
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("\nAborted!\n")  # as click does
        sys.exit(1)
    return True


def parsed(words: Sequence[str], environment: Mapping[str, str]) -> dict[str, str] | None:
    """Return what is asked by name; None for what only click understands."""
    if not words or words[0] != "pull" or any(environment.get(name) for name in _OTHERS):
        return None
    asked = {
        "namespace": environment.get("CONTAINERD_NAMESPACE") or "default",
        "platform": "",
        "user": "",
        "snapshotter": "naiad",
        "address": ADDRESS,
    }
    left = iter(words[1:])
    for word in left:
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if option in _OPTIONS:
            found = value if equals else next(left, None)
            if found is None:
                return None
            asked[_OPTIONS[option]] = found
        elif word.startswith("-") or "reference" in asked:
            return None
        else:
            asked["reference"] = word
    asked["user"], colon, asked["secret"] = asked["user"].partition(":")
    plain = "reference" in asked and (colon or not asked["user"])  # else it is asked for a password
    return asked if plain else None
