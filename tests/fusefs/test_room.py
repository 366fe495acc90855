from __future__ import annotations

from pathlib import Path

from fusefs.pagecache.room import available

MIB = 1 << 20


def _proc(folder: Path, *, membership: str, kib: int = 8 << 20) -> Path:
    (folder / "self").mkdir(parents=True)
    (folder / "self/cgroup").write_text(membership)
    (folder / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {kib} kB\n")
    return folder


def _v2(folder: Path, most: str, now: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{now}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 0\n")


def test_the_machine_limits_where_no_group_does(tmp_path: Path) -> None:
    proc = _proc(tmp_path / "proc", membership="0::/\n", kib=1024)
    assert available(proc, tmp_path / "groups") == MIB


def test_clean_pages_of_files_are_room(tmp_path: Path) -> None:
    proc = _proc(tmp_path / "proc", membership="0::/a\n")
    _v2(tmp_path / "groups/a", str(100 * MIB), 90 * MIB, 70 * MIB)
    assert available(proc, tmp_path / "groups") == 80 * MIB


def test_groups_around_the_own_one_limit_as_well(tmp_path: Path) -> None:
    proc = _proc(tmp_path / "proc", membership="0::/a/b\n")
    _v2(tmp_path / "groups/a/b", "max", 90 * MIB, 70 * MIB)
    _v2(tmp_path / "groups/a", str(50 * MIB), 49 * MIB, 0)
    assert available(proc, tmp_path / "groups") == MIB


def test_the_older_hierarchy_is_read_too(tmp_path: Path) -> None:
    proc = _proc(tmp_path / "proc", membership="4:memory:/c\n1:cpu:/\n0::/\n")
    folder = tmp_path / "groups/memory/c"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{512 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{500 * MIB}\n")
    (folder / "memory.stat").write_text(f"total_inactive_file {8 * MIB}\ncache 1\n")
    assert available(proc, tmp_path / "groups") == 20 * MIB


def test_an_older_group_without_a_limit_is_not_asked_what_it_uses(tmp_path: Path) -> None:
    proc = _proc(tmp_path / "proc", membership="4:memory:/c\n0::/\n", kib=2048)
    folder = tmp_path / "groups/memory/c"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{(1 << 63) - 4096}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{1 << 63}\n")
    assert available(proc, tmp_path / "groups") == 2 * MIB


def test_what_cannot_be_read_limits_nothing(tmp_path: Path) -> None:
    assert available(tmp_path, tmp_path) > 1 << 60
    proc = _proc(tmp_path / "proc", membership="nonsense\n0::/a\n", kib=2048)
    _v2(tmp_path / "groups/a", "what", 1, 1)
    assert available(proc, tmp_path / "groups") == 2 * MIB
