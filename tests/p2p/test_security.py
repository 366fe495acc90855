from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
from trio.testing import memory_stream_pair

from fixtures.swarmcerts import SwarmCerts
from p2p.errors import BadPapers, Unsafe, Untrusted
from p2p.pki import Wish, issue
from p2p.security import (
    ANYBODY,
    HANDSHAKE,
    Identity,
    Papers,
    Remote,
    Role,
    Security,
    is_loopback,
    permitted,
)

PEER, SEED, SCHEDULER = Role.PEER, Role.SEED, Role.SCHEDULER

LOOPBACK = [
    ("127.0.0.1", True),
    ("127.3.4.5", True),
    ("::1", True),
    ("[::1]", True),
    ("localhost", True),
    ("", False),
    ("0.0.0.0", False),
    ("::", False),
    ("10.0.0.1", False),
    ("localhost.example", False),
    ("127.0.0.1.example", False),
    ("127.1", False),
]


class Talk:
    """What both sides of one connection saw."""

    def __init__(self) -> None:
        self.server: Remote | Untrusted | None = None
        self.client: Remote | Untrusted | None = None
        self.heard = b""


async def talk(server: Security, client: Security, wanted: Role | None = None) -> Talk:
    """Connect, and have the server say hello as the protocol does."""
    ours, theirs = memory_stream_pair()
    seen = Talk()

    async def serve() -> None:
        try:
            stream, seen.server = await server.accepted(theirs)
            await stream.send_all(b"hello")
        except trio.BrokenResourceError:
            pass  # the client has gone
        except Untrusted as exc:
            seen.server = exc
        finally:
            await theirs.aclose()

    async def ask() -> None:
        try:
            stream, seen.client = await client.dialled(ours, wanted)
            seen.heard = bytes(await stream.receive_some(5))
        except Untrusted as exc:
            seen.client = exc
        finally:
            await ours.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        nursery.start_soon(ask)
    return seen


@pytest.mark.parametrize(("host", "inside"), LOOPBACK)
def test_only_what_cannot_be_reached_from_elsewhere_is_loopback(host: str, inside: bool) -> None:
    assert is_loopback(host) is inside


def test_beyond_loopback_there_is_tls_or_leave() -> None:
    assert permitted("127.0.0.1", tls=False, insecure=False)
    assert permitted("0.0.0.0", tls=True, insecure=False)
    assert permitted("0.0.0.0", tls=False, insecure=True)
    assert not permitted("0.0.0.0", tls=False, insecure=False)


def test_an_address_that_is_not_safe_is_refused_in_words_that_help() -> None:
    with pytest.raises(Unsafe, match=r"will not listen on 0\.0\.0\.0 without TLS: give --cert"):
        Security().check("0.0.0.0")
    with pytest.raises(Unsafe, match=r"will not dial sched\.example"):
        Security().check("sched.example", to="dial")
    Security(insecure=True).check("0.0.0.0")


async def test_both_sides_learn_name_and_roles(certs: SwarmCerts) -> None:
    seen = await talk(certs.security(SCHEDULER, SEED), certs.security(PEER), SCHEDULER)
    assert isinstance(seen.server, Remote)
    assert isinstance(seen.client, Remote)
    assert (seen.server.name, seen.server.roles) == ("peer", frozenset({PEER}))
    assert (seen.client.name, seen.client.roles) == ("scheduler-seed", frozenset({SCHEDULER, SEED}))
    assert seen.heard == b"hello"


async def test_without_certificates_everybody_has_every_role() -> None:
    seen = await talk(Security(), Security(), SCHEDULER)
    assert seen.server == seen.client == ANYBODY


async def test_a_peer_cannot_pose_as_scheduler(certs: SwarmCerts) -> None:
    seen = await talk(certs.security(PEER), certs.security(PEER), SCHEDULER)
    assert str(seen.client) == "peer is no scheduler: its certificate says peer"


async def test_a_foreign_client_is_told_at_both_ends(
    certs: SwarmCerts, foreign: SwarmCerts
) -> None:
    theirs = foreign.papers(PEER)
    client = Security(Identity(Papers(theirs.certificate, theirs.key, certs.ca)))
    seen = await talk(certs.security(SEED), client)
    assert "its certificate is not trusted: " in str(seen.server)
    assert str(seen.client) == "it does not know the CA of our certificate"


async def test_a_foreign_server_is_told_at_both_ends(
    certs: SwarmCerts, foreign: SwarmCerts
) -> None:
    seen = await talk(foreign.security(SEED), certs.security(PEER))
    assert "its certificate is not trusted: " in str(seen.client)
    assert str(seen.server) == "it does not know the CA of our certificate"


async def test_an_expired_client_is_told_at_both_ends(certs: SwarmCerts) -> None:
    old = certs.papers(PEER, name="old", age=timedelta(days=31), days=30)
    seen = await talk(certs.security(SEED), Security(Identity(old)))
    assert str(seen.server) == "its certificate is not trusted: certificate has expired"
    assert str(seen.client) == "our certificate has expired"


async def test_an_expired_server_is_told_at_both_ends(certs: SwarmCerts) -> None:
    old = certs.papers(SEED, name="oldseed", age=timedelta(days=31), days=30)
    seen = await talk(Security(Identity(old)), certs.security(PEER))
    assert str(seen.client) == "its certificate is not trusted: certificate has expired"
    assert str(seen.server) == "our certificate has expired"


async def test_a_certificate_without_a_role_is_none(certs: SwarmCerts) -> None:
    seen = await talk(certs.security(SEED), certs.security())
    assert str(seen.server) == "the certificate of nobody carries no role"


async def test_who_speaks_no_tls_is_told_so(certs: SwarmCerts) -> None:
    ours, theirs = memory_stream_pair()
    await ours.send_all(b"naiadp2p" + bytes(40))
    with pytest.raises(Untrusted, match="it does not speak TLS"):
        await certs.security(SEED).accepted(theirs)


async def test_a_silent_handshake_ends_in_time(
    certs: SwarmCerts, autojump_clock: trio.testing.MockClock
) -> None:
    _, theirs = memory_stream_pair()
    start = trio.current_time()
    with pytest.raises(Untrusted, match="no TLS handshake within 5 s"):
        await certs.security(SEED).accepted(theirs)
    assert trio.current_time() - start == HANDSHAKE


async def test_a_hang_up_in_the_handshake_ends_it(certs: SwarmCerts) -> None:
    ours, theirs = memory_stream_pair()
    await ours.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await certs.security(SEED).accepted(theirs)


async def test_old_tls_is_refused(certs: SwarmCerts) -> None:
    papers = certs.papers(PEER)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    command = ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{port}"]
    command += ["-cert", str(papers.certificate), "-key", str(papers.key)]
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            stream = await listeners[0].accept()
            with pytest.raises(Untrusted, match=r"it does not speak TLS 1\.3"):
                await certs.security(SEED).accepted(stream)
            await trio.aclose_forcefully(stream)

        nursery.start_soon(serve)
        done = await trio.run_process(
            command, stdin=b"", check=False, capture_stdout=True, capture_stderr=True
        )
    await listeners[0].aclose()
    assert done.returncode != 0


async def test_renewed_files_are_used_from_the_next_connection_on(certs: SwarmCerts) -> None:
    server = Security(Identity(certs.papers(SEED, name="renewed")))
    before = await talk(server, certs.security(PEER))
    certs.papers(SEED, name="renewed", days=3)
    after = await talk(server, certs.security(PEER))
    assert isinstance(before.client, Remote)
    assert isinstance(after.client, Remote)
    assert before.client.expires is not None
    assert after.client.expires is not None
    assert after.client.expires < before.client.expires


@pytest.mark.logs("renewed certificate cannot be used, the old one stays")
async def test_a_half_renewed_certificate_leaves_the_old_one(
    certs: SwarmCerts, caplog: pytest.LogCaptureFixture
) -> None:
    papers = certs.papers(SEED, name="half")
    server = Security(Identity(papers))
    whole = papers.certificate.read_text()
    papers.certificate.write_text(whole[:100])
    for _ in range(3):
        seen = await talk(server, certs.security(PEER))
        assert seen.heard == b"hello"
    assert len(caplog.messages) == 1
    papers.certificate.unlink()
    assert (await talk(server, certs.security(PEER))).heard == b"hello"


def test_papers_that_do_not_fit_are_told_by_name(certs: SwarmCerts, tmp_path: Path) -> None:
    one, other = certs.papers(SEED, name="one"), certs.papers(SEED, name="other")
    with pytest.raises(BadPapers, match=r"one\.pem with .*other\.key: no certificate and its key"):
        Identity(Papers(one.certificate, other.key, one.ca))
    with pytest.raises(BadPapers, match=r"gone\.pem: No such file"):
        Identity(Papers(tmp_path / "gone.pem", one.key, one.ca))
    (tmp_path / "empty.pem").touch()
    with pytest.raises(BadPapers, match=r"empty\.pem: no CA certificate"):
        Identity(Papers(one.certificate, one.key, tmp_path / "empty.pem"))


def test_keys_are_closed_to_others(certs: SwarmCerts) -> None:
    made = certs.papers(PEER, name="closed")
    assert made.key.stat().st_mode & 0o777 == 0o600
    assert (certs.folder / "ca.key").stat().st_mode & 0o777 == 0o600


def test_openssl_accepts_what_is_issued_and_no_leaf_that_signs(
    certs: SwarmCerts, tmp_path: Path
) -> None:
    made = certs.papers(PEER, SEED, name="10.0.0.7")
    verify = ["openssl", "verify", "-x509_strict", "-CAfile", str(certs.ca)]
    subprocess.run([*verify, str(made.certificate)], check=True, capture_output=True)
    text = subprocess.run(
        ["openssl", "x509", "-noout", "-text", "-in", str(certs.ca)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "CA:TRUE, pathlen:0" in text


def test_a_ca_is_never_replaced(certs: SwarmCerts) -> None:
    before = certs.ca.read_bytes()
    with pytest.raises(BadPapers, match="is there already, and stays"):
        SwarmCerts(certs.folder)
    assert certs.ca.read_bytes() == before


@pytest.mark.parametrize("name", ["", "ca", "../x", "a/b", ".hidden", "a b", "x" * 70, "ü"])
def test_names_that_are_no_hosts_are_refused(certs: SwarmCerts, name: str) -> None:
    with pytest.raises(BadPapers, match="cannot be a host's name"):
        issue(certs.folder, Wish(name, [PEER]), certs.folder, datetime.now(UTC))
