"""What nurseries have wrapped: one expected error leaves a command alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


def plain(error: BaseException) -> BaseException:
    """Return what nurseries have wrapped, where it is one error alone."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise one error alone without the groups it is in; Ctrl-C whatever else there is."""
    try:
        yield
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise plain(group) from None
