"""What programs of Node ask for, told by their sources."""

from __future__ import annotations

import json

import pytest

from fixtures.elfs import elf
from fixtures.memorytree import MemoryTree

DUAL = {
    ".": {"browser": "./b.js", "import": ["./m.mjs"], "require": {"node": "./c.cjs"}},
    "./side": "./lib/side.js",
}
PACKAGE = {"main": "lib"}
FILES = {
    "usr/bin/node": elf(),
    "app/package.json": b"{}",
    "app/main.js": b"var fs = require('fs'), a = require('./near')\nimport {\n b,\n} from '@x/y';",
    "app/near.js": b"function f() {\n  require('./later')\n}\nrequire('pack'); require('gone')",
    "app/later.js": b"",
    "app/folder/index.js": b"exports.a = {\n  b: require('../near'),\n  ...require('dual'),\n}",
    "app/module.mjs": b"import 'dual'\nexport * from 'dual/side'\nimport('./later.js')\n",
    "app/node_modules/@x/y/package.json": b'{"main": "gone"}',
    "app/node_modules/@x/y/index.js": b"require('../../pack/inner'); require('buffer')",
    "app/node_modules/pack/package.json": json.dumps(PACKAGE).encode(),
    "app/node_modules/pack/lib/index.js": b"a = [\n\trequire('./data'),\n  require('./native')\n]",
    "app/node_modules/pack/lib/data.json": b"require('./native')",
    "app/node_modules/pack/lib/native.node": elf(libraries=["libown.so"]),
    "app/node_modules/pack/inner.js": b"require('..'); // require('dual')\n// require('dual')",
    "app/node_modules/buffer/index.js": b"",
    "usr/lib/libown.so": elf(),
    "node_modules/dual/package.json": json.dumps({"exports": DUAL}).encode(),
    "node_modules/dual/c.cjs": b"",
    "node_modules/dual/m.mjs": b"",
    "node_modules/dual/lib/side.js": b"",
    "usr/share/nodejs/shared.js": b"",
    "app/broken.js": b"require('wrong')\nrequire('shared')",
    "app/node_modules/wrong/package.json": b"[" * 100_000,
    "app/run": b"#!/usr/bin/env node\nrequire('./near')\n",
    "usr/bin/env": elf(),
}
LINKS = {"bin": "usr/bin", "usr/bin/nodejs": "node"}

PACK = ["node_modules/pack/package.json", "node_modules/pack/lib/index.js"]
PACK += ["node_modules/pack/lib/data.json"]
NEAR = ["near.js", *PACK]
DUAL_PACKAGE = "../node_modules/dual/package.json"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["--version"], []),
        (["-e", "/app/main.js"], []),
        (["/app/gone.js"], []),
        (
            ["--max-old-space-size=9", "/app/main", "later.js"],
            [
                *("package.json", "main.js", *NEAR, "node_modules/@x/y/package.json"),
                *("node_modules/@x/y/index.js", "node_modules/pack/inner.js"),
            ],
        ),
        (
            ["/app/folder"],
            ["package.json", "folder/index.js", *NEAR, DUAL_PACKAGE, "../node_modules/dual/c.cjs"],
        ),
        (
            ["/app/module.mjs"],
            [
                *("package.json", "module.mjs", DUAL_PACKAGE, "../node_modules/dual/m.mjs"),
                "../node_modules/dual/lib/side.js",
            ],
        ),
        (["-r", "./later", "/app/later"], ["package.json", "later.js"]),
        (["--require=/app/later", "/app/gone"], ["package.json", "later.js"]),
        (
            ["/app/broken.js"],
            [
                *("package.json", "broken.js", "node_modules/wrong/package.json"),
                "../usr/share/nodejs/shared.js",
            ],
        ),
    ],
)
def test_a_program_reads_what_its_modules_ask_for(words: list[str], expected: list[str]) -> None:
    found = MemoryTree(FILES, LINKS).start(Entrypoint=["nodejs", *words], WorkingDir="/app")
    places = [f"app/{name}".replace("app/../", "") for name in expected]
    assert found == ["usr/bin/node", *places]


def test_a_script_names_its_node() -> None:
    found = MemoryTree(FILES, LINKS).start(Cmd=["/app/run"])
    places = ["app/package.json", *(f"app/{name}" for name in NEAR)]
    assert found == ["app/run", "usr/bin/env", "usr/bin/node", *places]


def test_a_library_brings_what_it_needs() -> None:
    found = MemoryTree(FILES, LINKS).start(Cmd=["node", "/app/node_modules/pack/lib/native"])
    assert found[-2:] == ["app/node_modules/pack/lib/native.node", "usr/lib/libown.so"]


def test_modules_and_names_without_end_have_one() -> None:
    many = b"".join(b"require('./m%d'); require('%s')\n" % (n, b"a/" * 100) for n in range(300))
    files = {**FILES, **{f"many/m{number}.js": many for number in range(300)}}
    found = MemoryTree(files, LINKS).start(Cmd=["node", "/many/m0"])
    assert len(found) == 301
