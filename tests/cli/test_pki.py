from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.command import Naiad
from p2p.security import Identity, Papers


def test_a_swarm_gets_its_certificates(naiad: Naiad, tmp_path: Path) -> None:
    pki = tmp_path / "pki"
    assert naiad.run("pki", "init", pki).stdout.strip() == str(pki / "ca.pem")
    made = naiad.json(
        "pki", "issue", pki, "--role", "seed", "--role", "peer", "--name", "a", "--json"
    )
    assert isinstance(made, dict)
    Identity(Papers(Path(made["certificate"]), Path(made["key"]), Path(made["ca"])))
    again = naiad.run("pki", "init", pki, ok=False)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1
    assert "is there already" in again.stderr


SERVICES = [
    (("scheduler",), "peer", "scheduler"),
    (("seed", "--scheduler", "127.0.0.1:1"), "peer", "seed"),
    (("seed", "--scheduler", "self", "--listen", "127.0.0.1:7999"), "seed", "scheduler"),
    (("peer", "--listen", "127.0.0.1:0"), "seed", "peer"),
    (
        ("fetch", "--scheduler", "127.0.0.1:1", "-o", "/dev/null/x", "http://a.test/x"),
        "seed",
        "peer",
    ),
]


@pytest.mark.parametrize(("words", "has", "needs"), SERVICES)
def test_a_service_with_the_certificate_of_another_role_does_not_start(
    naiad: Naiad, tmp_path: Path, words: tuple[str, ...], has: str, needs: str
) -> None:
    naiad.run("pki", "init", tmp_path)
    naiad.run("pki", "issue", tmp_path, "--role", has, "--name", "a")
    own, key, ca = tmp_path / "a.pem", tmp_path / "a.key", tmp_path / "ca.pem"
    done = naiad.run(*words, "--certificate", own, "--key", key, "--ca", ca, ok=False)
    assert done.returncode == 1
    assert done.stderr == f"naiad: certificate: {own} is no {needs}'s: its role says {has}\n"


@pytest.mark.kernel
def test_a_mount_with_the_certificate_of_another_role_is_refused(
    naiad: Naiad, tmp_path: Path
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "mount").mkdir()
    naiad.run("build", tmp_path / "tree", tmp_path / "image")
    naiad.run("pki", "init", tmp_path)
    naiad.run("pki", "issue", tmp_path, "--role", "scheduler", "--name", "a")
    own, key, ca = tmp_path / "a.pem", tmp_path / "a.key", tmp_path / "ca.pem"
    words = ("--certificate", own, "--key", key, "--ca", ca, "--scheduler", "127.0.0.1:1")
    done = naiad.run("mount", *words, tmp_path / "image", tmp_path / "mount", ok=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{own} is no peer's: its role says scheduler" in done.stderr


def test_a_folder_without_a_ca_is_told_so(naiad: Naiad, tmp_path: Path) -> None:
    done = naiad.run("pki", "issue", tmp_path, "--role", "peer", "--name", "a", ok=False)
    assert done.returncode == 1
    assert "naiad pki init makes a CA" in done.stderr
