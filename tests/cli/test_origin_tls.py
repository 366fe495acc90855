"""Images on servers that must be vouched for, and that ask who we are."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.certificates import Certificate, self_signed
from fixtures.choosy import choosy
from fixtures.command import Naiad


@pytest.fixture
def naiad(tmp_path: Path) -> Naiad:
    return Naiad(tmp_path, HOME=str(tmp_path))


@pytest.fixture
def image(tmp_path: Path, naiad: Naiad) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(b"what is in it")
    naiad.run("build", tmp_path / "source", tmp_path / "image")
    return tmp_path / "image"


@pytest.fixture
def server(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "server")


@pytest.fixture
def ours(tmp_path: Path) -> Certificate:
    return self_signed(tmp_path, "ours")


def test_an_origin_is_shown_the_certificate_that_was_named(
    tmp_path: Path, naiad: Naiad, image: Path, server: Certificate, ours: Certificate
) -> None:
    trusted = "--origin-ca", server.certificate
    shown = "--origin-certificate", ours.certificate, "--origin-key", ours.key
    with choosy(image, server.server_context(ours)) as url:
        refused = naiad.run("unpack", *trusted, url, tmp_path / "none", ok=False)
        naiad.run("unpack", *trusted, *shown, url, tmp_path / "out")
    assert (tmp_path / "out" / "file").read_bytes() == b"what is in it"
    assert refused.returncode == 1
    assert "does not take our certificate, or lack of one" in refused.stderr


def test_a_folder_of_podmans_says_it_too(
    tmp_path: Path, naiad: Naiad, image: Path, server: Certificate
) -> None:
    with choosy(image, server.server_context()) as url:
        refused = naiad.run("unpack", url, tmp_path / "none", ok=False)
        folder = tmp_path / ".config/containers/certs.d" / url.removeprefix("https://")
        folder.mkdir(parents=True)
        (folder / "ca.crt").write_bytes(server.certificate.read_bytes())
        naiad.run("unpack", url, tmp_path / "out")
    assert "its certificate is not trusted" in refused.stderr
    assert (tmp_path / "out" / "file").read_bytes() == b"what is in it"


def test_a_key_alone_is_misuse(tmp_path: Path, naiad: Naiad, ours: Certificate) -> None:
    misused = naiad.run("check", tmp_path, "--origin-key", ours.key, ok=False)
    assert misused.returncode == 2
    assert "--origin-key needs --origin-certificate" in misused.stderr
