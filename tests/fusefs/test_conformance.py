"""containerd's own conformance suite against ``naiad snapshotter``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_HERE = Path(__file__).parents[2]
_CONTAINERD = "github.com/containerd/containerd/v2@v2.4.2"
_GO = (1, 26)
"""What that needs."""


def _go() -> str:
    found = shutil.which("go")
    version = (
        subprocess.run([found, "version"], capture_output=True, text=True).stdout if found else ""
    )
    numbers = re.search(r"go(\d+)\.(\d+)", version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < _GO:
        why = f"go {_GO[0]}.{_GO[1]} or newer is needed; this is: {version or 'none'}"
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    assert found is not None
    return found


@pytest.mark.kernel
@pytest.mark.real
def test_all_of_containerds_own_tests_of_a_snapshotter_pass(tmp_path: Path) -> None:
    go = _go()
    source = Path(__file__).parent / "conformance/snapshotter_test.go"
    shutil.copy(source, tmp_path)
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(_HERE)}
    for words in (
        ["mod", "init", "conformance"],
        ["get", "-t", _CONTAINERD, "."],
        ["test", "-v", "-timeout", "5m", "-args", "-test.root"],
    ):
        done = subprocess.run(
            [go, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{_results(done.stdout)}\n{done.stderr[-4000:]}"
    assert _results(done.stdout).count("--- PASS: TestSnapshotter/") == 21


def _results(output: str) -> str:
    lines = [line for line in output.splitlines() if "log_hook.go" not in line]
    return "\n".join(line for line in lines if "---" in line or "Error" in line)
