from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.command import Naiad
from fixtures.rangeserver import RangeServer


def test_build_tells_what_it_built(naiad: Naiad, tree: Path, tmp_path: Path) -> None:
    said = naiad.json("build", "--json", "--codec", "zstd", tree, tmp_path / "image")
    assert isinstance(said, dict)
    assert said["codec"] == "zstd"
    assert said["size"] == 6_000_008
    assert said["shared"] == 3_000_000
    assert said["bootstrap"].startswith("sha256:")


def test_a_chunk_dict_spares_the_storing(naiad: Naiad, tree: Path, image: Path) -> None:
    (tree / "new").write_bytes(b"something new")
    naiad.run("build", "--chunk-dict", image, tree, image.parent / "next")
    stored = {path.name: path.stat().st_size for path in (image.parent / "next/blobs").iterdir()}
    lent = {path.name for path in (image / "blobs").iterdir()}
    assert len(stored) == 2
    assert sum(size for name, size in stored.items() if name not in lent) < 100_000
    assert all(
        (image.parent / "next/blobs" / name).samefile(image / "blobs" / name) for name in lent
    )
    said = naiad.json("inspect", "--json", image.parent / "next")
    assert isinstance(said, dict)
    assert len(said["blobs"]) == 2
    naiad.run("check", "--data", image.parent / "next")


def test_inspect_counts_what_is_in_an_image(naiad: Naiad, image: Path) -> None:
    said = naiad.json("inspect", "--json", image)
    assert isinstance(said, dict)
    assert said["inodes"] == {"file": 4, "directory": 2, "symlink": 1}
    assert said["size"] == 6_000_008
    assert said["unique"] == 3_000_008


def test_inspect_shows_one_path_in_detail(naiad: Naiad, image: Path) -> None:
    said = naiad.json("inspect", "--json", image, "/etc/motd")
    assert isinstance(said, dict)
    assert said["inode"]["size"] == 8
    assert [chunk["size"] for chunk in said["chunks"]] == [8]
    assert "mode" in naiad.run("inspect", image, "etc").stdout


def test_an_image_is_the_same_by_path_and_by_url(naiad: Naiad, image: Path) -> None:
    with RangeServer(image) as server:
        assert naiad.json("inspect", "--json", server.url) == naiad.json("inspect", "--json", image)


def test_a_second_look_asks_the_origin_for_no_bootstrap(naiad: Naiad, image: Path) -> None:
    with RangeServer(image) as server:
        naiad.run("inspect", server.url)
        naiad.run("inspect", server.url)
        assert server.statistics.by_path["/image.boot"] == 1
        assert server.statistics.by_path["/image.json"] == 2


def test_a_kept_bootstrap_that_rotted_is_fetched_again(naiad: Naiad, image: Path) -> None:
    naiad.run("inspect", image)
    (kept,) = (naiad.cache / "bootstraps").glob("sha256-*")
    _flip(kept, 2000)
    assert "kept bootstrap is damaged" in naiad.run("inspect", image).stderr


def test_check_finds_nothing_wrong_with_what_was_built(naiad: Naiad, image: Path) -> None:
    assert naiad.run("check", "--data", image).stdout == "no fault found\n"
    assert naiad.json("check", "--json", "--data", image) == []


def test_check_names_the_chunk_that_is_damaged(naiad: Naiad, image: Path) -> None:
    (blob,) = (image / "blobs").iterdir()
    _flip(blob, 1_000_000)
    done = naiad.run("check", "--data", image, ok=False)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 1
    assert blob.name in done.stdout
    assert naiad.run("check", image).stdout == "no fault found\n"


def test_the_cache_is_listed_and_emptied(naiad: Naiad, image: Path) -> None:
    naiad.run("inspect", image)
    assert naiad.json("cache", "ls", "--json") == []
    assert naiad.run("cache", "verify").stdout.startswith("0 chunks are right")
    freed = naiad.json("cache", "gc", "--json")
    assert isinstance(freed, dict)
    assert freed["freed"] > 0
    assert list((naiad.cache / "bootstraps").iterdir()) == []


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0xFF]))


def _damage_bootstrap(image: Path) -> None:
    _flip(image / "image.boot", 1500)


def _cut_bootstrap(image: Path) -> None:
    with (image / "image.boot").open("r+b") as file:
        file.truncate(5000)


def _spoil_description(image: Path) -> None:
    (image / "image.json").write_text("{")


def _raise_version(image: Path) -> None:
    said = json.loads((image / "image.json").read_text())
    (image / "image.json").write_text(json.dumps(said | {"version": 2}))


def _remove_all(image: Path) -> None:
    shutil.rmtree(image)


def _remove_bootstrap(image: Path) -> None:
    (image / "image.boot").unlink()


FAULTS = [
    (_damage_bootstrap, "bad image: the bootstrap is sha256:"),
    (_cut_bootstrap, "bad image: the bootstrap is sha256:"),
    (_spoil_description, "bad image: image.json"),
    (_raise_version, "bad image: image.json: version 2"),
    (_remove_all, "no such file or directory"),
    (_remove_bootstrap, "not found"),
]


@pytest.mark.parametrize(("spoil", "said"), FAULTS)
def test_a_faulty_image_is_one_line_and_exit_code_1(
    naiad: Naiad, image: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(image)
    done = naiad.run("inspect", image, ok=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert done.stdout == ""


MISUSE = [
    ("build", "/nowhere", "target"),
    ("build", "--chunk-size", "ten", ".", "target"),
    ("build", "--chunk-size", "5000", ".", "target"),
    ("build", "--chunk-size", "32MiB", ".", "target"),
    ("inspect", "--digest", "sha256:12", "image"),
    ("inspect", "--digest", "blake3:" + "0" * 64, "image"),
    ("mount", "image"),
    ("mount", "--driver", "nbd", "image", "mount"),
    ("mount", "--read-deadline", "soon", "image", "mount"),
    ("mount", "--read-deadline", "0", "image", "mount"),
    ("mount", "--cache-limit", "0", "image", "mount"),
    ("mount", "-o", "bogus", "image", "mount"),
    ("mount", "--driver", "erofs", "--trace", "trace", "image", "mount"),
    ("mount", "--allow", "*.json", "image", "mount"),
    ("mount", "--metrics", "127.0.0.1:9000", "image", "mount"),
    ("fetch", "--metrics", "127.0.0.1:9000", "http://127.0.0.1:1/f"),
    ("cache", "gc", "--keep", "much"),
]


@pytest.mark.parametrize("words", MISUSE)
def test_misuse_is_exit_code_2(naiad: Naiad, words: tuple[str, ...]) -> None:
    done = naiad.run(*words, ok=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("inspect",), ("build", "--chunk-dict")])
def test_a_path_that_is_not_there_is_no_registry(
    naiad: Naiad, tree: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    more = (tree, tmp_path / "target") if words[0] == "build" else ()
    for path in ("./nope", str(tmp_path / "nope"), "../nope/none"):
        done = naiad.run(*words, path, *more, ok=False)
        assert done.returncode == 1
        assert done.stderr == f"naiad: not found: {path}: no such file or directory\n"


def test_a_pin_that_does_not_fit_is_refused(naiad: Naiad, image: Path) -> None:
    done = naiad.run("inspect", "--digest", "sha256:" + "0" * 64, image, ok=False)
    assert done.returncode == 1
    assert "bad image" in done.stderr


def test_an_image_as_users_of_nydus_image_lay_it_out(naiad: Naiad, image: Path) -> None:
    expected = naiad.json("inspect", "--json", image)
    (image / "image.json").unlink()
    (image / "image.boot").rename(image / "bootstrap")
    assert naiad.json("inspect", "--json", image) == expected


def test_a_cache_that_others_may_enter_is_refused(naiad: Naiad, image: Path) -> None:
    naiad.cache.mkdir(mode=0o755)
    done = naiad.run("inspect", image, ok=False)
    assert done.returncode == 1
    assert "cache cannot be used" in done.stderr
