"""``python -m cli``: the same as ``naiad``."""

from __future__ import annotations

from .entry import main

main()
