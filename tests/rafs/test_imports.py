"""The import statements of texts in Python."""

from __future__ import annotations

import ast
import inspect
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rafs.imports import Import, imports


def told(text: str, main: bool = False) -> list[str]:
    """Return the imports of *text*, a line each."""
    lines = []
    for one in imports(text.encode(), main):
        line = "." * one.level + one.module.decode()
        if one.names:
            line += ": " + " ".join(name.decode() for name in one.names)
        lines.append(line + ("?" if one.instead else ""))
    return lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import a, b.c as d; import e", ["a", "b.c", "e"]),
        ("from a import b, c as d", ["a: b c"]),
        ("from .. import (a,  # why\n   b,\n)", ["..: a b"]),
        ("from .a.b import *", [".a.b"]),
        ("from . \\\n  import a", [".: a"]),
        ("import a \\\n  , b", ["a", "b"]),
        ("try: import a\nexcept ImportError:\n  import b\nelse: import c", ["a", "b?", "c"]),
        ("class A:\n\timport a\n", ["a"]),
        ("if sys.version_info > (3, 1):\n  import a", ["a"]),
        ("def f():\n  import a\n\n  if x:\n    import b\nimport c", ["c"]),
        ("async def f():\n  import a", []),
        ("if TYPE_CHECKING:\n  import a\nelse:\n  import b", ["b"]),
        ("if typing.TYPE_CHECKING:\n  import a", []),
        ("if sys.platform == 'win32':\n  import a\nelse:\n  import b", ["b"]),
        ('if os.name == "nt": pass\nimport a', ["a"]),
        ("if sys.platform != 'win32':\n  import a", ["a"]),
        ("if __name__ == '__main__':\n  import a", []),
        ('"""\nimport a\n"""\nimport b', ["b"]),
        ("x = 'import a' # '''\nimport b\n# '''", ["b"]),
        ("x = 'it\\'s'; import a", ["a"]),
        ("x = r'\\'\nimport a", ["a"]),
        ("'''\nimport a", []),
        ("importlib.import_module('a')\nimported = from_a", []),
        ("import\nfrom import\nimport 7\nfrom a import\n", []),
        ("\ufeffimport a\r\nimport b\r\n", ["b"]),
    ],
)
def test_what_runs_when_a_module_is_imported_is_told(text: str, expected: list[str]) -> None:
    assert told(text) == expected


def test_a_main_program_calls_its_functions() -> None:
    text = "def f():\n  import a\nif __name__ == '__main__':\n  import b\n"
    assert told(text, main=True) == ["a", "b"]


@pytest.mark.parametrize("module", [ast, inspect, json, logging, pytest])
def test_no_module_that_a_parser_finds_is_left_out(module: object) -> None:
    text = inspect.getsource(module)  # type: ignore[arg-type]
    expected = set()
    for one in ast.parse(text).body:
        if isinstance(one, ast.Import):
            expected |= {name.name for name in one.names}
        elif isinstance(one, ast.ImportFrom):
            expected.add("." * one.level + (one.module or ""))
    found = {line.partition(":")[0] for line in told(text)}
    assert found >= expected


@given(st.binary(max_size=200))
def test_any_bytes_are_read_in_peace(text: bytes) -> None:
    for main in (False, True):
        assert all(isinstance(one, Import) for one in imports(text, main))


@pytest.mark.parametrize(
    "part",
    [
        b'"""\\',
        b"'\\'",
        b"import (",
        b"from ....",
        b"import a.",
        b"if == ",
        b"\t",
        b"from a" + b" ",
    ],
)
def test_a_text_made_to_be_slow_is_not(part: bytes) -> None:
    # A step of the search that looks at a byte again for each other byte would take hours here.
    assert len(list(imports(part * 200_000))) <= 1
