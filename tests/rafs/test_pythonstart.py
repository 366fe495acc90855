"""What programs in Python import, told by their sources."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest

from fixtures.elfs import elf
from fixtures.memorytree import MemoryTree


def code_of(source: bytes, flags: int = 0) -> bytes:
    """Return the head of byte code; files here are of the time 0."""
    return b"\xa7\x0d\r\n" + struct.pack("<3I", flags, 0, len(source)) + b"code"


LIBRARY = "usr/lib/python3.11"
SITES = "usr/lib/python3/dist-packages"
FILES = {
    "usr/bin/python3.11": elf(),
    f"{LIBRARY}/os.py": b"import stat",
    f"{LIBRARY}/encodings/__init__.py": b"from . import aliases",
    f"{LIBRARY}/encodings/aliases.py": b"",
    f"{LIBRARY}/json/__init__.py": b"from .decoder import Decoder\n",
    f"{LIBRARY}/json/decoder.py": b"import re, json\nfrom json import scanner",
    f"{LIBRARY}/json/scanner.py": b"try: import _json\nexcept ImportError:\n  import slow",
    f"{LIBRARY}/json/tool.py": b"import json, argparse",
    f"{LIBRARY}/slow.py": b"",
    f"{LIBRARY}/argparse.py": b"import gettext",
    f"{LIBRARY}/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so": elf(libraries=["libown.so"]),
    f"{LIBRARY}/lib-dynload/_other.cpython-312-x86_64-linux-gnu.so": elf(),
    "usr/lib/libown.so": elf(),
    f"{SITES}/pack/__init__.py": b"",
    f"{SITES}/pack/__main__.py": b"from .inner import f",
    f"{SITES}/pack/inner/__init__.py": b"from ... import beyond\nfrom ..side import g",
    f"{SITES}/pack/side.py": b"",
    f"{SITES}/spread/part.py": b"",
    f"{SITES}/more.pth": b"# what\n/opt/more\nimport hook; hook.f()\n",
    "opt/more/extra.py": b"import _json",
    "opt/more/hook.py": b"",
    "opt/path/json.py": b"",
    "app/main.py": b"def f():\n  import near, os\nimport spread.part, gone.part\n",
    "app/near.py": b"",
    "app/folder/__main__.py": b"import near",
    "app/run": b"#!/usr/bin/python3 -E\nimport extra",
}
LINKS = {"usr/bin/python3": "python3.11", "bin": "usr/bin", "app/link.py": "main.py"}

START = [
    "usr/bin/python3.11",
    f"{LIBRARY}/encodings/__init__.py",
    f"{LIBRARY}/encodings/aliases.py",
    f"{SITES}/more.pth",
    "opt/more/hook.py",
]
JSON = [
    f"{LIBRARY}/json/__init__.py",
    f"{LIBRARY}/json/decoder.py",
    f"{LIBRARY}/json/scanner.py",
    f"{LIBRARY}/lib-dynload/_json.cpython-311-x86_64-linux-gnu.so",
    "usr/lib/libown.so",
]
MAIN = ["app/main.py", "app/near.py", f"{SITES}/spread/part.py"]
PACK = [f"{SITES}/pack/{name}.py" for name in ("__init__", "__main__", "inner/__init__", "side")]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["-V"], []),
        (["-"], []),
        (["/app/main.py", "-c", "import json"], MAIN),
        (["-u", "-W", "ignore", "/app/link.py"], MAIN),
        (["-OXdev", "/app/main.py"], MAIN),
        (["--check-hash", "/app/gone.py"], []),
        (["/app"], []),
        (["/app/folder"], ["app/folder/__main__.py"]),
        (["-c", "import json"], JSON),
        (["-Bcimport json"], JSON),
        (["-m", "json.tool"], [*JSON, f"{LIBRARY}/json/tool.py", f"{LIBRARY}/argparse.py"]),
        (["-m", "pack"], PACK),
        (["-m", "gone.pack"], []),
        (["-c"], []),
    ],
)
def test_a_program_reads_what_it_imports_in_order(words: list[str], expected: list[str]) -> None:
    tree = MemoryTree(FILES, LINKS)
    assert tree.start(Entrypoint=["python3"], Cmd=words) == [*START, *expected]


def test_a_script_names_its_python() -> None:
    run = ["app/run", *START, "opt/more/extra.py", *JSON[3:]]
    assert MemoryTree(FILES, LINKS).start(Cmd=["/app/run"]) == run


def test_modules_are_looked_for_where_the_environment_says_first() -> None:
    tree = MemoryTree(FILES, LINKS)
    said = {"Env": ["PYTHONPATH=path::/gone"], "WorkingDir": "/opt"}
    assert tree.start(Cmd=["python3", "-c", "import json"], **said) == [*START, "opt/path/json.py"]


def with_code(**code: bytes) -> list[str]:
    """Return what is read of the module json.decoder beside such code."""
    files: Mapping[str, bytes] = {
        **FILES,
        **{f"{LIBRARY}/json/__pycache__/decoder.cpython-{tag}.pyc": it for tag, it in code.items()},
    }
    found = MemoryTree(files, LINKS).start(Cmd=["python3", "-c", "import json"])
    return [name.removeprefix(f"{LIBRARY}/json/") for name in found if "decoder" in name]


def test_byte_code_is_read_instead_of_a_source_that_it_is_of() -> None:
    source = FILES[f"{LIBRARY}/json/decoder.py"]
    ours = "__pycache__/decoder.cpython-311.pyc"
    assert with_code(**{"311": code_of(source)}) == [ours]
    assert with_code(**{"311": code_of(b"", flags=1)}) == [ours], "its hash is not looked at"
    assert with_code(**{"311": code_of(source + b"\n")}) == ["decoder.py"]
    assert with_code(**{"311": b"cut off"}) == ["decoder.py"]
    assert with_code(**{"312": code_of(source)}) == ["decoder.py"]


def test_a_virtual_environment_has_packages_of_its_own() -> None:
    mine = "venv/lib/python3.11/site-packages"
    files = {**FILES, "venv/pyvenv.cfg": b"home = /usr/bin", f"{mine}/pack.py": b"import json"}
    links = {**LINKS, "venv/bin/python": "/usr/bin/python3"}
    found = MemoryTree(files, links).start(Cmd=["/venv/bin/python", "-c", "import pack"])
    assert found == [*START[:3], "venv/pyvenv.cfg", f"{mine}/pack.py", *JSON]


def test_an_older_python_reads_what_newer_ones_have_inside() -> None:
    files = {name.replace("3.11", "3.9"): data for name, data in FILES.items()}
    links = {**LINKS, "usr/bin/python3": "python3.9"}
    found = MemoryTree(files, links).start(Cmd=["python3", "-V"])
    assert f"{LIBRARY}/os.py".replace("3.11", "3.9") in found


def test_a_python_without_a_version_is_that_whose_library_is_there() -> None:
    files = {**FILES, "usr/bin/python": elf()}
    found = MemoryTree(files, {}).start(Cmd=["python", "-c", "import json"])
    assert found == ["usr/bin/python", *START[1:], *JSON]
    files["usr/lib/python3.12/os.py"] = b""
    assert MemoryTree(files, {}).start(Cmd=["python", "/app/main.py"]) == ["usr/bin/python"]


def test_the_plain_locale_is_read_unless_there_is_another() -> None:
    locale = "usr/lib/locale/C.utf8/LC_CTYPE"
    tree = MemoryTree({**FILES, locale: b""}, LINKS)
    assert locale in tree.start(Cmd=["python3"])
    assert locale in tree.start(Cmd=["python3"], Env=["LANG=C.UTF-8"])
    assert locale not in tree.start(Cmd=["python3"], Env=["LANG=de_DE.UTF-8"])


def test_modules_without_end_have_one() -> None:
    many = ", ".join(f"m{number}" for number in range(100))
    deep = "a" + ".a" * 1000
    text = f"import {deep}\nimport {many}\nfrom pack import {many}".encode()
    files = {**FILES, **{f"app/m{number}.py": text for number in range(100)}}
    files["app/path.pth"] = files[f"{SITES}/more.pth"] = b"/nowhere\n" * 10_000
    found = MemoryTree({**files, "app/main.py": text}, LINKS).start(Cmd=["python3", "/app/main.py"])
    assert len(found) == len(START) - 1 + 1 + 100 + 1
