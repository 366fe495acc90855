"""``python -m cli``: the same as ``naiad``."""

from __future__ import annotations

from .main import main

main(prog_name="naiad")
