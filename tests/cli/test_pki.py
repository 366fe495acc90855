from __future__ import annotations

from pathlib import Path

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


def test_a_folder_without_a_ca_is_told_so(naiad: Naiad, tmp_path: Path) -> None:
    done = naiad.run("pki", "issue", tmp_path, "--role", "peer", "--name", "a", ok=False)
    assert done.returncode == 1
    assert "naiad pki init makes a CA" in done.stderr
